"""Ownership of GPU resources, all released together at a known moment."""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from edgeseg.engines.cuda.device import Cuda
from edgeseg.errors import DeviceError


@dataclass(frozen=True)
class Pinned:
    """A NumPy array over page-locked memory; ``device`` is its address there where it is mapped."""

    array: NDArray[Any]
    device: int | None = None

    @property
    def address(self) -> int:
        """Host address of the first byte."""
        return int(self.array.ctypes.data)


class DeviceMemory:
    """Owns streams, events, memory and graphs of one user of a GPU; closing it releases all.

    In reverse order, and also if making a later one fails: use it as a context manager.
    Page-locked memory is freed with the last array over it, so a result that the caller kept stays
    readable after :meth:`close`.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._owned = contextlib.ExitStack()

    def stream(self) -> int:
        """Create a stream."""
        stream = self.cuda.create_stream()
        self._owned.callback(self.cuda.destroy_stream, stream)
        return stream

    def event(self) -> int:
        """Create an event that records time."""
        event = self.cuda.create_event()
        self._owned.callback(self.cuda.destroy_event, event)
        return event

    def module(self, image: bytes) -> int:
        """Compiled kernels."""
        module = self.cuda.load_module(image)
        self._owned.callback(self.cuda.unload_module, module)
        return module

    def device(self, nbytes: int) -> int:
        """Allocate device memory and return its address."""
        address = self.cuda.allocate(nbytes)
        self._owned.callback(self.cuda.free, address)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool = False) -> Pinned:
        """Allocate a page-locked array; the device can use a mapped one without a copy."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        address = self.cuda.allocate_host(nbytes, mapped=mapped)
        block = (ctypes.c_ubyte * nbytes).from_address(address)
        # The array's base keeps the block alive, and the block's end frees the memory.
        weakref.finalize(block, _free_host, self.cuda, address)
        array: NDArray[Any] = np.frombuffer(memoryview(block), dtype).reshape(shape)
        return Pinned(array, self.cuda.device_address(address) if mapped else None)

    def close(self) -> None:
        """Release everything; may be called twice."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _free_host(cuda: Cuda, address: int) -> None:
    # A device that failed refuses this too; the call that failed raised the reason.
    with contextlib.suppress(DeviceError):
        cuda.free_host(address)
