"""Segmentation metrics from a confusion matrix, for whole pictures or along borders.

Definitions of Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation" (CVPR 2015), section 5: with ``n[i, j]`` pixels of class ``i`` predicted as ``j``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError


class ConfusionMatrix:
    """Counts of pixels by true and predicted class, summed over pictures.

    Args:
        num_classes: Number of classes, 2…255.
        ignore: Value of pixels in the truth to exclude.
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        if not 2 <= num_classes <= 255:
            raise UsageError(f"a confusion matrix needs 2…255 classes, not {num_classes}")
        self.num_classes = num_classes
        self.ignore = ignore
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Add the pixels of one or more pictures.

        Args:
            truth: uint8, any shape, class ids or ``ignore``.
            prediction: uint8 of the same shape, class ids.

        Raises:
            UsageError: dtypes or shapes differ, or a counted pixel is not a class id.
        """
        if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise UsageError(f"label maps are uint8, not {truth.dtype} and {prediction.dtype}")
        if truth.shape != prediction.shape:
            raise UsageError(f"truth is {truth.shape}, prediction {prediction.shape}")
        counted = truth != self.ignore
        rows, columns = truth[counted], prediction[counted]
        for ids, what in ((rows, "truth"), (columns, "prediction")):
            if ids.size and ids.max() >= self.num_classes:
                raise UsageError(f"{what} holds {ids.max()}, expected ids 0…{self.num_classes - 1}")
        pairs = rows.astype(np.intp) * self.num_classes + columns
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        self.matrix += counts.reshape(self.matrix.shape)

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of counted pixels predicted correctly; nan if none were counted."""
        return _ratio(np.trace(self.matrix), self.matrix.sum())

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes that occur in the truth."""
        return _mean(_ratios(np.diag(self.matrix), self.matrix.sum(axis=1)))

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """Intersection over union, (num_classes,); nan for a class in neither truth nor prediction.

        Identical to the Jaccard index of each class.
        """
        hits = np.diag(self.matrix)
        union = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - hits
        return _ratios(hits, union)

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`per_class_iou` over the classes that occur; nan if none does."""
        return _mean(self.per_class_iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """:attr:`per_class_iou` weighted by how many pixels each class has in the truth."""
        frequency = self.matrix.sum(axis=1)
        weighted = frequency * np.nan_to_num(self.per_class_iou)
        return _ratio(weighted.sum(), frequency.sum())


def boundary_band(truth: NDArray[np.uint8], radius: int, ignore: int = 255) -> NDArray[np.uint8]:
    """Mask the truth so that only pixels within ``radius`` of a border are scored.

    A confusion matrix of the result measures accuracy in the "trimap" of Kohli, Ladicky and
    Torr, "Robust Higher Order Potentials for Enforcing Label Consistency" (IJCV 2009, section
    6.2), as the papers on FCN successors plot it over the radius. A border runs wherever the
    value changes, towards ignored pixels too: PASCAL VOC draws its borders as ignored lines.

    Args:
        truth: uint8 (H, W), class ids and ``ignore``.
        radius: Distance in pixels, at least 1, within which a kept pixel has one of another value.
        ignore: Value for the pixels outside the band.

    Returns:
        uint8 (H, W), a new array.

    Raises:
        UsageError: The radius is not a positive number of pixels.
    """
    if radius < 1:
        raise UsageError(f"a band around borders is at least 1 pixel wide, not {radius}")
    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, np.newaxis] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    uniform = cv2.dilate(truth, disc) == cv2.erode(truth, disc)
    return np.where(uniform, np.uint8(ignore), truth)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _ratios(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.float64]:
    undefined: NDArray[np.float64] = np.full(parts.shape, np.nan)
    np.divide(parts, wholes, out=undefined, where=wholes > 0)
    return undefined


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
