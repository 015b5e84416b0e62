"""Make regions of a picture unrecognisable.

What is left of a region is a few averages: the box around it is divided into blocks, at most
:data:`BLOCKS` along its longer side and :data:`SMALLEST` pixels wide and high at least, and the
region is filled from the blocks' averages alone, as flat blocks or interpolated between them.
Unlike a Gaussian blur of the same look, which deconvolution undoes in part, this discards detail.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.preprocess import nearest_indices

BLOCKS = 4
"""Most blocks along the longer side of a region's bounding box."""

SMALLEST = 8
"""Least side of a block, in pixels of the picture."""

_SAMPLES = 64
"""Pixels sampled along the longer side of a bounding box."""

_CELLS = 64
"""Cells along the shorter side of a mask, at least."""

SEPARATE = 24
"""Most regions that have blocks of their own; all smaller ones share those of one box."""

Box = tuple[int, int, int, int]
"""x, y, width, height"""


def obscure(
    picture: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    style: Literal["blur", "pixelate"],
    margin: int = 0,
) -> None:
    """Obscure in place what lies in a mask or up to ``margin`` pixels beside it.

    Args:
        picture: uint8 (H, W) or (H, W, C), writeable; the pixels of a row lie beside each other.
        mask: uint8 (h, w), not 0 where to obscure; resized to the picture as label maps are.
        style: ``blur`` interpolates between the averages of blocks, ``pixelate`` does not.
        margin: Pixels of the picture, horizontally and vertically; rounded up to whole pixels of
            the mask.
    """
    size = (picture.shape[0], picture.shape[1])
    if not cv2.countNonZero(mask):
        return
    grown = _grown(mask, size, margin)
    rows, columns = nearest_indices((mask.shape[0], mask.shape[1]), size)
    for x, y, width, height in _boxes(grown):
        down, across = _span(rows, y, y + height), _span(columns, x, x + width)
        part = picture[down, across]
        inside = grown.take(rows[down], 0).take(columns[across], 1)
        _fill(part, _blocks(part, style), inside)


def cover(picture: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> None:
    """Paint the picture black in place, or the part of it where a mask (H, W) is not 0."""
    if mask is None:
        picture[...] = 0
    else:
        _fill(picture, np.zeros_like(picture), mask)


def _grown(mask: NDArray[np.uint8], size: tuple[int, int], margin: int) -> NDArray[np.uint8]:
    """Dilate by at least ``margin`` pixels of a picture of ``size`` (H, W)."""
    if not margin:
        return mask
    # Pixels of the picture a distance apart lie in pixels of the mask at most that many apart.
    sides = zip(mask.shape, size, strict=True)
    reach = [margin if small == large else margin * small // large + 1 for small, large in sides]
    kernel = np.ones([2 * each + 1 for each in reach], np.uint8)
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def _boxes(mask: NDArray[np.uint8]) -> list[Box]:
    """Bounding boxes of regions that touch or almost touch; of many, the small ones in one."""
    # Regions of a mask are sought in cells, which takes a tenth of the time.
    cell = max(1, min(mask.shape) // _CELLS)
    reaching = cv2.dilate(mask, np.ones((cell, cell), np.uint8), anchor=(0, 0))
    cells = np.ascontiguousarray(reaching[::cell, ::cell])
    _, _, stats, _ = cv2.connectedComponentsWithStats(cells, connectivity=8, ltype=cv2.CV_32S)
    found = stats[1:]
    if len(found) > SEPARATE:
        found = found[np.argsort(-found[:, cv2.CC_STAT_AREA], kind="stable")]
        rest = found[SEPARATE:, :4]
        low, high = rest[:, :2].min(0), (rest[:, :2] + rest[:, 2:]).max(0)
        found = np.vstack([found[:SEPARATE, :4], [*low, *(high - low)]])
    return [
        (int(x), int(y), int(width), int(height)) for x, y, width, height in found[:, :4] * cell
    ]


def _span(indices: NDArray[np.int32], first: int, end: int) -> slice:
    """Return the pixels of the picture that show those of the mask, and enough for a block."""
    start, stop = (int(each) for each in np.searchsorted(indices, (first, end)))
    start = max(0, min(start, (start + stop - SMALLEST) // 2, len(indices) - SMALLEST))
    return slice(start, max(stop, start + SMALLEST))


def _blocks(part: NDArray[np.uint8], style: Literal["blur", "pixelate"]) -> NDArray[np.uint8]:
    """The part of a picture as its blocks' averages show it, at the same size."""
    height, width = part.shape[:2]
    side = max(SMALLEST, ceil(max(height, width) / BLOCKS))
    count = (max(1, width // side), max(1, height // side))
    step = max(1, max(height, width) // _SAMPLES)
    averages = cv2.resize(part[::step, ::step], count, interpolation=cv2.INTER_AREA)
    back = cv2.INTER_LINEAR if style == "blur" else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(averages, (width, height), interpolation=back), np.uint8)


def _fill(picture: NDArray[np.uint8], filling: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Copy ``filling`` into the picture where the mask is not 0."""
    cv2.copyTo(filling.reshape(picture.shape), mask, picture)
