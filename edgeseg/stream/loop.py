"""The loop: newest frame → preprocess → infer → label map, a result a frame.

Decoding runs in the reader's thread beside inference. The rest runs in the caller's thread
when the caller asks for the next result, so that nothing waits between a frame and its
labels: on a live source a second queue would buy throughput with age.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.card import ClassMap, InputSpec
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.latency import StageClock
from edgeseg.ops.overlay import Look, draw_legend, overlay_restored, restored_areas
from edgeseg.ops.preprocess import preprocess, restore_labels
from edgeseg.stream.reader import Captured, Reader, State
from edgeseg.stream.source import SourceSpec, parse_source

_TICK_S = 0.1
"""How long a stop request, a stall or a time limit may go unnoticed while nothing comes."""


@dataclass(frozen=True, eq=False)
class StreamResult:
    """One frame and its labels. All arrays are the receiver's own.

    Attributes:
        index: Number of the frame in the source, from 0; gaps are frames that were dropped.
        source: Label of the source, passwords masked.
        frame: uint8 (H, W, 3) BGR.
        labels: uint8 (height, width) of the network, class ids.
        captured_at: Seconds of the monotonic clock when the frame came.
        age_ms: From then until its labels were there.
        stages_ms: ``capture`` (waiting for the camera included), ``preprocess``, ``infer``.
        classes: Names and colours of the ids.
        input: The network's input, which says how ``labels`` lie on the frame.
        opacity: Of the classes in the overlay, 0…1.
    """

    index: int
    source: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    captured_at: float
    age_ms: float
    stages_ms: Mapping[str, float]
    classes: ClassMap = field(repr=False)
    input: InputSpec = field(repr=False)
    opacity: float = field(default=0.5, repr=False)

    def mask(self) -> NDArray[np.uint8]:
        """The label map at the frame's size, uint8 (H, W); worked out once."""
        return self._mask

    def overlay(self) -> NDArray[np.uint8]:
        """The frame with its classes and a legend on it, uint8 (H, W, 3) BGR; drawn once."""
        return self._overlay

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each class in :meth:`mask`, int64 (classes,), counted without making it."""
        height, width = self.frame.shape[:2]
        return restored_areas(self.labels, (height, width), self.input, len(self.classes))

    @functools.cached_property
    def _mask(self) -> NDArray[np.uint8]:
        height, width = self.frame.shape[:2]
        return restore_labels(self.labels, (height, width), self.input)

    @functools.cached_property
    def _overlay(self) -> NDArray[np.uint8]:
        look = Look(self.classes.palette, self.opacity)
        picture = overlay_restored(self.frame, self.labels, self.input, look)
        draw_legend(picture, self.classes)
        return picture


class Stream:
    """Segments a source frame by frame, once: a context manager to iterate over.

    ::

        with edgeseg.load("model.onnx") as engine, Stream("camera:0", engine) as stream:
            for result in stream:
                show(result.overlay())

    Args:
        source: As :func:`edgeseg.stream.parse_source` takes it.
        engine: Takes batches of one; the stream neither opens nor closes it.
        realtime: True: the newest frame counts, older ones are dropped, and files play at
            their own rate. False: every frame counts, as fast as possible. None: True for
            cameras and the test pattern.
        max_frames: Stop after so many results.
        duration: Stop after so many seconds.
        strict: A file that ends before its declared end raises SourceLost.
        opacity: Of the classes in overlays, 0…1.

    Raises:
        UsageError: An argument is out of its range, or the source cannot be parsed.
    """

    def __init__(
        self,
        source: str | int | Path | SourceSpec,
        engine: Engine,
        *,
        realtime: bool | None = None,
        max_frames: int | None = None,
        duration: float | None = None,
        strict: bool = False,
        opacity: float = 0.5,
    ) -> None:
        if max_frames is not None and max_frames < 1:
            raise UsageError(f"max_frames is a positive number, not {max_frames}")
        if duration is not None and not duration > 0:
            raise UsageError(f"duration is a positive number of seconds, not {duration}")
        if not 0 <= opacity <= 1:
            raise UsageError(f"opacity is within 0 and 1, not {opacity}")
        if engine.batch not in (None, 1):
            raise UsageError(
                f"{engine.path.name} takes batches of {engine.batch}; a stream has one frame",
                mend="export with a batch of 1, or with --dynamic-batch",
            )
        self.spec = parse_source(source)
        self.realtime = self.spec.realtime if realtime is None else realtime
        self.clock = StageClock()
        self.frames = 0
        self._engine = engine
        self._opacity = opacity
        self._max_frames = max_frames
        self._duration = duration
        self._stop_requested = False
        self._started_at: float | None = None
        self._tensor = np.empty((1, *engine.card.input.shape), np.float32)
        self._reader = Reader(self.spec, realtime=self.realtime, strict=strict)

    @property
    def fps(self) -> float | None:
        """Frames a second that the source states, None where it does not."""
        return self._reader.fps

    @property
    def state(self) -> State:
        """Where the source stands: ``ok``, ``stalled``, ``reconnecting``, ``ended``."""
        return self._reader.state

    @property
    def reconnects(self) -> int:
        """How often frames came again after a loss."""
        return self._reader.reconnects

    @property
    def dropped(self) -> int:
        """Frames that gave way to a newer one."""
        return self._reader.dropped

    @property
    def bad_frames(self) -> int:
        """Frames that the source declared and that could not be read."""
        return self._reader.bad_frames

    @property
    def seconds(self) -> float:
        """Time since the stream was ready for its first frame; 0 before."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    def stop(self) -> None:
        """End the iteration, within a tenth of a second and the inference that runs.

        May be called from any thread and from a signal handler: it takes no lock.
        """
        self._stop_requested = True

    def __enter__(self) -> Self:
        """Open the source and warm the engine up, both at once.

        Raises:
            OpenFailed: The source cannot be opened.
            AuthFailed: It refuses the credentials.
            InferenceError: The engine fails on zeros.
        """
        self._reader.start()
        try:
            self._engine.warm_up()
            while not self._stop_requested and not self._reader.wait_for_first(_TICK_S):
                pass
            if self._reader.error is not None and self._reader.done:
                raise self._reader.error
        except BaseException:
            self._reader.close()
            raise
        self._reader.forgive_drops()
        self._started_at = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[StreamResult]:
        """The results, until the source ends, a limit is reached or :meth:`stop` is called.

        Outside a ``with`` block it opens the source first and closes it at the end.

        Raises:
            SourceLost: ``strict``, and the file ended before its end.
            InferenceError: The engine failed.
        """
        if self._started_at is None:
            with self:
                yield from self._results()
        else:
            yield from self._results()

    def _results(self) -> Iterator[StreamResult]:
        while not self._over():
            captured = self._reader.get(_TICK_S)
            if captured is not None:
                yield self._segment(captured)
            elif self._reader.done:
                if self._reader.error is not None:
                    raise self._reader.error
                return

    def _over(self) -> bool:
        return (
            self._stop_requested
            or (self._max_frames is not None and self.frames >= self._max_frames)
            or (self._duration is not None and self.seconds >= self._duration)
        )

    def _segment(self, captured: Captured) -> StreamResult:
        start = time.perf_counter()
        preprocess(captured.frame, self._engine.card.input, self._tensor[0])
        ready = time.perf_counter()
        # The engine's buffer is its own again at the next call.
        labels = self._engine.infer(self._tensor)[0].copy()
        end = time.perf_counter()
        stages = {
            "capture": captured.capture_ms,
            "preprocess": (ready - start) * 1000,
            "infer": (end - ready) * 1000,
        }
        for stage, milliseconds in stages.items():
            self.clock.add(stage, milliseconds)
        self.frames += 1
        return StreamResult(
            index=captured.index,
            source=self.spec.label,
            frame=captured.frame,
            labels=labels,
            captured_at=captured.captured_at,
            age_ms=(time.monotonic() - captured.captured_at) * 1000,
            stages_ms=stages,
            classes=self._engine.card.classes,
            input=self._engine.card.input,
            opacity=self._opacity,
        )
