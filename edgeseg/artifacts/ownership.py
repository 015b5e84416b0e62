"""Check who may change a file or folder, since native code from it is run.

The rule is that of OpenSSH in Debian for its own files: the owner is the user or root, and
nobody else may write. A group with one member is that member, so that a umask of 002 on a system
where each user has a group of their own is no danger.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import NamedTuple


class Stranger(NamedTuple):
    """Problem with the permissions of a file, and the command that fixes it, without the path."""

    fault: str
    hint: str


def stranger(status: os.stat_result) -> Stranger | None:
    """Return who else may change the file that ``status`` describes; None if nobody.

    In a folder with the sticky bit, as ``/tmp`` has it, others can add files but not replace any.
    """
    if status.st_uid not in (os.geteuid(), 0):
        return Stranger(f"belongs to {_user(status.st_uid)}", f"chown {os.geteuid()}")
    mode = status.st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    shown = f"(mode {stat.S_IMODE(mode):03o})"
    if mode & stat.S_IWOTH:
        return Stranger(f"is writable by every user of this machine {shown}", "chmod o-w")
    if mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return Stranger(f"is writable by {_group(status.st_gid)} {shown}", "chmod g-w")
    return None


def _is_private(group: int, user: int) -> bool:
    """Whether the user is the only known member of the group."""
    try:
        name = pwd.getpwuid(user).pw_name
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return members <= {name} and {p.pw_name for p in pwd.getpwall() if p.pw_gid == group} == {name}


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"


def _group(number: int) -> str:
    try:
        return f"the group {grp.getgrgid(number).gr_name}"
    except KeyError:
        return f"the group {number}"
