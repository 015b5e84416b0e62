"""Whole frames through an engine: camera picture in; labels, overlay and areas out.

:meth:`Engine.open_frames` gives what does it best: a GPU that keeps the frame between the stages,
or the kernels of :mod:`edgeseg.ops` around :meth:`Engine.infer`. Both give the same bits for the
same labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
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
"""Batches that may be submitted before the first is collected."""


@dataclass(frozen=True)
class FrameJob:
    """What is wanted of frames of one size.

    Attributes:
        size: (H, W) of each frame.
        batch: Frames that go through at once; the engine must take it.
        grey: Frames are uint8 (H, W) instead of (H, W, 3) BGR.
        look: How the classes are laid over the frame; None for labels alone.
        areas: Count the pixels of each class.
    """

    size: tuple[int, int]
    batch: int = 1
    grey: bool = False
    look: Look | None = None
    areas: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame."""
        return self.size if self.grey else (*self.size, 3)


@dataclass(frozen=True)
class FrameResult:
    """Of one batch, in the order of its frames; valid until the next submit.

    Attributes:
        labels: uint8 (N, height, width) of the network, class ids.
        shown: uint8 (N, H, W, 3) BGR, as :func:`~edgeseg.ops.overlay.overlay_restored`; None
            where no look was asked for.
        areas: int64 (N, classes), as :func:`~edgeseg.ops.overlay.restored_areas`; None where
            they were not asked for.
    """

    labels: NDArray[np.uint8]
    shown: NDArray[np.uint8] | None = None
    areas: NDArray[np.int64] | None = None


class FrameRunner(ABC):
    """Takes batches of frames and gives their results in order; one thread at a time.

    Up to ``IN_FLIGHT`` batches may be under way: a GPU works on one while the caller fills or
    draws another. The engine is not used otherwise between a submit and its collect.

    Attributes:
        job: What it was opened for.
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
        """Begin with ``job.batch`` frames of ``job.shape``, any strides; they may change after.

        Raises:
            UsageError: Number, shape or dtype differ, or too many batches are under way.
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
        """The result of the oldest batch under way; waits for it.

        Raises:
            UsageError: None is.
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
        """:meth:`submit` for frames that were checked."""

    @abstractmethod
    def _collect(self) -> FrameResult:
        """:meth:`collect` while a batch is under way."""

    @abstractmethod
    def _close(self) -> None:
        """:meth:`close`, the first time."""

    def close(self) -> None:
        """Give back what it holds, not the engine; calling it twice is allowed.

        Batches under way are forgotten; results that were collected stay readable.
        """
        if not self.closed:
            self.closed, self._under_way = True, 0
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    """Whether the engine's batches allow the job.

    Raises:
        UsageError: They do not, or the size is none.
    """
    most = engine.batch or engine.largest_batch or job.batch
    if job.batch < 1 or min(job.size) < 1 or job.batch > most:
        raise UsageError(f"{engine.path.name} cannot take {job.batch} frame(s) of {job.size}")
    if engine.batch not in (None, job.batch):
        raise UsageError(f"{engine.path.name} takes batches of {engine.batch}, not {job.batch}")
