"""Segmentation metrics from a confusion matrix, and how far pictures by chance decide them.

Definitions of Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation" (CVPR 2015), section 5: with ``n[i, j]`` pixels of class ``i`` predicted as ``j``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError

Interval = tuple[float, float]
"""Lower and upper end."""


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
    def hits(self) -> NDArray[np.int64]:
        """Pixels of each class that were predicted as such, (num_classes,)."""
        return np.diag(self.matrix)

    @property
    def unions(self) -> NDArray[np.int64]:
        """Pixels of each class in the truth or in the prediction, (num_classes,)."""
        either: NDArray[np.int64] = self.matrix.sum(axis=0) + self.matrix.sum(axis=1)
        return either - self.hits

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
        return _ratios(self.hits, self.unions)

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


@dataclass(frozen=True)
class Counts:
    """Pixel counts that each picture adds to IoU: int64 (pictures, classes).

    IoU of a class over some pictures is the sum of its ``hits`` over that of its ``unions``, so
    any resample of pictures is scored exactly.
    """

    hits: NDArray[np.int64]
    unions: NDArray[np.int64]

    @classmethod
    def of(cls, pictures: Iterable[ConfusionMatrix]) -> Counts:
        """Counts of at least one picture's confusion matrix each."""
        found = [(picture.hits, picture.unions) for picture in pictures]
        hits, unions = zip(*found, strict=True)
        return cls(np.array(hits), np.array(unions))

    def __len__(self) -> int:
        return len(self.hits)

    def iou(self, weights: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """IoU (draws, classes) with pictures repeated by ``weights`` (draws, pictures).

        Each picture counts once by default. A class that does not occur is nan.
        """
        if weights is None:
            weights = np.ones((1, len(self)), np.int64)
        return _ratios(weights @ self.hits, weights @ self.unions)

    def mean_iou(self, weights: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Mean IoU (draws,) over the classes that occur; nan where none does."""
        ious = self.iou(weights)
        occurs = ~np.isnan(ious)
        means: NDArray[np.float64] = np.full(len(ious), np.nan)
        np.divide(np.nan_to_num(ious).sum(1), occurs.sum(1), out=means, where=occurs.any(1))
        return means


@dataclass(frozen=True)
class Bootstrap:
    """Confidence intervals of a figure, by drawing its units with replacement.

    Units are independent of each other: pictures, or blocks of calls. As many are drawn as there
    are, and quantiles of the figure over the resamples are the interval. Few units make that too
    narrow; it is widened to Student's t as Hesterberg gives it ("What Teachers Should Know About
    the Bootstrap", The American Statistician 69, 2015, section 5.3: the expanded percentile
    interval). The same draws score two engines in a paired comparison, so that a hard picture
    weighs on both.

    Attributes:
        confidence: Share of the draws within the interval before it is widened, a fraction of 1.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def draw(self, units: int) -> NDArray[np.int64]:
        """(resamples, units): how often each unit was drawn; every row adds up to ``units``."""
        generator = np.random.default_rng(self.seed)
        even = np.full(units, 1 / units)
        return generator.multinomial(units, even, size=self.resamples)

    def interval(self, values: NDArray[np.float64], units: int) -> Interval:
        """The expanded percentile interval.

        Args:
            values: (resamples,), the figure of each resample.
            units: Blocks or pictures that were drawn from, at least 2.
        """
        quantile = student_t_quantile((1 + self.confidence) / 2, units - 1)
        tail = NormalDist().cdf(-math.sqrt(units / (units - 1)) * quantile)
        low, high = np.quantile(values, (tail, 1 - tail))
        return float(low), float(high)


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


def student_t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, by bisection; ``probability`` within 0.5…1."""
    low, high = 0.0, 1.0
    while _student_t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if _student_t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_t_cdf(t: float, freedom: int) -> float:
    """Student's CDF at t ≥ 0, integer degrees of freedom (Abramowitz and Stegun, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + odd, freedom - 1, 2):
        term *= (step - 1) / step * square
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + inside) / 2


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _ratios(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.float64]:
    undefined: NDArray[np.float64] = np.full(parts.shape, np.nan)
    np.divide(parts, wholes, out=undefined, where=wholes > 0)
    return undefined


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
