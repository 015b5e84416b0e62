"""Settings of the C library's allocator, for commands that train on a CPU or run a stream."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt`` in glibc's ``malloc.h``."""


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory for the rest of the process; elsewhere, do nothing.

    By default it returns large blocks to the kernel, which maps and clears them again for the next
    tensors or frames: tens of thousands of page faults in every step of a training, which
    ``bench/allocator.py`` measures with and without, and 250 in a 720p frame. See mallopt(3).
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, -1)  # never; a number of bytes ends at 2 GiB
