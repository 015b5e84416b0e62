"""Run whole frames on the GPU around any network: one upload, one download."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.cuda.device import Cuda
from edgeseg.engines.cuda.kernels import load_kernels
from edgeseg.engines.cuda.memory import DeviceMemory
from edgeseg.engines.cuda.replay import Replay
from edgeseg.engines.cuda.stages import Network, Slot, Stages
from edgeseg.engines.frames import CpuFrames, FrameJob, FrameResult, FrameRunner
from edgeseg.errors import DeviceError, RuntimeMissing

if TYPE_CHECKING:
    from edgeseg.engines.base import Engine

logger = logging.getLogger(__name__)


class RunsOnGpu(Protocol):
    """A network with fixed memory on the device.

    Attributes:
        cuda: The GPU.
        stream: Stream on which it runs.
        graph: Whether a CUDA graph may capture it.
        network: Addresses and dtypes of its tensors.
    """

    cuda: Cuda
    stream: int
    graph: bool

    def network(self) -> Network:
        """Where its tensors are; valid as long as it is open."""

    def guard(self) -> AbstractContextManager[None]:
        """Makes the device current, and errors say which engine ran."""

    def settle(self, batch: int) -> tuple[int, ...]:
        """Make ready for ``batch`` pictures: what a captured graph depends on."""

    def enqueue(self, batch: int) -> bool:
        """Queue the network on ``stream``; False where its runtime refused."""


def open_gpu_frames(engine: Engine, runs: RunsOnGpu, job: FrameJob, said: set[str]) -> FrameRunner:
    """Open frames on the GPU; without kernels, warn and run only the network there.

    Args:
        engine: Engine of the network.
        runs: The network on the GPU.
        job: Frame format and the results to compute.
        said: Reasons already logged, which are not repeated.

    Raises:
        DeviceError: The GPU failed, or has not enough memory.
    """
    try:
        return GpuFrames(runs, job)
    except RuntimeMissing as error:
        if error.message in said:
            return CpuFrames(engine, job)
        said.add(error.message)
        logger.warning(
            "frames of %s are preprocessed and drawn on the processor, not on the GPU: %s",
            engine.path.name,
            error.message,
        )
        return CpuFrames(engine, job)


class GpuFrames(FrameRunner):
    """Frames stay on the GPU from upload to download; one CUDA graph a slot where it may be.

    Args:
        runs: The network.
        job: Frame format and the results to compute.

    Raises:
        RuntimeMissing: There are no kernels here.
        DeviceError: The GPU failed, or has not enough memory.
    """

    on_gpu = True

    def __init__(self, runs: RunsOnGpu, job: FrameJob) -> None:
        super().__init__(job)
        self._runs, self._cuda = runs, runs.cuda
        self._pending: deque[tuple[Slot, int]] = deque()
        self._turn = 0
        with runs.guard(), ExitStack() as undo:
            memory = undo.enter_context(DeviceMemory(self._cuda))
            # What is still queued must not find its memory gone.
            undo.callback(self._cuda.synchronize, runs.stream)
            kernels = load_kernels(memory)
            self._stages = Stages(memory, kernels, runs.network(), job, runs.stream)
            self._marks = [memory.event() for _ in self._stages.slots]
            self._replays = [self._replay(slot) for slot in self._stages.slots]
            for replay in self._replays:
                undo.callback(replay.drop)
            self._owned = undo.pop_all()

    @property
    def captured(self) -> bool:
        """Whether the next batch is the replay of one CUDA graph."""
        return not self.closed and self._replays[self._turn].captured

    def _replay(self, slot: Slot) -> Replay:
        return Replay(
            self._cuda, self._runs.stream, lambda: self._enqueue(slot), wanted=self._runs.graph
        )

    def _enqueue(self, slot: Slot) -> bool:
        self._stages.queue_before(slot, self._runs.stream)
        if not self._runs.enqueue(self.job.batch):
            return False
        self._stages.queue_after(slot, self._runs.stream)
        return True

    def _submit(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        slot, mark = self._stages.slots[self._turn], self._marks[self._turn]
        replay = self._replays[self._turn]
        for frame, there in zip(frames, slot.frames.host.array, strict=True):
            np.copyto(there, frame)
        with self._runs.guard():
            if not replay.run(self._runs.settle(self.job.batch)):
                raise DeviceError("the network's runtime refuses to run")
            self._cuda.record(mark, self._runs.stream)
        for other in self._replays:
            other.wanted &= replay.wanted  # What was refused once is not tried again.
        self._pending.append((slot, mark))
        self._turn = (self._turn + 1) % len(self._stages.slots)

    def _collect(self) -> FrameResult:
        slot, mark = self._pending.popleft()
        with self._runs.guard():
            self._cuda.wait(mark)
        areas = None
        if slot.areas is not None:
            count = len(self._runs.network().card.classes)
            areas = slot.areas.host.array[:, :count].astype(np.int64)
        shown = None if slot.shown is None else slot.shown.host.array
        return FrameResult(slot.labels.host.array, shown, areas)

    def _close(self) -> None:
        with self._runs.guard():
            self._owned.close()
        # Page-locked memory, the network's too, goes with the last array over it.
        self._pending.clear()
        self._replays.clear()
        del self._stages, self._runs
