"""The stages of a frame around a network: preprocess, infer, postprocess, paint.

:meth:`Engine.open_pipeline` returns them for an engine: on a GPU that keeps the frame between the
stages, or on the processor with the functions of :mod:`edgeseg.ops` around :meth:`Engine.infer`.
The same labels give bit-identical results.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.errors import UsageError
from edgeseg.ops.overlay import Look, overlay_restored
from edgeseg.ops.preprocess import preprocess

if TYPE_CHECKING:
    from edgeseg.engines.base import Engine

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class PipelineResult:
    """Results of one batch, in the order of its frames; all arrays are owned by the receiver.

    Attributes:
        labels: Class ids at the network's size, uint8 (height, width).
        painted: Frames with the classes drawn over them, uint8 (H, W, 3) BGR, as
            :func:`~edgeseg.ops.overlay.overlay_restored`; None if not requested.
        stages_ms: Milliseconds of ``preprocess`` and ``infer`` for the batch; on a GPU that keeps
            the frames, ``infer`` includes all stages.
    """

    labels: Sequence[Image]
    painted: Sequence[Image] | None
    stages_ms: Mapping[str, float]


class FramePipeline(ABC):
    """Runs batches of frames through all stages, in order; not thread-safe.

    Up to ``depth`` batches may be in flight: a GPU works on one while the caller fills or draws
    another. Do not use the engine otherwise between a submit and its collect.

    Attributes:
        on_gpu: Whether frames stay on a GPU from upload to download.
        depth: Number of batches that may be submitted before the first is collected.
    """

    on_gpu: bool = False
    depth: int = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._in_flight = 0
        self.closed = False

    def submit(self, frames: Sequence[Image], look: Look | None = None) -> None:
        """Start a batch. The caller may overwrite the frames afterwards.

        Args:
            frames: uint8 (H, W, 3) BGR, of any strides. An engine of a fixed batch size takes
                fewer frames, too.
            look: Style in which the classes are painted over the frames; None for labels only.

        Raises:
            UsageError: Number, shape or dtype is wrong, or too many batches are in flight.
            InferenceError: The engine failed.
        """
        if self.closed:
            raise UsageError("this pipeline was closed, by itself or with its engine")
        if self._in_flight == self.depth:
            raise UsageError(f"{self.depth} batch(es) in flight: collect one before the next")
        limit = self._engine.capabilities.max_batch or len(frames)
        if not 1 <= len(frames) <= limit:
            raise UsageError(
                f"{self._engine.path.name} takes 1 to {max(1, limit)} frames, not {len(frames)}"
            )
        for frame in frames:
            if frame.dtype != np.uint8 or frame.shape[2:] != (3,) or not frame.size:
                raise UsageError(
                    f"expected frames uint8 (H, W, 3), not {frame.dtype} {frame.shape}"
                )
        self._submit(frames, look)
        self._in_flight += 1

    def collect(self) -> PipelineResult:
        """Wait for the oldest batch in flight and return its result.

        Raises:
            UsageError: No batch is in flight.
            InferenceError: The engine failed.
        """
        if not self._in_flight:
            raise UsageError("no batch is in flight: submit one before")
        self._in_flight -= 1
        return self._collect()

    def run(self, frames: Sequence[Image], look: Look | None = None) -> PipelineResult:
        """Submit and collect one batch."""
        self.submit(frames, look)
        return self.collect()

    @abstractmethod
    def _submit(self, frames: Sequence[Image], look: Look | None) -> None:
        """Implement :meth:`submit` for validated frames."""

    @abstractmethod
    def _collect(self) -> PipelineResult:
        """Implement :meth:`collect` if a batch is in flight."""

    def close(self) -> None:
        """Release its resources, but not the engine; may be called twice.

        Batches in flight are discarded.
        """
        self.closed, self._in_flight = True, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProcessorPipeline(FramePipeline):
    """A pipeline that runs all stages within :meth:`submit`, one batch at a time."""

    _result: PipelineResult | None = None

    @abstractmethod
    def _segment(self, frames: Sequence[Image], look: Look | None) -> PipelineResult:
        """Run all stages on validated frames."""

    def _submit(self, frames: Sequence[Image], look: Look | None) -> None:
        self._result = self._segment(frames, look)

    def _collect(self) -> PipelineResult:
        result, self._result = self._result, None
        assert result is not None
        return result


class CpuPipeline(ProcessorPipeline):
    """All stages on the processor, with whole frames; those of a batch may differ in size."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._tensor = np.zeros((0, *engine.card.input.shape), np.float32)

    def _segment(self, frames: Sequence[Image], look: Look | None) -> PipelineResult:
        spec, count = self._engine.card.input, len(frames)
        start = time.perf_counter()
        tensor = self._tensor_for(count)
        for frame, target in zip(frames, tensor, strict=False):
            preprocess(frame, spec, target)
        ready = time.perf_counter()
        maps = self._engine.infer(tensor)[:count]
        end = time.perf_counter()
        labels = [each.copy() for each in maps]  # The engine reuses its buffer at the next call.
        painted = None
        if look is not None:
            pairs = zip(frames, labels, strict=True)
            painted = [overlay_restored(frame, each, spec, look) for frame, each in pairs]
        times = {"preprocess": (ready - start) * 1000, "infer": (end - ready) * 1000}
        return PipelineResult(labels, painted, times)

    def _tensor_for(self, count: int) -> NDArray[np.float32]:
        """The network's input; unused entries of a fixed batch keep their earlier contents."""
        fixed = self._engine.capabilities.batch
        if len(self._tensor) < (fixed or count):
            self._tensor = np.zeros((fixed or count, *self._tensor.shape[1:]), np.float32)
        return self._tensor if fixed else self._tensor[:count]
