"""The allocator: what is freed is used again, without the kernel clearing it."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_blocks_are_used_again() -> None:
    def faults(setting: str) -> int:
        code = COUNT.format(module=allocator.__file__, setting=setting)
        line = [sys.executable, "-c", code]
        return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    # Pages may be huge, so only the difference is known.
    assert faults("module['keep_freed_memory']()") * 10 < faults("")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_returned_when_asked() -> None:
    code = """
from edgeseg.cli.allocator import keep_freed_memory
from edgeseg.machine import return_freed_memory, rss_mib

keep_freed_memory()
block, end = bytearray(64 << 20), bytearray(1 << 20)
block[::4096] = bytes(b"1") * (64 << 8)
del block
before = rss_mib()
return_freed_memory()
print(before - rss_mib())
"""
    line = [sys.executable, "-c", code]
    assert float(subprocess.run(line, capture_output=True, text=True, check=True).stdout) > 60


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_more_than_2_gib_is_kept() -> None:
    """The activations of a training are freed together, and may take more than an ``int`` holds."""
    code = """
import ctypes
from edgeseg.cli.allocator import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
keep_freed_memory()
start = library.sbrk(0)
blocks = [library.malloc(512 << 20) for _ in range(5)]  # never touched, so they take no memory
end = library.sbrk(0)
for block in blocks:
    library.free(block)
print((end - start) >> 20, (library.sbrk(0) - start) >> 20)
"""
    line = [sys.executable, "-c", code]
    found = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    taken, kept = map(int, found.split())
    assert taken >= 5 * 512
    assert kept == taken
