"""Derive the quantisation range of a tensor from the histogram of its values.

A range serves two grids: 255 steps over all of it with 0 among them (uint8, ONNX Runtime), and
127 steps on each side of 0 (int8 with zero point 0, TensorRT). Behind a ReLU the second is half
as fine as the first.

All methods return ``(low, high)`` within the extremes; values outside the range are clipped.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from edgeseg.options.building import Method
from edgeseg.precision.histograms import Extremes, Histogram

METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 99.999
"""Percentage of the values that ``percentile`` keeps within the range."""

LEVELS = 128
"""Steps of int8 on one side of zero, into which ``entropy`` sorts the bins."""

_EDGES = 256
"""Edges that ``mse`` tries on each side of zero, 3.3 % apart."""


def bounds(method: Method, values: Extremes) -> tuple[float, float]:
    """Compute a tensor's range by ``method``; all methods but ``minmax`` need a histogram."""
    if method == "minmax":
        return minmax(values)
    if not isinstance(values, Histogram):
        raise TypeError(f"{method} needs a histogram")
    return {"percentile": percentile, "entropy": entropy, "mse": mse}[method](values)


def minmax(extremes: Extremes) -> tuple[float, float]:
    """The range between the extremes."""
    return extremes.low, extremes.high


def percentile(histogram: Histogram, share: float = PERCENTILE) -> tuple[float, float]:
    """The range that holds the central ``share`` % of the values.

    At most half of the rest is cut at each end, since the bounds are outer edges of bins.
    """
    counts = histogram.counts
    total = np.cumsum(counts)
    cut = total[-1] * (1 - share / 100) / 2
    first = int(np.searchsorted(total, cut, side="right"))
    last = int(np.searchsorted(total, total[-1] - cut, side="left"))
    middle = len(counts) // 2
    width = histogram.width
    return histogram.clip((first - middle) * width, (last + 1 - middle) * width)


def entropy(histogram: Histogram) -> tuple[float, float]:
    """The symmetric range whose quantisation changes the distribution least.

    For each threshold the magnitudes below it are sorted into 128 levels, and Kullback and
    Leibler's divergence from the true distribution, its outliers put into the last bin, is
    taken (Migacz, "8-bit inference with TensorRT", GTC 2017). Zeros are on every grid and say
    nothing of the threshold, so they are left out, as NVIDIA's tools leave out the first bin.
    """
    below, above = histogram.sides()
    magnitudes = (below + above).astype(np.float64)
    magnitudes[0] -= histogram.zeros
    used = int(np.flatnonzero(magnitudes)[-1]) + 1 if magnitudes.any() else 0
    if used <= LEVELS:
        return minmax(histogram)
    divergences = kl_divergences(magnitudes[:used], LEVELS)
    # Choose the widest of equally good thresholds.
    best = used - int(np.argmin(divergences[::-1]))
    return histogram.clip(-best * histogram.width, best * histogram.width)


def kl_divergences(counts: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Divergence, in nats, of a histogram from itself cut at ``levels``, …, ``len(counts)`` bins.

    The divergence is infinite if the last bin of a cut is empty and values lie beyond it.

    Args:
        counts: float64 (bins,), with more bins than ``levels``.

    Returns:
        float64 (bins - levels + 1,).
    """
    cuts = np.arange(levels, len(counts) + 1)
    # Level j of a cut at i bins holds the bins from ceil(j·i / levels) on.
    edges = -(-np.arange(levels + 1) * cuts[:, None] // levels)
    inside, filled, information = (
        np.concatenate([[0], np.cumsum(each)]) for each in (counts, counts > 0, _x_log_x(counts))
    )
    mass = np.diff(inside[edges], axis=1)
    bins = np.diff(filled[edges], axis=1)
    total, kept = inside[-1], inside[cuts]
    last = counts[cuts - 1]
    outliers = total - kept
    with np.errstate(divide="ignore", invalid="ignore"):
        log_level = np.log(mass / bins / kept[:, None])
        explained = np.where(mass > 0, mass * log_level, 0).sum(axis=1)
        explained += np.where(outliers > 0, outliers * log_level[:, -1], 0)
    own = information[cuts] - _x_log_x(last) + _x_log_x(last + outliers)
    divergence = (own - explained) / total - np.log(total)
    return np.where((last == 0) & (outliers > 0), np.inf, divergence)


def mse(histogram: Histogram) -> tuple[float, float]:
    """The range with the least expected squared error, averaged over both grids.

    The expected squared error is a twelfth of a squared step within the range, the squared
    distance outside it, and 0 for exact zeros.
    """
    below, above = (side.astype(np.float64) for side in histogram.sides())
    above[0] -= histogram.zeros
    lows, highs = _edges(below), _edges(above)
    clipped = _clipped(below, lows)[:, None] + _clipped(above, highs)
    within = _within(below, lows)[:, None] + _within(above, highs)
    # In bins; uint8 has 255 steps over the range, int8 127 up to the larger bound.
    asymmetric = (lows[:, None] + highs) / 255
    symmetric = np.maximum(lows[:, None], highs) / 127
    error = clipped + within * (asymmetric**2 + symmetric**2) / 24
    low, high = np.unravel_index(int(np.argmin(error)), error.shape)
    width = histogram.width
    return histogram.clip(-float(lows[low]) * width, float(highs[high]) * width)


def _edges(side: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bounds to try on one side of zero, in bins, starting at the outermost used bin."""
    used = int(np.flatnonzero(side)[-1]) + 1 if side.any() else 0
    spaced = used / np.geomspace(1, max(used, 1), _EDGES)
    return np.unique(np.ceil(spaced).astype(np.int64))


def _clipped(side: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of squared distances, in bins, of all values beyond each edge, taken mid-bin."""
    centre = np.arange(len(side)) + 0.5
    zeroth, first, second = (
        np.concatenate([np.cumsum((side * centre**power)[::-1])[::-1], [0]])[edges]
        for power in range(3)
    )
    return np.asarray(second - 2 * edges * first + edges**2 * zeroth, np.float64)


def _within(side: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.concatenate([[0], np.cumsum(side)])[edges], np.float64)


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values * np.log(np.where(values > 0, values, 1)), np.float64)
