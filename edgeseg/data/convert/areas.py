"""The area of a labelled shape: polygons and run-length codes as pixels.

Coordinates are continuous with the origin at the corner of the picture, as in COCO, CVAT, labelme
and YOLO: pixel (x, y) covers [x, x + 1) × [y, y + 1). A pixel belongs to a polygon if its centre
lies inside by the even-odd rule, so polygons that share an edge neither overlap nor leave a gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DatasetError

Points = NDArray[np.float64]
Size = tuple[int, int]

_FAR = 1e7  # pixels; keeps the arithmetic of absurd coordinates finite
_CORNERS = 360


class Patch(NamedTuple):
    """Part of a picture: its first row and column, and bool (h, w) of the pixels of a shape."""

    top: int
    left: int
    mask: NDArray[np.bool_]


class Area(Protocol):
    """The area of a shape; sizes are (height, width) of the picture."""

    def bounds(self, size: Size) -> tuple[float, float, float, float] | None:
        """Return left, top, right and bottom in pixels; None if there is no point."""

    def patch(self, size: Size) -> Patch:
        """Return the pixels of the shape within the picture."""


@dataclass(frozen=True)
class Polygons:
    """The union of polygons (N, 2) of x and y.

    Attributes:
        rings: The polygons; each is closed from its last point to its first.
        relative: Whether coordinates are shares of the width and height of the picture.
    """

    rings: tuple[Points, ...]
    relative: bool = False

    def bounds(self, size: Size) -> tuple[float, float, float, float] | None:
        """Return left, top, right and bottom in pixels; None if there is no point."""
        rings = [ring for ring in self._in_pixels(size) if len(ring)]
        if not rings:
            return None
        points = np.concatenate(rings)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def patch(self, size: Size) -> Patch:
        """Return the pixels whose centres are in one of the polygons."""
        bounds = self.bounds(size) or (0, 0, 0, 0)
        left, right = (_clipped(math.ceil(bounds[at] - 0.5), size[1]) for at in (0, 2))
        top, bottom = (_clipped(math.ceil(bounds[at] - 0.5), size[0]) for at in (1, 3))
        mask = np.zeros((bottom - top, right - left), np.bool_)
        for ring in self._in_pixels(size):
            mask |= _inside(ring - (left, top), mask.shape)
        return Patch(top, left, mask)

    def _in_pixels(self, size: Size) -> list[Points]:
        scale = (size[1], size[0]) if self.relative else (1, 1)
        return [np.clip(ring * scale, -_FAR, _FAR) for ring in self.rings]


@dataclass(frozen=True)
class RunLengths:
    """Run lengths of pixels in a rectangle, alternately outside and inside of the shape.

    Attributes:
        counts: int64 (N,), whose sum is ``height`` × ``width``; the first run is outside.
        height: Height of the rectangle.
        width: Width of the rectangle.
        top: First row of the rectangle in the picture.
        left: First column of the rectangle in the picture.
        by_column: Whether runs go down the columns, as in COCO, or along the rows.
    """

    counts: NDArray[np.int64]
    height: int
    width: int
    top: int = 0
    left: int = 0
    by_column: bool = False

    def bounds(self, size: Size) -> tuple[float, float, float, float] | None:  # noqa: ARG002
        """Return left, top, right and bottom of the rectangle."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def patch(self, size: Size) -> Patch:
        """Decode the runs and return the part of the rectangle in the picture."""
        inside = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(inside, self.counts)
        shape = (self.width, self.height) if self.by_column else (self.height, self.width)
        mask = flat.reshape(shape)
        return _within(mask.T if self.by_column else mask, self.top, self.left, size)


@dataclass(frozen=True)
class Bitmap:
    """An encoded picture whose pixels above 0 are the shape, at a place in the picture.

    Attributes:
        height: Its height.
        width: Its width.
        top: Row of its first pixel.
        left: Column of its first pixel.
        where: The shape, for the error message.
    """

    png: bytes
    height: int
    width: int
    top: int
    left: int
    where: str

    def bounds(self, size: Size) -> tuple[float, float, float, float] | None:  # noqa: ARG002
        """Return left, top, right and bottom of the picture."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def patch(self, size: Size) -> Patch:
        """Decode the picture; raises DatasetError."""
        pixels = cv2.imdecode(np.frombuffer(self.png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise DatasetError(f"{self.where}: expected a mask as PNG, which cannot be decoded")
        return _within(pixels > 0, self.top, self.left, size)


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float = 0) -> Polygons:
    """Return a box, rotated about its centre, clockwise as seen."""
    ring = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    return Polygons((_turned(ring, degrees),))


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> Polygons:
    """Return an ellipse of 360 corners, given its centre and its two radii."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    ring = np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)
    return Polygons((_turned(ring, degrees),))


def decode_counts(text: str) -> NDArray[np.int64]:
    """Decode COCO's compressed run lengths: ``rleFrString`` in its ``maskApi.c``.

    Each number is in groups of five bits from the lowest, a sixth bit says that more follow, and
    the fifth of the last group is the sign. From the fourth number on, each is the difference
    to the second before.

    Raises:
        ValueError: The text is truncated or has other characters.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("no compressed run lengths")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("truncated run lengths")
    return np.array(counts, np.int64)


def _turned(ring: Points, degrees: float) -> Points:
    if not degrees:
        return ring
    angle, centre = math.radians(degrees), ring.mean(axis=0)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.asarray((ring - centre) @ np.array([(cosine, sine), (-sine, cosine)]) + centre)


def _clipped(value: int, most: int) -> int:
    return min(max(value, 0), most)


def _within(mask: NDArray[np.bool_], top: int, left: int, size: Size) -> Patch:
    """Cut a mask at the edges of the picture."""
    rows = slice(_clipped(-top, mask.shape[0]), _clipped(size[0] - top, mask.shape[0]))
    columns = slice(_clipped(-left, mask.shape[1]), _clipped(size[1] - left, mask.shape[1]))
    return Patch(max(top, 0), max(left, 0), mask[rows, columns])


def _inside(ring: Points, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill a polygon: a pixel is inside if an odd number of edges cross its row before its centre.

    An edge crosses the rows whose centres are in [its upper end, its lower end).
    """
    height, width = shape
    toggles = np.zeros((height, width + 1), np.uint8)
    following = np.roll(ring, -1, axis=0)
    ends = np.ceil(np.stack([ring[:, 1], following[:, 1]]) - 0.5).clip(0, height).astype(np.intp)
    first, count = ends.min(axis=0), np.abs(ends[1] - ends[0])
    edges = np.repeat(np.arange(len(ring)), count)  # one entry for each row of each edge
    rows = first[edges] + np.arange(len(edges)) - np.repeat(count.cumsum() - count, count)
    (x0, y0), (x1, y1) = ring[edges].T, following[edges].T
    crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    columns = np.ceil(crossings - 0.5).clip(0, width).astype(np.intp)
    np.bitwise_xor.at(toggles, (rows, columns), np.uint8(1))
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(np.bool_)
