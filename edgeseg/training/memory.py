"""Turn out-of-memory errors of libraries into a DeviceError that names helpful options."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from edgeseg.errors import DeviceError

_NO_SHARED_MEMORY = re.compile(r"shared memory|DataLoader worker.*(Bus error)", re.DOTALL)
_WORKER_ENDED = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")
_NO_MEMORY = re.compile(
    # PyTorch, OpenCV, C++, and oneDNN, which says only "could not create".
    r"can't allocate memory|not enough memory|[Oo]ut of memory|Insufficient memory"
    r"|Failed to allocate|bad_alloc|std::bad_array_new_length|Cannot allocate memory"
    r"|could not create a (memory|primitive)|CUBLAS_STATUS_ALLOC_FAILED"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is a library's out-of-memory error."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        _NO_MEMORY.search(str(error))
    )


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Convert out-of-memory errors raised in the block to DeviceError; others pass through."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        explained = _explained(error)
        if explained is None:
            raise
        raise explained from error


def _explained(error: Exception) -> DeviceError | None:
    text = str(error)
    if _NO_SHARED_MEMORY.search(text):
        return DeviceError(
            "the training ran out of shared memory (/dev/shm), through which pictures reach it",
            hint="give it more: `docker run --shm-size 1g`, or "
            "`mount -o remount,size=1G /dev/shm`; or take a smaller --batch-size",
        )
    if _WORKER_ENDED.search(text):
        return DeviceError(
            "a process that reads pictures for the training was killed, "
            "as the system does where memory is short",
            hint="train again with a smaller --batch-size; --resume continues after the last epoch",
        )
    if out_of_memory(error):
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        return DeviceError(
            f"the training needs more memory than this {where} has left",
            hint="take a smaller --batch-size (with --accumulate 2 half of it makes the same "
            "step), train on parts with --crop, or take a smaller --size",
        )
    return None
