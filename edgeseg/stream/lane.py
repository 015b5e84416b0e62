"""Turn captured frames into results with one engine, on the CPU or with whole frames on its GPU.

If :meth:`Engine.open_frames` keeps frames on a GPU, a batch of frames of equal size is submitted
as a whole, and preprocessing and the overlay are part of ``infer``. In all other cases frames are
preprocessed into one tensor here. Both paths give bit-identical results.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.base import Engine
from edgeseg.engines.frames import IN_FLIGHT, FrameJob, FrameRunner
from edgeseg.errors import DeviceError
from edgeseg.ops.preprocess import preprocess
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Captured
from edgeseg.stream.view import View

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """Outcome of a batch; its arrays are owned by the receiver.

    Attributes:
        labels: Label maps, uint8 (height, width) at the network's size, one per frame.
        shown: Frames with the classes drawn over them; None unless the GPU drew them.
        took: Milliseconds per stage.
        at: Completion time, in seconds of the monotonic clock.
    """

    labels: Sequence[NDArray[np.uint8]]
    shown: Sequence[NDArray[np.uint8]] | None
    took: Mapping[str, float]
    at: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Batch:
    """Frames submitted at ``began`` (seconds); without an outcome they are still on the GPU."""

    frames: Sequence[Captured]
    began: float
    outcome: _Outcome | Exception | None = None


class Lane:
    """An engine with its input buffers; used by one thread at a time.

    Args:
        engine: Engine to run; the lane does not close it.
        labels: Names of the sources, indexed by source number.
        view: Appearance of overlays.
        most: Maximum number of frames in a batch. An engine with a fixed batch size always runs
            the full batch; unused entries keep their earlier contents.

    Attributes:
        overlays: Draw overlays; on a GPU they are drawn together with the labels.
    """

    def __init__(self, engine: Engine, labels: Sequence[str], view: View, most: int) -> None:
        self._engine = engine
        self._labels = labels
        self._view = view
        self._look = view.look(engine.card.classes)
        self._tensor = np.zeros((engine.batch or most, *engine.card.input.shape), np.float32)
        self._under_way: deque[_Batch] = deque()
        self._runner: FrameRunner | None = None
        self._on_gpu: bool | None = None  # until the first frame tells
        self._said = False
        self._last_at = 0.0
        self.overlays = False

    def warm_up(self) -> None:
        """Run the engine once before the first frame."""
        self._engine.warm_up()

    @property
    def on_gpu(self) -> bool:
        """Whether whole frames stay on a GPU; False until the first frame."""
        return bool(self._on_gpu)

    @property
    def depth(self) -> int:
        """Number of batches to submit before collecting the first, to keep a GPU busy."""
        return IN_FLIGHT if self._on_gpu else 1

    def segment(self, frames: Sequence[Captured]) -> list[StreamResult]:
        """Run one batch of at most ``most`` frames; no other batch may be in flight.

        Raises:
            InferenceError: The engine failed.
        """
        self.submit(frames)
        return self.collect()

    def submit(self, frames: Sequence[Captured]) -> None:
        """Submit a batch; fewer than ``depth`` may be in flight.

        Raises:
            InferenceError: The engine failed.
        """
        runner = self._runner_for(frames)
        if runner is None:
            self._finish()  # the GPU path uses the engine until then
            outcome = self._in_stages(frames)
            self._under_way.append(_Batch(frames, 0.0, outcome))
            return
        pictures = [captured.frame for captured in frames]
        pictures += pictures[-1:] * (runner.job.batch - len(pictures))
        began = time.perf_counter()
        runner.submit(pictures)
        self._under_way.append(_Batch(frames, began))

    def collect(self) -> list[StreamResult]:
        """Wait for the oldest batch in flight and return its results.

        Raises:
            InferenceError: The engine failed.
        """
        batch = self._under_way.popleft()
        outcome = batch.outcome or self._fetch(batch)
        if isinstance(outcome, Exception):
            raise outcome
        return [self._result(outcome, place, each) for place, each in enumerate(batch.frames)]

    def close(self) -> None:
        """Free GPU resources and discard batches in flight."""
        self._under_way.clear()
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                runner.close()
            except DeviceError as error:  # must not hide why the stream ends
                _log.warning("the GPU does not take its memory back: %s", error)

    def _runner_for(self, frames: Sequence[Captured]) -> FrameRunner | None:
        """Return the runner for these frames on the GPU; None if the CPU must process them."""
        if self._on_gpu is False:
            return None
        sizes = [captured.frame.shape[:2] for captured in frames]
        if self._on_gpu and len(set(sizes)) > 1:
            self._say_once("frames of different sizes in one batch")
            return None
        look = self._look if self.overlays else None
        job = FrameJob(sizes[0], self._engine.batch or len(frames), look=look)
        if self._runner is None or self._runner.job != job:
            self._finish()
            if self._runner is not None:
                self._runner.close()
            self._runner = self._engine.open_frames(job)
        if self._on_gpu is None:
            self._on_gpu = self._runner.on_gpu
            if not self._on_gpu:
                self.close()
            return self._runner_for(frames)
        return self._runner

    def _say_once(self, reason: str) -> None:
        if not self._said:
            self._said = True
            _log.warning(
                "%s are preprocessed and drawn on the processor, not on the GPU; "
                "a batch of one takes each as it is",
                reason,
            )

    def _in_stages(self, frames: Sequence[Captured]) -> _Outcome:
        start = time.perf_counter()
        for place, captured in enumerate(frames):
            preprocess(captured.frame, self._engine.card.input, self._tensor[place])
        ready = time.perf_counter()
        used = self._tensor if self._engine.batch else self._tensor[: len(frames)]
        maps = self._engine.infer(used)
        end = time.perf_counter()
        took = {"preprocess": (ready - start) * 1000, "infer": (end - ready) * 1000}
        # The engine reuses its buffer at the next call.
        return _Outcome([each.copy() for each in maps[: len(frames)]], None, took)

    def _finish(self) -> None:
        """Wait for all batches on the GPU."""
        for batch in self._under_way:
            if batch.outcome is None:
                try:
                    batch.outcome = self._fetch(batch)
                except Exception as error:
                    batch.outcome = error

    def _fetch(self, batch: _Batch) -> _Outcome:
        """Copy a batch's outcome from the GPU buffers, which are reused two batches later."""
        assert self._runner is not None
        result, count = self._runner.collect(), len(batch.frames)
        labels = [each.copy() for each in result.labels[:count]]
        shown = None if result.shown is None else [each.copy() for each in result.shown[:count]]
        # Exclude the time the GPU spent on the previous batch.
        now = time.perf_counter()
        took = {"infer": (now - max(batch.began, self._last_at)) * 1000}
        self._last_at = now
        return _Outcome(labels, shown, took)

    def _result(self, outcome: _Outcome, place: int, captured: Captured) -> StreamResult:
        return StreamResult(
            index=captured.index,
            source=self._labels[captured.camera],
            frame=captured.frame,
            labels=outcome.labels[place],
            captured_at=captured.captured_at,
            age_ms=(outcome.at - captured.captured_at) * 1000,
            stages_ms={"capture": captured.capture_ms, **outcome.took},
            classes=self._engine.card.classes,
            input=self._engine.card.input,
            view=self._view,
            camera=captured.camera,
            name=captured.name,
            shown=None if outcome.shown is None else outcome.shown[place],
            media_time=captured.media_time,
            damaged=captured.damaged,
        )
