"""Regions as values: what :func:`edgeseg.ops.components.components` finds, one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.components import components


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch, diagonally too.

    Attributes:
        label: Class id.
        area: Pixels.
        box: (x, y, width, height), the smallest rectangle around them, pixels.
        centroid: (x, y), mean of their positions; the upper left pixel is at (0, 0).
    """

    label: int
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]


def regions(labels: NDArray[np.uint8], num_classes: int, min_area: int = 1) -> list[Region]:
    """Regions of a label map, the largest first, of equals that whose first pixel comes first.

    Args:
        labels: uint8 (H, W), class ids. Class 0 (background) and ids past the classes (ignore)
            have no regions.
        num_classes: Number of classes.
        min_area: Smaller regions are left out, pixels.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    found = components(labels)
    kept = np.flatnonzero((found.areas >= min_area) & (found.classes < num_classes))
    kept = kept[np.argsort(-found.areas[kept], kind="stable")]
    columns = (found.classes, found.areas, found.boxes, found.centroids)
    return [
        Region(label, area, (box[0], box[1], box[2], box[3]), (centre[0], centre[1]))
        for label, area, box, centre in zip(*(each[kept].tolist() for each in columns), strict=True)
    ]
