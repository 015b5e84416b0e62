"""Run a command as the unit's ``SystemCallFilter=`` and ``RestrictAddressFamilies=`` let it run.

Usage: sandbox.py RULES.json COMMAND…   with RULES {"calls": [names], "families": [numbers]}

All other system calls fail with EPERM, as systemd has it with ``SystemCallErrorNumber=EPERM``.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

ALLOW, ERRNO_EPERM, EQUAL = 0x7FFF0000, 0x00050001, 4  # of seccomp.h


class Compare(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("one", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def main() -> None:
    rules = json.loads(Path(sys.argv[1]).read_text())
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ERRNO_EPERM)))
    allow = ctypes.c_uint32(ALLOW)
    for name in rules["calls"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1 or name == "socket":  # -1: another architecture's
            continue
        library.seccomp_rule_add(context, allow, number, 0)
    socket = library.seccomp_syscall_resolve_name(b"socket")
    for family in rules["families"]:
        compare = Compare(0, EQUAL, family, 0)
        assert library.seccomp_rule_add_array(context, allow, socket, 1, ctypes.byref(compare)) == 0
    assert library.seccomp_load(context) == 0
    os.execvp(sys.argv[2], sys.argv[2:])


main()
