"""A GPU whose memory is host memory and whose streams really wait.

What is queued on a stream happens when somebody waits for it, so that a result read too early
is the old one. A capture notes down, a replay does what was noted. Memory that was given back
is poisoned and stays readable to the test alone: using it, giving it back twice and forgetting
it are all found.
"""

# ruff: noqa: N815 - the names of the states are CUDA's

import ctypes
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from standin import kernels

Work = Callable[[], None]

POISON = 0xDD


class Status(IntEnum):
    """Those of CUDA that can come about here, with CUDA's numbers."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorDeviceUninitialized = 201
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNoKernelImageForDevice = 209
    cudaErrorSymbolNotFound = 500
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class Fault(Exception):
    """What CUDA would answer."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass
class Block:
    """Memory that was taken: of the ``device``, of the ``host`` or ``mapped``, both at once."""

    memory: ctypes.Array[ctypes.c_ubyte]
    kind: str

    @property
    def address(self) -> int:
        return ctypes.addressof(self.memory)

    def holds(self, address: int, nbytes: int) -> bool:
        return self.address <= address and address + nbytes <= self.address + len(self.memory)


@dataclass
class Stream:
    """What waits to be done, and what a capture noted down."""

    waiting: list[Work] = field(default_factory=list)
    noted: list[Work] | None = None
    broken: bool = False


