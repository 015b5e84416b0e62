"""Processor load by other processes, from the kernel's counters (proc_stat(5))."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edgeseg.machine import read_text


class OtherLoad:
    """Processor time used by others since this object was created (``/proc/stat``)."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._busy = busy_seconds(read_text(stat))
        self._own = time.process_time()
        self._began = time.perf_counter()

    def cores(self) -> float:
        """Mean number of cores that other processes, or other guests of the host, kept busy."""
        busy = busy_seconds(read_text(self._stat)) - self._busy
        own = time.process_time() - self._own
        elapsed = time.perf_counter() - self._began
        return max(0.0, (busy - own) / elapsed) if elapsed > 0 else 0.0


def busy_seconds(stat: str) -> float:
    """Seconds all cores together were busy since the machine started, stolen time included.

    Args:
        stat: The text of ``/proc/stat`` (proc(5)); 0 where it is empty.
    """
    fields = [int(value) for value in (stat.splitlines() or [""])[0].split()[1:]]
    if len(fields) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
