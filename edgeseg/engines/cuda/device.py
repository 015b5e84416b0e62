"""What edgeseg needs of CUDA, whichever library gives it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Size = tuple[int, int, int]
"""Of a grid in blocks, of a block in threads."""


@dataclass(frozen=True)
class DeviceFacts:
    """The GPU, and what drives it.

    Attributes:
        name: As CUDA gives it, e.g. ``NVIDIA GeForce RTX 4070`` or ``Orin``.
        compute_capability: Major and minor, e.g. (8, 9).
        integrated: It shares its memory with the processor, as in a Jetson.
        memory_mib: All memory that it can use.
        driver_version: The newest CUDA that the driver serves, e.g. ``13.0``.
        runtime_version: The CUDA that the Python library was made for.
    """

    name: str
    compute_capability: tuple[int, int]
    integrated: bool
    memory_mib: int
    driver_version: str
    runtime_version: str

    @property
    def target(self) -> str:
        """``sm_89`` and the like, as compilers and ``--target`` name it."""
        return "sm_{}{}".format(*self.compute_capability)


class Cuda(Protocol):
    """One GPU through one library.

    Handles and addresses are plain integers, as TensorRT takes them; addresses of the device are
    valid on the device alone. Each method may be called from any thread, and makes the device
    current for as long as it runs. What was made is destroyed by the caller, best through
    :class:`~edgeseg.engines.cuda.memory.DeviceMemory`. All raise DeviceError with the name and
    the text that CUDA has for the failure.
    """

    adapter: str
    facts: DeviceFacts

    def current(self) -> AbstractContextManager[None]:
        """Make the device current on this thread, for libraries that ask CUDA which one is."""

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """What is still queued runs to its end."""

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done; errors of earlier calls come out here."""

    def allocate(self, nbytes: int) -> int:
        """Device memory: its address there."""

    def free(self, address: int) -> None:
        """Give back device memory."""

    def allocate_host(self, nbytes: int, *, mapped: bool) -> int:
        """Page-locked host memory: its address; ``mapped`` lets the device use it in place."""

    def free_host(self, address: int) -> None:
        """Give back page-locked memory."""

    def device_address(self, host: int) -> int:
        """The address of mapped host memory on the device."""

    def copy_in(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Queue a copy from page-locked to device memory."""

    def copy_out(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Queue a copy from device to page-locked memory."""

    def copy_within(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy between addresses of the device."""

    def clear(self, address: int, nbytes: int, stream: int) -> None:
        """Queue zeros over device memory."""

    def load_module(self, image: bytes) -> int:
        """Take compiled kernels: a cubin or fatbin, or PTX that ends with a zero."""

    def unload_module(self, module: int) -> None:
        """Give back a module; its kernels must not run any more."""

    def kernel(self, module: int, name: str) -> int:
        """A kernel of a module."""

    def launch_kernel(self, kernel: int, grid: Size, block: Size, argument: bytes, to: int) -> None:
        """Queue a kernel of one argument, a structure by value, on the stream ``to``."""

    def create_event(self) -> int:
        """A mark for a stream that keeps the time."""

    def destroy_event(self, event: int) -> None:
        """Give back an event."""

    def record(self, event: int, stream: int) -> None:
        """Queue the mark."""

    def wait(self, event: int) -> None:
        """Wait until a mark is passed; errors of earlier calls come out here."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two marks, once both were passed (waits for ``end``)."""

    def begin_capture(self, stream: int) -> None:
        """From now on what this thread queues on ``stream`` is noted down and not run."""

    def end_capture(self, stream: int) -> int:
        """What was noted down, made ready to launch.

        The stream is out of capture mode afterwards, whether this raises or not.
        """

    def launch(self, graph: int, stream: int) -> None:
        """Queue all that a graph holds, with the addresses and sizes it was captured with."""

    def destroy_graph(self, graph: int) -> None:
        """Give back a graph."""


def dotted(version: int) -> str:
    """CUDA's 12060 as ``12.6``."""
    return f"{version // 1000}.{version % 1000 // 10}"
