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
