"""The interface to CUDA, independent of the library behind it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Dim3 = tuple[int, int, int]
"""Size of a grid in blocks, or of a block in threads, as CUDA's ``dim3``."""


@dataclass(frozen=True)
class DeviceFacts:
    """Properties of the GPU and its driver.

    Attributes:
        name: Name reported by CUDA, e.g. ``NVIDIA GeForce RTX 4070`` or ``Orin``.
        compute_capability: Major and minor, e.g. (8, 9).
        integrated: Whether it shares memory with the processor, as on a Jetson.
        memory_mib: Total memory in MiB.
        driver_version: Newest CUDA version that the driver supports, e.g. ``13.0``.
        runtime_version: CUDA version that the Python library was made for.
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
        """Create a stream that does not synchronise with the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream; work already queued still completes."""

    def synchronize(self, stream: int) -> None:
        """Wait until all queued work is done; errors of earlier calls come out here."""

    def allocate(self, nbytes: int) -> int:
        """Allocate device memory and return its device address."""

    def free(self, address: int) -> None:
        """Free device memory."""

    def allocate_host(self, nbytes: int, *, mapped: bool) -> int:
        """Page-locked host memory: its address; ``mapped`` lets the device use it in place."""

    def free_host(self, address: int) -> None:
        """Free page-locked memory."""

    def device_address(self, host: int) -> int:
        """Return the device address of mapped host memory."""

    def copy_in(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Queue a copy from page-locked to device memory."""

    def copy_out(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Queue a copy from device to page-locked memory."""

    def copy_within(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy between addresses of the device."""

    def load_module(self, image: bytes) -> int:
        """Load compiled kernels: a cubin or fatbin, or PTX that ends with a zero."""

    def unload_module(self, module: int) -> None:
        """Unload a module; none of its kernels may be running."""

    def kernel(self, module: int, name: str) -> int:
        """Look up a kernel of a module."""

    def launch_kernel(self, kernel: int, grid: Dim3, block: Dim3, argument: bytes, to: int) -> None:
        """Queue a kernel of one argument, a structure by value, on the stream ``to``."""

    def create_event(self) -> int:
        """Create an event that records time."""

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""

    def record(self, event: int, stream: int) -> None:
        """Record an event on a stream."""

    def wait(self, event: int) -> None:
        """Wait for an event; errors of earlier calls come out here."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two marks, once both were passed (waits for ``end``)."""

    def begin_capture(self, stream: int) -> None:
        """Start capturing the work that this thread queues on ``stream`` instead of running it."""

    def end_capture(self, stream: int) -> int:
        """End the capture and return an executable graph.

        The stream is out of capture mode afterwards, whether this raises or not.
        """

    def launch(self, graph: int, stream: int) -> None:
        """Queue all that a graph holds, with the addresses and sizes it was captured with."""

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""


def dotted(version: int) -> str:
    """Format CUDA's version number 12060 as ``12.6``."""
    return f"{version // 1000}.{version % 1000 // 10}"
