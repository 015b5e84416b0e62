"""Steady masks: labels that hold until others have outvoted them, or the picture has changed."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.ops.preprocess import Form, inside, preprocess_as
from edgeseg.ops.smoothing import FRESH, smooth
from edgeseg.stream.result import StreamResult


class Flicker:
    """Measures the share of pixels whose label changes and changes back.

    In three successive results of a source, a pixel flickers if the first and the third give it one
    label and the second another: A, B, A. Its flicker is the number of these pixels, over all
    results with two before them, divided by the number of their pixels.

    It keeps two label maps. 0.03 ms a result at 512x256, measured on one core.

    Attributes:
        results: Number of results with two before them.
    """

    def __init__(self) -> None:
        self.results = 0
        self._sum = 0.0
        self._before: list[NDArray[np.uint8]] = []
        self._kind: Hashable = None

    @property
    def share(self) -> float | None:
        """Share of pixels that flickered, from 0 to 1; None without three successive results."""
        return self._sum / self.results if self.results else None

    def add(self, labels: NDArray[np.uint8], kind: Hashable = None) -> float | None:
        """Add a result, and return the share of pixels that flickered in the one before it.

        Args:
            labels: uint8 (H, W), class ids, any strides; copied.
            kind: Results of another kind than the last, e.g. of another connection of the source,
                are not compared with it, nor are maps of another size.

        Returns:
            From 0 to 1; None unless two comparable results precede this one.
        """
        kind = (kind, labels.shape)
        if kind != self._kind:
            self._kind = kind
            self._before.clear()
        found: float | None = None
        if len(self._before) == 2:
            first, second = self._before
            found = np.count_nonzero((labels == first) & (labels != second)) / labels.size
            self.results += 1
            self._sum += found
            self._before.pop(0)
        self._before.append(labels.copy())
        return found


BLOCK = 4
"""Side of a block of the motion gate, in pixels of the label map."""

CONTRAST = 0.18
"""Ratio less 1 of a block's mean grey plus 40, now and before, above which it has changed.

