"""Connected components of a label map, for all classes in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels


@dataclass(frozen=True, eq=False)
class Components:
    """N connected regions, in row-major order of their first pixels.

    Attributes:
        classes: int64 (N,), class ids.
        areas: int64 (N,), pixels.
        boxes: int64 (N, 4): left, top, width, height.
        centroids: float64 (N, 2): mean x and y of the pixels.
    """

    classes: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    centroids: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.classes)


def components(labels: NDArray[np.uint8], background: int | None = None) -> Components:
    """Find the 8-connected regions of each class.

    Args:
        labels: uint8 (H, W), class ids, any strides.
        background: Id without regions; None if all have them.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise UsageError(f"a label map is uint8 (H, W), not {labels.dtype} {labels.shape}")
    find = components_reference if kernels is None else components_native
    return find(labels, background)


def components_reference(labels: NDArray[np.uint8], background: int | None) -> Components:
    """Reference for :func:`components`, class by class with OpenCV."""
    found: list[tuple[int, NDArray[np.int32], NDArray[np.float64]]] = []
    firsts: list[int] = []
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        if label == background:
            continue
        mask = np.asarray(labels == label, np.uint8)
        count, ids, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
        _, first = np.unique(ids[ids > 0], return_index=True)
        firsts += np.flatnonzero(ids)[first].tolist()
        found += [(int(label), stats[i], centroids[i]) for i in range(1, count)]
    ordered = [found[place] for place in np.argsort(firsts)]
    stats = np.array([row for _, row, _ in ordered], np.int64).reshape(-1, 5)
    return Components(
        classes=np.array([label for label, _, _ in ordered], np.int64),
        areas=stats[:, cv2.CC_STAT_AREA],
        boxes=stats[:, : cv2.CC_STAT_AREA],
        centroids=np.array([centre for _, _, centre in ordered], np.float64).reshape(-1, 2),
    )


def components_native(labels: NDArray[np.uint8], background: int | None) -> Components:
    """C++ version of :func:`components_reference`; releases the GIL."""
    assert kernels is not None
    packed = labels if labels[0].flags.c_contiguous else labels.copy()
    table = kernels.components(packed, -1 if background is None else background)
    classes, areas, left, top, right, bottom, sum_x, sum_y = table.T
    return Components(
        classes=classes,
        areas=areas,
        boxes=np.stack([left, top, right - left, bottom - top], axis=1),
        centroids=np.stack([sum_x, sum_y], axis=1) / areas[:, np.newaxis],
    )
