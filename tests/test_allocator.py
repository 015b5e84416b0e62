"""The allocator: what is freed is used again, without the kernel clearing it, by any thread."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from edgeseg.cli import allocator

COUNT = """
import resource
import runpy

module = runpy.run_path({module!r})
{setting}
for number in range(20):
    bytearray(64 << 20)
    if number == 9:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

THREADS = """
import runpy
import threading

module = runpy.run_path({module!r})
{setting}
end, turn = threading.Event(), threading.Semaphore(0)

def work():
    for piece in [bytearray(64 << 10) for _ in range(128)]:
        pass
    turn.release()
    end.wait()

for number in range(12):
    threading.Thread(target=work).start()
    turn.acquire()
with open("/proc/self/statm") as file:
    print(file.read().split()[1])
end.set()
"""

SETTING = "module['keep_freed_memory']()"
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


def counted(program: str, setting: str) -> int:
    code = program.format(module=allocator.__file__, setting=setting)
    line = [sys.executable, "-c", code]
    return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


@glibc
def test_large_blocks_are_used_again() -> None:
    # Pages may be huge, so only the difference is known.
    assert counted(COUNT, SETTING) * 10 < counted(COUNT, "")


@glibc
def test_threads_share_what_others_have_freed() -> None:
    assert counted(THREADS, SETTING) * 2 < counted(THREADS, "")