class Device:
    """One GPU.

    Args:
        name: Of the GPU.
        capability: Major and minor.
        integrated: As in a Jetson.
        driver: CUDA version that the driver serves, 0 where there is none.
        runtime: CUDA version of the Python library.
        count: GPUs that are visible.
        fail_at: The how manieth thing that is taken is refused, from 1.
    """

    def __init__(
        self,
        name: str = "Stand-in GPU",
        capability: tuple[int, int] = (8, 6),
        *,
        integrated: bool = False,
        driver: int = 13000,
        runtime: int = 13000,
        count: int = 1,
        fail_at: int | None = None,
    ) -> None:
        self.name, self.capability, self.integrated = name, capability, integrated
        self.driver, self.runtime, self.count = driver, runtime, count
        self.fail_at, self.taken = fail_at, 0
        self.launches = self.copies = self.captures = 0
        self.blocks: dict[int, Block] = {}
        self.graveyard: list[Block] = []
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.events: dict[int, float] = {}
        self.modules: dict[int, bytes] = {}
        self.kernels: dict[int, tuple[int, str]] = {}
        self.ran: list[str] = []
        self._handles = itertools.count(0x1000, 16)
        self._clock = itertools.count()

    def live(self) -> list[str]:
        """What was taken and not given back."""
        return [
            *(f"{block.kind} memory" for block in self.blocks.values()),
            *("stream" for _ in self.streams),
            *("graph" for _ in self.graphs),
            *("event" for _ in self.events),
            *("module" for _ in self.modules),
        ]

    def take(self, nbytes: int, kind: str) -> int:
        """Memory, as full of rubbish as real memory is."""
        self._count()
        if any(stream.noted is not None for stream in self.streams.values()):
            self._break_captures()
        block = Block((ctypes.c_ubyte * max(nbytes, 1))(), kind)
        ctypes.memset(block.address, 0xA5, len(block.memory))
        self.blocks[block.address] = block
        return block.address

    def give(self, address: int, kinds: tuple[str, ...]) -> None:
        block = self.blocks.get(address)
        if block is None or block.kind not in kinds:
            raise Fault(Status.cudaErrorInvalidValue)
        del self.blocks[address]
        ctypes.memset(block.address, POISON, len(block.memory))
        self.graveyard.append(block)

    def require(self, address: int, nbytes: int, *kinds: str) -> None:
        """The bytes lie within memory of one of these kinds that is not given back."""
        blocks = list(self.blocks.values())  # Another thread may take memory meanwhile.
        if not any(b.kind in kinds and b.holds(address, nbytes) for b in blocks):
            raise Fault(Status.cudaErrorIllegalAddress)

    def create_stream(self) -> int:
        self._count()
        return self._add(self.streams, Stream())

    def create_event(self) -> int:
        self._count()
        return self._add(self.events, -1.0)

    def destroy(self, kind: str, handle: int) -> None:
        """``streams``, ``graphs`` or ``events``; a stream runs to its end first."""
        if kind == "streams":
            self.synchronize(handle)
        if getattr(self, kind).pop(handle, None) is None:
            raise Fault(Status.cudaErrorInvalidResourceHandle)

    def queue(self, handle: int, work: Work) -> None:
        """Do it when somebody waits, or note it down where the stream is being captured."""
        stream = self._stream(handle)
        (stream.waiting if stream.noted is None else stream.noted).append(work)

    def copy(self, target: tuple[int, str], source: tuple[int, str], nbytes: int, on: int) -> None:
        """Queue a copy between addresses of these kinds; either may be ``mapped`` too."""

        def work() -> None:
            for address, kind in (target, source):
                self.require(address, nbytes, kind, "mapped")
            ctypes.memmove(target[0], source[0], nbytes)
            self.copies += 1
            self.ran.append(f"copy {source[1]} to {target[1]}")

        self.queue(on, work)

    def load_module(self, image: bytes) -> int:
        """Any image for this GPU: ``sm_86`` stands in it; what it holds is the stand-in's own."""
        self._count()
        if b"sm_%d%d" % self.capability not in image:
            raise Fault(Status.cudaErrorNoKernelImageForDevice)
        return self._add(self.modules, image)

    def kernel(self, module: int, name: str) -> int:
        if module not in self.modules:
            raise Fault(Status.cudaErrorInvalidResourceHandle)
        if not kernels.size_of(name):
            raise Fault(Status.cudaErrorSymbolNotFound)
        return self._add(self.kernels, (module, name))

    def launch_kernel(
        self, kernel: int, grid: Sequence[int], block: Sequence[int], argument: bytes, on: int
    ) -> None:
        module, name = self.kernels[kernel]
        if math.prod(block) > 1024 or not all((*grid, *block)):
            raise Fault(Status.cudaErrorInvalidValue)

        def work() -> None:
            if module not in self.modules:
                raise Fault(Status.cudaErrorInvalidResourceHandle)
            for address in kernels.addresses(name, argument):
                self.require(address, 1, "device", "mapped")
            kernels.launch(name, grid, block, argument)
            self.ran.append(name)

        self.queue(on, work)

    def synchronize(self, handle: int) -> None:
        stream = self._stream(handle)
        if stream.noted is not None:
            stream.broken = True
            raise Fault(Status.cudaErrorStreamCaptureUnsupported)
        waiting, stream.waiting = stream.waiting, []
        for work in waiting:
            work()

    def record(self, event: int, stream: int) -> None:
        self.events[event] = -1.0

        def work() -> None:
            self.events[event] = float(next(self._clock))

        self.queue(stream, work)

    def wait(self, event: int) -> None:
        """Let streams do what they have until the mark is passed, and no more."""
        for stream in self.streams.values():
            while self.events[event] < 0 and stream.waiting:
                stream.waiting.pop(0)()

    def elapsed(self, start: int, end: int) -> float:
        for stream in self.streams:
            self.synchronize(stream)
        return self.events[end] - self.events[start]

    def begin_capture(self, handle: int) -> None:
        self._stream(handle).noted = []
        self._stream(handle).broken = False

    def end_capture(self, handle: int) -> list[Work]:
        stream = self._stream(handle)
        noted, stream.noted = stream.noted, None
        if noted is None:
            raise Fault(Status.cudaErrorInvalidValue)
        if stream.broken:
            raise Fault(Status.cudaErrorStreamCaptureInvalidated)
        self.captures += 1
        return noted

    def instantiate(self, noted: list[Work]) -> int:
        self._count()
        return self._add(self.graphs, noted)

    def launch(self, graph: int, stream: int) -> None:
        if graph not in self.graphs:
            raise Fault(Status.cudaErrorInvalidResourceHandle)
        self.launches += 1
        for work in self.graphs[graph]:
            self.queue(stream, work)

    def _count(self) -> None:
        self.taken += 1
        if self.taken == self.fail_at:
            raise Fault(Status.cudaErrorMemoryAllocation)

    def _add(self, where: dict[int, object], value: object) -> int:
        handle = next(self._handles)
        where[handle] = value
        return handle

    def _stream(self, handle: int) -> Stream:
        if handle not in self.streams:
            raise Fault(Status.cudaErrorInvalidResourceHandle)
        return self.streams[handle]

    def _break_captures(self) -> None:
        for stream in self.streams.values():
            stream.broken = stream.noted is not None
        raise Fault(Status.cudaErrorStreamCaptureUnsupported)
