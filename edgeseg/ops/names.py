"""Write class names on the regions of a picture.

Positions are computed on a subsampled label map, about 128 pixels wide, and rendered text is
cached, so that a 720p picture takes a fraction of a millisecond.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.overlay import check_canvas, drawable

_WIDEST = 128
"""Maximum columns or rows of the subsampled label map."""

_MOST = 12
"""Maximum number of names per picture; the largest regions get them."""

_INSIDE = 0.5
"""Minimum fraction of a name that must lie on its region."""


Stamp: TypeAlias = "tuple[NDArray[np.uint8], NDArray[np.uint8]]"


@dataclass(frozen=True)
class Written:
    """A name drawn on a picture: class id and rectangle in pixels (x, y, width, height)."""

    label: int
    x: int
    y: int
    width: int
    height: int

    def meets(self, other: Written) -> bool:
        """Whether the two rectangles overlap."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def draw_names(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    names: Sequence[str],
    taken: tuple[int, int] = (0, 0),
    clear: AbstractSet[int] = frozenset(),
) -> list[Written]:
    """Draw class names on the large regions, white with a dark outline, in place.

    A name is placed where its region is thickest, within the frame. Not drawn are clear classes,
    ids without a name, names with less than half of their area on their region, and names that
    would overlap that of a larger region.

    Args:
        frame: uint8 (H, W, 3) BGR, writeable and C-contiguous.
        labels: uint8, class ids, of any size; stretched over the whole frame.
        taken: (height, width) of the area at the upper left to keep free.
        clear: Ids that get no name: the background and hidden classes.

    Returns:
        The names drawn.

    Raises:
        UsageError: ``frame`` has another dtype, shape or layout.
    """
    check_canvas(frame, "frame")
    corner = Written(0, 0, 0, taken[1], taken[0])
    written: list[Written] = []
    step = -(-max(labels.shape) // _WIDEST)
    small = np.ascontiguousarray(labels[step // 2 :: step, step // 2 :: step])
    named = frozenset(range(len(names))) - clear
    for label, place in _thickest(small, named):
        if len(written) == _MOST:
            break
        text = stamp(drawable(names[label]), text_height(frame))
        name = _placed(label, text[1].shape, place, small.shape, frame.shape)
        free = name and not any(name.meets(other) for other in (corner, *written))
        if name and free and _share(small, name, frame.shape) >= _INSIDE:
            put(frame, text, name.x, name.y)
            written.append(name)
    return written


def text_height(frame: NDArray[np.uint8]) -> int:
    """Return the height in pixels of text on a picture."""
    height: int = frame.shape[0]
    return max(10, round(height / 36))


@functools.lru_cache(maxsize=512)
def stamp(text: str, height: int) -> Stamp:
    """Render a text in white with a dark outline.

    Returns:
        uint8 (h, w, 3) BGR, and a mask uint8 (h, w), non-zero where the text is opaque.
    """
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, height / 30
    (width, above), below = cv2.getTextSize(text, font, scale, 1)
    rim = max(1, height // 12)
    shape = (above + below + 2 * rim, width + 2 * rim)
    strokes = np.zeros(shape, np.uint8)
    start = (rim, above + rim)
    thickness = max(1, height // 18)
    cv2.putText(strokes, text, start, font, scale, (255,), thickness, cv2.LINE_AA)
    covers = cv2.dilate(strokes, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))
    covers = cv2.threshold(covers, 64, 255, cv2.THRESH_BINARY)[1]
    return np.repeat(strokes[..., np.newaxis], 3, axis=2), np.asarray(covers, np.uint8)


def put(frame: NDArray[np.uint8], text: Stamp, x: int, y: int) -> None:
    """Draw a stamp with its upper left corner at (x, y), clipped at the edges."""
    strokes, covers = text
    part = frame[y : y + covers.shape[0], x : x + covers.shape[1]]
    height, width = part.shape[:2]
    if part.size:
        cv2.copyTo(strokes[:height, :width], covers[:height, :width], part)


def _thickest(
    small: NDArray[np.uint8], named: AbstractSet[int]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield class and innermost (row, column) of each region of ``named``, largest first."""
    # 0 is what has no name: clear classes, ids past the names, and outside of the picture.
    padded = cv2.copyMakeBorder(
        cv2.LUT(small, _numbers(named)), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,)
    )
    rim = cv2.morphologyEx(padded, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    # Without their rims, regions of different classes do not touch.
    inner = ((rim == 0) & (padded > 0)).view(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(inner, connectivity=4)
    if count == 1:
        return
    depth = cv2.distanceTransform(inner, cv2.DIST_L2, 3)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[: 2 * _MOST] + 1
    for part in order.tolist():
        x, y, width, height = stats[part, :4].tolist()
        window = (slice(y, y + height), slice(x, x + width))
        of_part = (parts[window] == part).view(np.uint8)
        column, row = cv2.minMaxLoc(depth[window], of_part)[3]
        yield int(padded[y + row, x + column]) - 1, (y + row - 1, x + column - 1)


@functools.lru_cache(maxsize=64)
def _numbers(named: AbstractSet[int]) -> NDArray[np.uint8]:
    """Return one more than each id of ``named``, uint8 (256,); 0 of others."""
    return np.array([label + 1 if label in named else 0 for label in range(256)], np.uint8)


def _placed(
    label: int,
    text: tuple[int, ...],
    place: tuple[int, int],
    small: tuple[int, ...],
    frame: tuple[int, ...],
) -> Written | None:
    """Centre a name on ``place``, moved inside the frame; None if it does not fit."""
    height, width = text[:2]
    if height > frame[0] or width > frame[1]:
        return None
    y = round((place[0] + 0.5) * frame[0] / small[0] - height / 2)
    x = round((place[1] + 0.5) * frame[1] / small[1] - width / 2)
    y, x = min(max(0, y), frame[0] - height), min(max(0, x), frame[1] - width)
    return Written(label, x, y, width, height)


def _share(small: NDArray[np.uint8], name: Written, frame: tuple[int, ...]) -> float:
    """Return the fraction of a name's rectangle that lies on its class."""
    down, across = small.shape[0] / frame[0], small.shape[1] / frame[1]
    top, left = int(name.y * down), int(name.x * across)
    bottom = max(top + 1, round((name.y + name.height) * down))
    right = max(left + 1, round((name.x + name.width) * across))
    part = small[top:bottom, left:right]
    return int(np.count_nonzero(part == name.label)) / part.size
