"""Connected regions of a label map as a list of objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops.components import components


@dataclass(frozen=True)
class Region:
    """A connected region of one class (8-connected).

    Attributes:
        label: Class id.
        area: Area in pixels.
        box: Bounding box (x, y, width, height) in pixels.
        centroid: Mean pixel position (x, y); the upper left pixel is at (0, 0).
    """

    label: int
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]


def regions(
    labels: NDArray[np.uint8], num_classes: int, min_area: int = 1, background: int | None = None
) -> list[Region]:
    """List the regions of a label map, largest first; ties in row-major order of first pixels.

    Args:
        labels: uint8 (H, W), class ids. Ids past the classes (ignore) have no regions.
        num_classes: Number of classes.
        min_area: Minimum area in pixels; smaller regions are omitted.
        background: Id of a class without regions; None if all have them.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    found = components(labels, background)
    kept = np.flatnonzero((found.areas >= min_area) & (found.classes < num_classes))
    kept = kept[np.argsort(-found.areas[kept], kind="stable")]
    columns = (found.classes, found.areas, found.boxes, found.centroids)
    return [
        Region(label, area, (box[0], box[1], box[2], box[3]), (centre[0], centre[1]))
        for label, area, box, centre in zip(*(each[kept].tolist() for each in columns), strict=True)
    ]


def check_min_region(share: float) -> None:
    """Raises UsageError unless it is a share."""
    if not 0 <= share <= 1:
        raise UsageError(f"the smallest region is a share of the frame from 0 to 1, not {share}")


def least_area(share: float, pixels: int) -> int:
    """Smallest number of pixels of a region whose share of ``pixels`` is at least that."""
    return max(1, math.ceil(share * pixels))
