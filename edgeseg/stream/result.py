"""One frame and its labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeseg.card import ClassMap, InputSpec
from edgeseg.ops.overlay import restored_areas
from edgeseg.ops.preprocess import restore_labels
from edgeseg.ops.regions import Region, regions
from edgeseg.stream.view import View


@dataclass(frozen=True, eq=False)
class StreamResult:
    """One frame and its labels. All arrays are the receiver's own.

    Attributes:
        index: Number of the frame in the source, from 0, in a file its place; gaps are frames
            that were dropped or could not be read.
        source: Label of the source, passwords masked.
        frame: uint8 (H, W, 3) BGR.
        labels: uint8 (height, width) of the network, class ids.
        captured_at: Seconds of the monotonic clock when the frame came.
        age_ms: From then until its labels were there.
        stages_ms: ``capture`` (waiting for the camera included), ``preprocess``, ``infer``;
            the last two are those of the batch in which the frame went. Where a GPU keeps whole
            frames, there is no ``preprocess``: it is in ``infer``, and so is what ``shown`` took.
        classes: Names and colours of the ids.
        input: The network's input, which says how ``labels`` lie on the frame.
        view: How the overlay looks.
        camera: Number of the source in the stream, from 0.
        name: Name of the picture file that the frame is, without folder; None for video.
        shown: The classes laid over the frame as ``view`` says, where the GPU drew that together
            with the labels; :meth:`overlay` adds the writing to it.
        media_time: Seconds from the first frame of the video; None where nothing tells, as of
            cameras and pictures.
        damaged: The decoder met errors in the frame, of which parts may show something else.
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
    view: View = field(default=View(), repr=False)
    camera: int = 0
    name: str | None = None
    shown: NDArray[np.uint8] | None = field(default=None, repr=False)
    media_time: float | None = None
    damaged: bool = False

    def mask(self) -> NDArray[np.uint8]:
        """The label map at the frame's size, uint8 (H, W); worked out once."""
        return self._mask

    def overlay(self) -> NDArray[np.uint8]:
        """The frame as the stream's view draws it, uint8 (H, W, 3) BGR; drawn once."""
        return self._overlay

    def draw(self, view: View) -> NDArray[np.uint8]:
        """The frame as another view draws it, uint8 (H, W, 3) BGR; drawn anew each time."""
        return view.draw(self.frame, self.labels, self.classes, self.input)

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each class in :meth:`mask`, int64 (classes,), counted without making it."""
        height, width = self.frame.shape[:2]
        return restored_areas(self.labels, (height, width), self.input, len(self.classes))

    def regions(self, min_area: int = 1) -> list[Region]:
        """Connected parts of each class in :meth:`mask`, the largest first; class 0 has none.

        Parts of fewer than ``min_area`` pixels of the frame are left out.
        """
        return regions(self.mask(), len(self.classes), min_area)

    @functools.cached_property
    def _mask(self) -> NDArray[np.uint8]:
        height, width = self.frame.shape[:2]
        return restore_labels(self.labels, (height, width), self.input)

    @functools.cached_property
    def _overlay(self) -> NDArray[np.uint8]:
        if self.shown is None:
            return self.draw(self.view)
        return self.view.write(self.shown, self.labels, self.classes, self.input)