That is by 9 levels of grey at 10, by 26 at 100 and by 45 at 200: what is dark moves with less
contrast, and the 40 keeps the noise of dark pictures below.
"""

CUT = 0.5
"""Share of blocks that have changed above which the picture is a new one."""

_LEVELS = Form("uint8")
# Equal ratios become equal differences.
_LOGARITHMS = np.log1p(np.arange(256) / 40) / np.log1p(255 / 40)
_BRIGHTNESS = np.asarray(np.rint(255 * _LOGARITHMS), np.uint8)
_CHANGED = int(255 * np.log1p(CONTRAST) / np.log1p(255 / 40))
_NOTHING = np.empty((0, 0), np.uint8)


class Smoother:
    """Smooths the label maps of one source, in the order of its frames.

    Earlier frames vote on each pixel's label (:mod:`edgeseg.ops.smoothing`). A label that the
    network gives without a break for ``seconds`` is shown, whatever was shown before. What moves is
    followed by dense optical flow (DIS; Kroeger et al., ECCV 2016). The network's label is shown at
    once

    - where something has moved in, and the network's previous label there differs from the one
      that is shown at its new place;
    - where the flow does not explain the picture: the brightness of a block of 4x4 pixels of the
      label map, or of one of its eight neighbours, differs from that at its previous place.

    All votes are dropped at a cut, with a frame of another size or another connection, and after a
    gap of ``seconds``.

    It keeps three bytes per pixel of the label map, a quarter of the pixels of its picture in grey,
    and the buffers of the optical flow.

    Args:
        seconds: Longest time, above 0, for which another label is held back.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kind: Hashable = None
        self._at = 0.0
        self._grey = self._labels = self._memory = _NOTHING
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)

    def smooth(self, result: StreamResult, at: float) -> None:
        """Replace the labels of a result in place.

        Args:
            at: Its time on the clock of the scene, in seconds.
        """
        labels = inside(result.labels, result.frame.shape[:2], result.input)
        height, width = (math.ceil(side / BLOCK) for side in labels.shape)
        grey = preprocess_as(_LEVELS, result.frame, _sampled(2 * height, 2 * width))[0]
        kind = (result.reconnects, result.frame.shape, labels.shape)
        found = labels.copy()
        if kind == self._kind:
            step = self._step(at)
            # From now to before.
            flow = self._flow.calc(grey, self._grey, None)  # type: ignore[call-overload]
            stale = self._stale(flow)
            np.minimum(self._memory[1], ~stale | np.uint8(step), out=self._memory[1])
            moved = _moved(_follow(self._grey, flow, cv2.INTER_LINEAR), grey, (width, height))
            limits = np.where(moved, np.uint8(step), np.uint8(255))
            smooth(found, self._memory, limits, step)
            labels[...] = self._memory[0]
        else:
            self._memory = np.stack((labels, np.full_like(labels, FRESH)))
        self._kind, self._at, self._grey, self._labels = kind, at, grey, found

    def _stale(self, flow: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return 255 where what has moved in had another label than the shown one, else 0."""
        height, width = self._labels.shape
        rows, columns = flow.shape[:2]
        scale = np.array((width / columns, height / rows), np.float32)
        path = np.asarray(cv2.resize(flow * scale, (width, height)), np.float32)
        still = np.asarray(cv2.inRange(path, (-0.5, -0.5, 0, 0), (0.5, 0.5, 0, 0)), np.uint8)
        before = _follow(self._labels, path, cv2.INTER_NEAREST)
        return np.asarray(cv2.compare(before, self._memory[0], cv2.CMP_NE), np.uint8) & ~still

    def _step(self, at: float) -> int:
        """Votes of a frame, rounded up so that ``seconds`` of frames use up all votes."""
        passed = at - self._at
        if not 0 <= passed < self._seconds:
            return 255
        return max(1, math.ceil(255 * passed / self._seconds))


class Steadiness:
    """Smooths a source's label maps if wanted, and measures their flicker.

    Args:
        seconds: As for :class:`Smoother`; None leaves the label maps as they are.

    Attributes:
        network: Flicker of the network's label maps.
        masks: Flicker of the label maps that the results have.
    """

    def __init__(self, seconds: float | None) -> None:
        self._smoother = None if seconds is None else Smoother(seconds)
        self.network = Flicker()
        self.masks = self.network if seconds is None else Flicker()

    def take(self, result: StreamResult, at: float) -> None:
        """Smooth and measure the source's next result.

        Args:
            result: The result, segmented; it receives new labels if they are smoothed.
            at: Its time on the clock of the scene, in seconds.
        """
        found = result.labels
        if result.card is None or found.shape != result.input.shape[1:]:
            return
        size = result.frame.shape[:2]
        kind = (result.reconnects, size)
        result.flicker = self.network.add(inside(found, size, result.input), kind)
        if self._smoother is not None:
            with result.timed("smooth"):
                result.unsmoothed, result.labels = found, found.copy()
                self._smoother.smooth(result, at)
            result.age_ms += result.stages_ms["smooth"]
            result.flicker = self.masks.add(inside(result.labels, size, result.input), kind)


@functools.lru_cache(maxsize=16)
def _sampled(height: int, width: int) -> InputSpec:
    side = 16  # the smallest that the optical flow takes
    return InputSpec(
        height=max(side, height), width=max(side, width), color="gray", mean=(0,), std=(1,)
    )


@functools.lru_cache(maxsize=16)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    return np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)


def _follow(
    before: NDArray[np.uint8], flow: NDArray[np.float32], interpolation: int
) -> NDArray[np.uint8]:
    """Return what was where the flow leads to, uint8 (H, W); 255 outside of the picture."""
    at = flow + _grid(*before.shape)
    found = cv2.remap(before, at, None, interpolation, borderValue=255)  # type: ignore[call-overload]
    return np.asarray(found, np.uint8)


def _moved(
    before: NDArray[np.uint8], now: NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return in which blocks the picture has changed, or beside which, bool (h, w)."""
    bright = [
        cv2.LUT(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), _BRIGHTNESS)
        for grey in (before, now)
    ]
    changed = cv2.threshold(cv2.absdiff(*bright), _CHANGED, 1, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(changed) > CUT * changed.size:
        return np.ones(changed.shape, np.bool_)
    return np.asarray(cv2.dilate(changed, np.ones((3, 3), np.uint8)), np.bool_)
