"""Confidence intervals, and whether two runs differ by more than chance.

Written out rather than taken from SciPy, which would be a dependency of 100 MB for a page of
code; the tests hold each function against it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.benchmark.document import EngineAccuracy
from edgeseg.metrics import Bootstrap, Counts, Interval
from edgeseg.options.benchmark import BenchConfig

Floats = NDArray[np.float64]


def bootstrap_of(config: BenchConfig) -> Bootstrap:
    """The bootstrap that a benchmark's configuration asks for."""
    return Bootstrap(config.resamples, config.confidence, config.seed)


def latency_intervals(
    blocks: Sequence[Floats], points: Sequence[float], plan: Bootstrap
) -> dict[str, Interval]:
    """Intervals of percentiles and of the mean by the block bootstrap.

    Calls that follow each other share a clock, a temperature and a cache, so they are no
    independent samples; blocks, between which other engines ran, nearly are. So whole blocks are
    drawn with replacement, as many as there are, and the figure is computed of all calls in them
    (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Künsch 1989
    for series).

    Args:
        blocks: Milliseconds of the calls of each block, (calls,).
        points: Percentages within 0…100, as :func:`edgeseg.stream.latency.percentiles` takes them.

    Returns:
        ``{"p50": (low, high), …, "mean": (low, high)}``; empty for fewer than two blocks,
        which are not comparable, and for no resamples.
    """
    if len(blocks) < 2 or plan.resamples == 0:
        return {}
    counts = plan.draw(len(blocks))
    lengths = np.array([len(block) for block in blocks])
    sums = np.array([block.sum() for block in blocks])
    found = {"mean": (counts @ sums) / (counts @ lengths)}
    resampled = _percentiles(blocks, counts, np.asarray(points, np.float64))
    found |= {f"p{point:g}": resampled[:, place] for place, point in enumerate(points)}
    return {name: plan.interval(values, len(blocks)) for name, values in found.items()}


def _percentiles(blocks: Sequence[Floats], counts: NDArray[np.int64], points: Floats) -> Floats:
    """(resamples, points): of all calls in the blocks drawn, without laying them side by side.

    All calls are sorted once; a block drawn twice gives its calls the weight 2, and the running
    sum of weights is the rank.
    """
    calls = np.concatenate(blocks)
    order = np.argsort(calls, kind="stable")
    calls = calls[order]
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    found = np.empty((len(counts), len(points)))
    for place, weights in enumerate(counts):
        ranks = np.cumsum(weights[owner])
        position = (ranks[-1] - 1) * points / 100
        below = np.floor(position)
        above = np.minimum(below + 1, ranks[-1] - 1)
        lower = calls[np.searchsorted(ranks, below, side="right")]
        upper = calls[np.searchsorted(ranks, above, side="right")]
        found[place] = lower + (upper - lower) * (position - below)
    return found


Samples = NDArray[np.float64]

_EXACT_UP_TO = 50
"""Samples a side for which the null distribution is counted out, where no two are equal."""


@dataclass(frozen=True)
class Estimate:
    """An estimate and the ends of its bootstrap interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


def mann_whitney(first: ArrayLike, second: ArrayLike) -> float:
    """The two-sided p-value of the Mann-Whitney U test: is one sample larger than the other?

    Exact where no two values are equal and neither side has more than fifty; otherwise by the
    normal approximation, corrected for ties and for continuity (Mann and Whitney 1947; Hollander,
    Wolfe and Chicken 2014, section 4.1).

    Args:
        first: (m,) at least one value.
        second: (n,) at least one value.

    Returns:
        Within 0…1; 1 where all values are equal.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    m, n = len(one), len(two)
    above = np.sign(one[:, np.newaxis] - two)
    u = float((above > 0).sum() + (above == 0).sum() / 2)
    largest = max(u, m * n - u)
    _, counts = np.unique(np.concatenate((one, two)), return_counts=True)
    if counts.max() == 1 and max(m, n) <= _EXACT_UP_TO:
        orders = orders_of_u(m, n)
        return min(1.0, 2 * sum(orders[round(largest) :]) / math.comb(m + n, m))
    both = m + n
    ties = float((counts**3 - counts).sum()) / (both * (both - 1))
    deviation = math.sqrt(m * n / 12 * (both + 1 - ties))
    if deviation == 0:
        return 1.0
    z = (largest - m * n / 2 - 0.5) / deviation
    return min(1.0, math.erfc(z / math.sqrt(2)))


@functools.lru_cache(maxsize=256)
def orders_of_u(m: int, n: int) -> tuple[int, ...]:
    """How many of the C(m+n, m) orders of m and n values have U = 0, 1 … m·n.

    They are the coefficients of the Gaussian binomial: the product over i = 1…m of
    (1 - x^(n+i)) / (1 - x^i). Python's integers, since they pass 64 bits from 34 a side on.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for power in range(m * n, n + i - 1, -1):
            counts[power] -= counts[power - n - i]
        for power in range(i, m * n + 1):
            counts[power] += counts[power - i]
    return tuple(counts)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple comparisons (Holm 1979).

    The smallest of k is multiplied by k, the next by k - 1 …; none falls below one before it.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def ratio_of_medians(before: ArrayLike, after: ArrayLike, plan: Bootstrap) -> Estimate:
    """median(after) / median(before) with its bootstrap interval.

    Both sides are drawn anew independently. What is drawn are whole blocks, each one value:
    calls of one block resemble each other and must not count as independent.

    Args:
        before: (m,) medians of the blocks, above 0, at least two.
        after: (n,) likewise.
    """
    one, two = np.asarray(before, np.float64), np.asarray(after, np.float64)
    other = replace(plan, seed=plan.seed + 1)
    drawn = _drawn_medians(two, other) / _drawn_medians(one, plan)
    interval = plan.interval(drawn, min(len(one), len(two)))
    return Estimate(float(np.median(two) / np.median(one)), *interval)


def _drawn_medians(values: Samples, plan: Bootstrap) -> Samples:
    counts = plan.draw(len(values))
    drawn = np.repeat(np.tile(values, len(counts)), counts.ravel()).reshape(counts.shape)
    return np.asarray(np.median(drawn, axis=1), np.float64)


def gain_in_mean_iou(before: Counts, after: Counts, plan: Bootstrap) -> tuple[Estimate, float]:
    """Mean IoU after less that before, on the same pictures: its interval, and a p-value.

    A paired bootstrap: pictures are drawn, and each draw scores both engines, so that a hard
    picture weighs on both. Both engines are exact functions of a picture, so the interval
    speaks of other pictures of the kind, not of another run. The p-value is twice the share of
    draws at or beyond zero on the other side (Efron and Tibshirani 1993, section 15.4), never
    below what the number of draws resolves.

    Args:
        before: Counts of the pictures, at least two.
        after: Those of the same pictures in the same order.
    """
    value = float(after.mean_iou()[0] - before.mean_iou()[0])
    weights = plan.draw(len(before))
    drawn = after.mean_iou(weights) - before.mean_iou(weights)
    drawn = drawn[~np.isnan(drawn)]  # A draw of unlabelled pictures alone has no mean IoU.
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    interval = plan.interval(drawn, len(before))
    return Estimate(value, *interval), min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))


def counts_of(entry: EngineAccuracy) -> Counts:
    """The counts of one engine's pictures."""
    shape = len(entry.pictures), len(entry.classes)
    hits = np.array([picture.hits for picture in entry.pictures], np.int64)
    unions = np.array([picture.unions for picture in entry.pictures], np.int64)
    return Counts(hits.reshape(shape), unions.reshape(shape))
