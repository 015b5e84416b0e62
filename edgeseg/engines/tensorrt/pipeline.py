"""Frames through kernels and network on the GPU: one upload and one download per batch."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeseg.engines.cuda.kernels import Kernels, load_kernels
from edgeseg.engines.cuda.memory import DeviceMemory
from edgeseg.engines.cuda.replay import Replay
from edgeseg.engines.cuda.stages import IN_FLIGHT, BatchBuffers, FrameJob, Stages
from edgeseg.engines.pipeline import CpuPipeline, FramePipeline, Image, PipelineResult
from edgeseg.errors import DeviceError
from edgeseg.ops.overlay import Look

if TYPE_CHECKING:
    from edgeseg.engines.tensorrt.run import TensorRtEngine

logger = logging.getLogger(__name__)


class _Pending(NamedTuple):
    """A batch on the GPU: its number of frames, and when it was submitted (seconds)."""

    frames: int
    began: float


class GpuPipeline(FramePipeline):
    """Frames stay on the GPU from upload to download, in one CUDA graph where possible.

    Memory is for frames of one size and look, and is allocated again when these change. Batches of
    frames that differ in size go through the processor, since a kernel takes one size.

    Args:
        engine: The engine; it closes the pipeline when it is closed itself.

    Raises:
        RuntimeMissing: There are no kernels for this GPU.
        DeviceError: The GPU failed, or has not enough memory.
    """

    on_gpu = True
    depth = IN_FLIGHT

    def __init__(self, engine: TensorRtEngine) -> None:
        super().__init__(engine)
        self._gpu = engine
        self._cpu = CpuPipeline(engine)
        self._job: _JobRunner | None = None
        self._batches: deque[_Pending | PipelineResult | Exception] = deque()
        self._warned = False
        self._last_at = 0.0
        with engine.on_gpu(), ExitStack() as undo:
            memory = undo.enter_context(DeviceMemory(engine.cuda))
            self._kernels = load_kernels(memory)
            self._owned = undo.pop_all()

    def _submit(self, frames: Sequence[Image], look: Look | None) -> None:
        if len({frame.shape for frame in frames}) > 1:
            self._finish()  # The network is busy until then.
            if not self._warned:
                self._warned = True
                logger.warning(
                    "frames of different sizes in one batch are preprocessed and drawn on the "
                    "processor, not on the GPU; a batch of one takes each as it is"
                )
            self._batches.append(self._cpu.run(frames, look))
            return
        height, width, _ = frames[0].shape
        batch = self._gpu.capabilities.batch or len(frames)
        job = FrameJob((height, width), batch, look)
        if self._job is None or self._job.job != job:
            self._finish()
            self._release()
            self._job = _JobRunner(self._gpu, self._kernels, job)
        began = time.perf_counter()
        self._job.submit([*frames, *[frames[-1]] * (batch - len(frames))])
        self._batches.append(_Pending(len(frames), began))

    def _collect(self) -> PipelineResult:
        batch = self._batches.popleft()
        result = self._fetch(batch) if isinstance(batch, _Pending) else batch
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Release the GPU's memory; batches in flight are discarded."""
        super().close()
        self._batches.clear()
        self._release()
        with self._gpu.on_gpu():
            self._owned.close()

    def _release(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.close()

    def _finish(self) -> None:
        """Wait for all batches on the GPU."""
        for place, batch in enumerate(self._batches):
            if isinstance(batch, _Pending):
                try:
                    self._batches[place] = self._fetch(batch)
                except Exception as error:
                    self._batches[place] = error

    def _fetch(self, batch: _Pending) -> PipelineResult:
        """Copy a batch's result from its buffers, which are reused two batches later."""
        assert self._job is not None
        buffers = self._job.collect()
        labels = [each.copy() for each in buffers.labels.host.array[: batch.frames]]
        painted = None
        if buffers.painted is not None:
            painted = [each.copy() for each in buffers.painted.host.array[: batch.frames]]
        # Exclude the time the GPU spent on the previous batch.
        now = time.perf_counter()
        took = (now - max(batch.began, self._last_at)) * 1000
        self._last_at = now
        return PipelineResult(labels, painted, {"infer": took})


class _JobRunner:
    """Batches of one job, in buffers that take turns; a CUDA graph for each where possible."""

    def __init__(self, engine: TensorRtEngine, kernels: Kernels, job: FrameJob) -> None:
        self.job = job
        self._engine, self._cuda = engine, engine.cuda
        self._shape = (job.batch, *engine.card.input.shape)
        self._session = session = engine.session_for(self._shape)
        self._pending: deque[int] = deque()
        self._turn = 0
        with engine.on_gpu(), ExitStack() as undo:
            memory = undo.enter_context(DeviceMemory(self._cuda))
            # What is still queued must not find its memory gone.
            undo.callback(self._cuda.synchronize, session.stream)
            self._stages = Stages(memory, kernels, session.device_tensors(), job, session.stream)
            self._events = [memory.event() for _ in self._stages.buffers]
            self._replays = [self._replay(each) for each in self._stages.buffers]
            for replay in self._replays:
                undo.callback(replay.drop)
            self._owned = undo.pop_all()

    def submit(self, frames: Sequence[Image]) -> None:
        """Fill the next buffers and queue the work on them."""
        turn, self._turn = self._turn, (self._turn + 1) % IN_FLIGHT
        replay = self._replays[turn]
        for frame, target in zip(frames, self._stages.buffers[turn].frames.host.array, strict=True):
            np.copyto(target, frame)
        with self._engine.on_gpu():
            if not replay.run(self._session.settle(self._shape)):
                raise DeviceError("the network's runtime refuses to run")
            self._cuda.record(self._events[turn], self._session.stream)
        for other in self._replays:
            other.wanted &= replay.wanted  # What was refused once is not tried again.
        self._pending.append(turn)

    def collect(self) -> BatchBuffers:
        """Wait for the oldest batch and return its buffers."""
        turn = self._pending.popleft()
        with self._engine.on_gpu():
            self._cuda.wait(self._events[turn])
        return self._stages.buffers[turn]

    def close(self) -> None:
        """Release graphs and memory once the queued work is done."""
        with self._engine.on_gpu():
            self._owned.close()
        # Page-locked memory, the network's too, goes with the last array over it.
        self._replays.clear()
        del self._stages, self._session

    def _replay(self, buffers: BatchBuffers) -> Replay:
        session = self._session
        return Replay(
            self._cuda, session.stream, lambda: self._enqueue(buffers), wanted=session.graph
        )

    def _enqueue(self, buffers: BatchBuffers) -> bool:
        stream = self._session.stream
        self._stages.queue_before(buffers, stream)
        if not self._session.enqueue():
            return False
        self._stages.queue_after(buffers, stream)
        return True
