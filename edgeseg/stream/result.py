"""One frame of a stream, from its capture to the sinks, and its time in the scene."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.ops.overlay import restored_areas
from edgeseg.ops.preprocess import restore_labels
from edgeseg.ops.regions import Region, regions
from edgeseg.stream.view import View

State = Literal["starting", "ok", "stalled", "reconnecting", "ended", "failed"]
"""State of the source that a frame comes from."""

_NO_LABELS = np.empty((0, 0), np.uint8)


@dataclass(eq=False)
class StreamResult:
    """One frame and what is known about it; complete when it reaches the caller and the sinks.

    The reader creates it with the frame; the lane adds labels, timings and the network. All
    arrays are owned by the receiver.

    Attributes:
        index: Number of the frame in the source, from 0; in a file, its position. Gaps are
            frames that were dropped or could not be read.
        source: Label of the source, passwords masked.
        frame: uint8 (H, W, 3) BGR.
        captured_at: Capture time, in seconds of the monotonic clock.
        camera: Number of the source in the stream, from 0.
        name: Name of the frame's picture file, without its folder; None for video.
        media_time: Seconds since the first frame of the video; None if unknown, as for cameras
            and pictures.
        damaged: Whether the decoder reported errors; parts of the frame may be wrong.
        reconnects: Number of times the source had been reconnected by then.
        stages_ms: Milliseconds of ``capture`` (including the wait for the camera),
            ``preprocess`` and ``infer``; the last two are for the whole batch. If a GPU keeps
            whole frames, ``preprocess`` and drawing ``shown`` are part of ``infer``. With the
            option ``smooth``, also ``smooth``; where there are sinks, also ``postprocess``.
        labels: Class ids at the network's size, or with ``tiles`` at the frame's, uint8
            (height, width); smoothed with ``smooth``.
        unsmoothed: The network's own label map, where ``smooth`` changed it; None otherwise.
        flicker: Share of the pixels that flickered in the source's result before this one, see
            :class:`~edgeseg.stream.smoothing.Flicker`; None if too few came before.
        age_ms: Time from capture until the labels were available.
        shown: The frame with the classes drawn over it, if the GPU drew it together with the
            labels; :meth:`overlay` adds the text.
        view: Appearance of the overlay.
        card: The network; with ``tiles``, its input has the frame's size.
    """

    index: int
    source: str
    frame: NDArray[np.uint8]
    captured_at: float
    camera: int = 0
    name: str | None = None
    media_time: float | None = None
    damaged: bool = False
    reconnects: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)
    labels: NDArray[np.uint8] = field(default_factory=lambda: _NO_LABELS)
    unsmoothed: NDArray[np.uint8] | None = None
    flicker: float | None = None
    age_ms: float = 0.0
    shown: NDArray[np.uint8] | None = field(default=None, repr=False)
    view: View = field(default=View(), repr=False)
    card: ModelCard | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a block as a stage of this frame; a block that raises leaves no time."""
        start = time.perf_counter()
        yield
        # A new mapping, since sinks in other threads may be reading this one.
        self.stages_ms = {**self.stages_ms, stage: (time.perf_counter() - start) * 1000}

    @property
    def classes(self) -> ClassMap:
        """Class names and colours."""
        assert self.card is not None, "not segmented yet"
        return self.card.classes

    @property
    def input(self) -> InputSpec:
        """The network's input, which determines how ``labels`` map onto the frame."""
        assert self.card is not None, "not segmented yet"
        return self.card.input

    def mask(self) -> NDArray[np.uint8]:
        """Return the label map at the frame's size, uint8 (H, W); computed once."""
        return self._mask

    def overlay(self) -> NDArray[np.uint8]:
        """Return the frame with the overlay, uint8 (H, W, 3) BGR; drawn once."""
        return self._overlay

    def draw(self, view: View) -> NDArray[np.uint8]:
        """Return the frame drawn with another view, uint8 (H, W, 3) BGR; drawn on each call."""
        return view.draw(self.frame, self.labels, self.classes, self.input)

    def areas(self) -> NDArray[np.int64]:
        """Return each class's pixel count in :meth:`mask`, int64 (classes,), without making it."""
        height, width = self.frame.shape[:2]
        return restored_areas(self.labels, (height, width), self.input, len(self.classes))

    def regions(self, min_area: int = 1) -> list[Region]:
        """Return connected regions of each class in :meth:`mask` but the background.

        The largest come first. Regions smaller than ``min_area`` pixels of the frame are left out.
        """
        return regions(self.mask(), len(self.classes), min_area, self.classes.background)

    @functools.cached_property
    def _mask(self) -> NDArray[np.uint8]:
        height, width = self.frame.shape[:2]
        return restore_labels(self.labels, (height, width), self.input)

    @functools.cached_property
    def _overlay(self) -> NDArray[np.uint8]:
        if self.shown is None:
            return self.draw(self.view)
        return self.view.write(self.shown, self.labels, self.classes, self.input)


_USUAL_FPS = 25.0


class Clocked(Protocol):
    """What of a source determines the time of its frames."""

    live: bool
    realtime: bool
    fps: float | None


def moment(source: Clocked, result: StreamResult) -> float:
    """Return the time of a source's result in seconds; compare it with the same source's only.

    It is the frame's time in a video, the monotonic clock for a camera, and for pictures that are
    read as fast as possible their number over the frame rate, 25 unless the source declares one.
    """
    if result.media_time is not None and not source.live:
        return result.media_time
    if source.live or source.realtime:
        return result.captured_at
    return result.index / (source.fps or _USUAL_FPS)
