"""Run whole frames through an engine: camera pictures in; labels, overlay and areas out.

:meth:`Engine.open_frames` returns the best runner: on a GPU that keeps the frame between stages,
or the kernels of :mod:`edgeseg.ops` around :meth:`Engine.infer`. Results are bit-identical for
the same labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.errors import UsageError
from edgeseg.ops.overlay import Look, overlay_restored, restored_areas
from edgeseg.ops.preprocess import preprocess

if TYPE_CHECKING:
    from edgeseg.engines.base import Engine

IN_FLIGHT = 2
"""Number of batches that may be submitted before the first is collected."""


@dataclass(frozen=True)
class FrameJob:
    """Frame format and the results to compute.

    Attributes:
        size: (H, W) of each frame.
        batch: Frames per batch; the engine must support it.
        grey: Frames are uint8 (H, W) instead of (H, W, 3) BGR.
        look: Style of the overlay; None for labels only.
        areas: Count the pixels of each class.
    """

    size: tuple[int, int]
    batch: int = 1
    grey: bool = False
    look: Look | None = None
    areas: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self.size if self.grey else (*self.size, 3)


@dataclass(frozen=True)
class FrameResult:
    """Results of one batch, in the order of its frames; valid until the next submit.

    Attributes:
        labels: uint8 (N, height, width) class ids at the network's size.
        shown: uint8 (N, H, W, 3) BGR, as :func:`~edgeseg.ops.overlay.overlay_restored`; None
            where no look was asked for.
        areas: int64 (N, classes), as :func:`~edgeseg.ops.overlay.restored_areas`; None where
            they were not asked for.
    """

    labels: NDArray[np.uint8]
    shown: NDArray[np.uint8] | None = None
    areas: NDArray[np.int64] | None = None


class FrameRunner(ABC):
    """Processes batches of frames in order; not thread-safe.

    Up to ``IN_FLIGHT`` batches may be pending: a GPU works on one while the caller fills or
    draws another. Do not use the engine otherwise between a submit and its collect.

    Attributes:
        job: The job it was opened for.
        on_gpu: Whether the frame stays on the GPU from upload to download.
        closed: Whether it was closed.
    """

    job: FrameJob
    on_gpu: bool = False

    def __init__(self, job: FrameJob) -> None:
        self.job = job
        self.closed = False
        self._under_way = 0

    def submit(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Start on ``job.batch`` frames of ``job.shape``, of any strides.

        The caller may overwrite the frames afterwards.

        Raises:
            UsageError: Number, shape or dtype differ, or too many batches are pending.
            InferenceError: The engine failed.
        """
        if self.closed:
            raise UsageError("these frames were closed, by themselves or with their engine")
        if self._under_way == IN_FLIGHT:
            raise UsageError(f"{IN_FLIGHT} batches are under way: collect one before the next")
        if len(frames) != self.job.batch:
            raise UsageError(f"expected {self.job.batch} frame(s), not {len(frames)}")
        for frame in frames:
            if frame.dtype != np.uint8 or frame.shape != self.job.shape:
                raise UsageError(
                    f"expected frames uint8 {self.job.shape}, not {frame.dtype} {frame.shape}"
                )
        self._submit(frames)
        self._under_way += 1

    def collect(self) -> FrameResult:
        """Wait for the oldest pending batch and return its result.

        Raises:
            UsageError: No batch is pending.
            InferenceError: The engine failed.
        """
        if not self._under_way:
            raise UsageError("no batch is under way: submit one before")
        self._under_way -= 1
        return self._collect()

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> FrameResult:
        """Submit and collect one batch."""
        self.submit(frames)
        return self.collect()

    @abstractmethod
    def _submit(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Implement :meth:`submit` for validated frames."""

    @abstractmethod
    def _collect(self) -> FrameResult:
        """Implement :meth:`collect` if a batch is pending."""

    @abstractmethod
    def _close(self) -> None:
        """Implement :meth:`close`; called once."""

    def close(self) -> None:
        """Release the runner's resources, but not the engine; may be called twice.

        Pending batches are discarded; collected results stay readable.
        """
        if not self.closed:
            self.closed, self._under_way = True, 0
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CpuFrames(FrameRunner):
    """The stages around :meth:`Engine.infer` on the processor, each within :meth:`submit`."""

    def __init__(self, engine: Engine, job: FrameJob) -> None:
        super().__init__(job)
        self._engine = engine
        self._tensor = np.empty((job.batch, *engine.card.input.shape), np.float32)
        self._results: deque[FrameResult] = deque()

    def _submit(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        card, job = self._engine.card, self.job
        for frame, tensor in zip(frames, self._tensor, strict=True):
            preprocess(frame, card.input, tensor)
        labels = self._engine.infer(self._tensor).copy()
        shown, areas = None, None
        if job.look is not None:
            shown = np.empty((job.batch, *job.size, 3), np.uint8)
            for frame, each, out in zip(frames, labels, shown, strict=True):
                overlay_restored(frame, each, card.input, job.look, out)
        if job.areas:
            count = len(card.classes)
            each_area = [restored_areas(each, job.size, card.input, count) for each in labels]
            areas = np.stack(each_area)
        self._results.append(FrameResult(labels, shown, areas))

    def _collect(self) -> FrameResult:
        return self._results.popleft()

    def _close(self) -> None:
        self._results.clear()


def check_job(engine: Engine, job: FrameJob) -> None:
    """Check that the engine supports the job.

    Raises:
        UsageError: The engine does not support the batch size, or the frame size is invalid.
    """
    most = engine.batch or engine.largest_batch or job.batch
    if job.batch < 1 or min(job.size) < 1 or job.batch > most:
        raise UsageError(f"{engine.path.name} cannot take {job.batch} frame(s) of {job.size}")
    if engine.batch not in (None, job.batch):
        raise UsageError(f"{engine.path.name} takes batches of {engine.batch}, not {job.batch}")
