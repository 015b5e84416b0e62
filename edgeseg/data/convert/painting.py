"""Paint shapes as a mask of class ids and a map of objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeseg.data import decode
from edgeseg.data.convert.areas import Patch, Size
from edgeseg.data.convert.labels import Losses, Picture, Shape
from edgeseg.data.headers import Header

_SLACK = 1.0
"""Pixels beyond the edge that are rounding rather than a loss."""


@dataclass(frozen=True)
class Painted:
    """Labels of a picture.

    Attributes:
        mask: Class ids, uint8 (H, W).
        instances: Object ids, uint16 (H, W), 0 for none; None if objects are not known.
        turned: Whether it was turned with the EXIF orientation of the picture.
    """

    mask: NDArray[np.uint8]
    instances: NDArray[np.uint16] | None = None
    objects: int = 0
    turned: bool = False

    def upright(self, orientation: int) -> Painted:
        """Return labels of stored pixels in the frame in which viewers show the picture."""
        instances = self.instances
        return replace(
            self,
            mask=decode.upright(self.mask, orientation),
            instances=None if instances is None else decode.upright(instances, orientation),
            turned=True,
        )


def frame_of(size: Size | None, header: Header) -> Size | None:
    """Return the (height, width) that labels are for: the turned picture's, or the stored one's.

    Where a turn keeps the size, or labels state none, they are for the turned picture, which
    labelme and Ultralytics show. None if the size is neither.
    """
    if size is None or size == header.shown:
        return header.shown
    return size if size == (header.height, header.width) else None


def paint(
    picture: Picture, frame: Size, ids: dict[str, int], background: int, losses: Losses
) -> Painted:
    """Paint the shapes of a picture, later ones over earlier ones, and count what is lost."""
    mask = np.full(frame, background, np.uint8)
    objects = np.zeros(frame, np.uint16)
    numbers: dict[object, int] = {}
    if not picture.shapes:
        losses.add("pictures_without_shapes", f"{picture.name} of {picture.origin}")
    for place, shape in enumerate(picture.shapes):
        patch = _patch(shape, frame, losses)
        if patch is None:
            continue
        key = ("single", place) if shape.group is None else ("group", shape.label, shape.group)
        number = numbers.setdefault(key, len(numbers) + 1)
        height, width = patch.mask.shape
        rows, columns = (
            slice(patch.top, patch.top + height),
            slice(patch.left, patch.left + width),
        )
        below = objects[rows, columns]
        covered = patch.mask & (below != 0) & (below != number)
        losses.add("overlapping_pixels", shape.where, int(covered.sum()))
        mask[rows, columns][patch.mask] = ids[shape.label]
        below[patch.mask] = number
    ignored = mask == 255
    losses.add("ignored_pixels", picture.origin, int(ignored.sum()))
    count = _count(objects)
    losses.add("shapes_hidden", picture.origin, len(numbers) - count)
    of_background = (mask == background) & (objects != 0)
    if of_background.any():
        objects[of_background] = 0
        count = _count(objects)
    return Painted(mask, objects, count)


def _count(objects: NDArray[np.uint16]) -> int:
    """Return the number of different ids but 0."""
    return int(np.count_nonzero(np.bincount(objects.ravel())[1:]))


def _patch(shape: Shape, frame: Size, losses: Losses) -> Patch | None:
    """Return the pixels of a shape, None if there are none, and count what is cut off."""
    height, width = frame
    bounds = shape.area.bounds(frame)
    if bounds is None:
        losses.add("shapes_degenerate", shape.where)
        return None
    left, top, right, bottom = bounds
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        losses.add("shapes_outside", shape.where)
        return None
    patch = shape.area.patch(frame)
    if not patch.mask.any():
        losses.add("shapes_degenerate", shape.where)
        return None
    beyond = max(-left, -top, right - width, bottom - height)
    losses.add("shapes_clipped", shape.where, int(beyond > _SLACK))
    return patch
