"""Zones of alert rules: polygons on the picture, read from a JSON file.

::

    {"polygons": [[[0.1, 0.5], [0.9, 0.5], [1, 1], [0, 1]]]}
    {"size": [1280, 720], "polygons": [[[100, 360], [1180, 360], [1280, 720], [0, 720]]]}

Points are [x, y] from the upper left corner: shares of the picture's width and height, or,
where ``size`` [width, height] is there, pixels of a picture of that size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from edgeseg.artifacts.documents import Document, load
from edgeseg.errors import CorruptArtifact

Point = tuple[float, float]
Polygon = Annotated[tuple[Point, ...], Field(min_length=3, max_length=1000)]
Side = Annotated[int, Field(ge=1, le=65_536)]

EXAMPLE = (
    'write it like this, in shares of the picture: {"polygons": '
    "[[[0.1, 0.5], [0.9, 0.5], [1, 1], [0, 1]]]}"
)


class Zone(Document):
    """A part of the picture: what lies in one of the polygons.

    Attributes:
        polygons: Corners in order; within one polygon the even-odd rule applies.
        size: Picture size (width, height) if points are in pixels; None if they are shares.
    """

    polygons: Annotated[tuple[Polygon, ...], Field(min_length=1, max_length=100)]
    size: tuple[Side, Side] | None = None

    @model_validator(mode="after")
    def _on_the_picture(self) -> Zone:
        width, height = self.size or (1, 1)
        for polygon in self.polygons:
            for x, y in polygon:
                if not (0 <= x <= width and 0 <= y <= height):
                    hint = "" if self.size else "; pixels need a size"
                    raise ValueError(
                        f"the point [{x:g}, {y:g}] is outside 0…{width}, 0…{height}{hint}"
                    )
        return self

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Bool (height, width): the pixels of a picture whose centres lie inside."""
        stated = self.size or (1, 1)
        scale = np.array([width / stated[0], height / stated[1]])
        inside = np.zeros((height, width), np.bool_)
        for polygon in self.polygons:
            inside |= _filled(np.array(polygon) * scale, height, width)
        return inside


def load_zone(path: Path) -> Zone:
    """Read the file of a zone.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: It holds no zone.
    """
    try:
        return load(Zone, path)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.message, hint=EXAMPLE) from error


def _filled(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Even-odd rule: a pixel is inside if an odd number of edges lies left of its centre."""
    flips = np.zeros((height, width + 1), np.uint8)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # Half open, so that an edge that begins where another ends is met once.
        rows = np.flatnonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))
        crossings = x0 + (centres[rows] - y0) * ((x1 - x0) / (y1 - y0)) if rows.size else rows
        first = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)
        flips[rows, first] ^= 1
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(np.bool_)
