"""Combine pictures of several sources into one mosaic."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTH = 1280
"""Of the whole, in pixels."""


class Mosaic:
    """Tiles in rows, letterboxed; a single one has the size of its picture.

    Args:
        count: Number of tiles.
    """

    def __init__(self, count: int) -> None:
        self._columns = math.ceil(math.sqrt(count))
        self._rows = math.ceil(count / self._columns)
        self._single = count == 1
        width = _WIDTH // self._columns
        self.tile = (width * 9 // 16, width)
        self.picture = np.zeros((self.tile[0] * self._rows, width * self._columns, 3), np.uint8)

    def fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture, uint8 (H, W, 3), at the size of a tile, black beside it; always a copy."""
        if self._single:
            return picture.copy()
        height, width = self.tile
        scale = min(height / picture.shape[0], width / picture.shape[1])
        inner = (
            max(1, min(height, round(picture.shape[0] * scale))),
            max(1, min(width, round(picture.shape[1] * scale))),
        )
        tile = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        tile[top : top + inner[0], left : left + inner[1]] = cv2.resize(
            picture, inner[::-1], interpolation=cv2.INTER_LINEAR
        )
        return tile

    def put(self, place: int, tile: NDArray[np.uint8]) -> None:
        """Show what :meth:`fitted` made as tile number ``place``."""
        if self._single:
            self.picture = tile
            return
        row, column = divmod(place, self._columns)
        height, width = self.tile
        top, left = row * height, column * width
        self.picture[top : top + height, left : left + width] = tile
