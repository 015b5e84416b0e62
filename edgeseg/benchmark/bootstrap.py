"""Confidence intervals by the block bootstrap.

Calls that follow each other share a clock, a temperature and a cache, so they are no
independent samples; blocks, between which other engines ran, nearly are. So whole blocks are
drawn with replacement, as many as there are, and the figure is computed of all calls in them
(Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Künsch 1989
for series). Its quantiles over the resamples are the interval. Few blocks make that too narrow;
it is widened to Student's t as Hesterberg gives it ("What Teachers Should Know About the
Bootstrap", The American Statistician 69, 2015, section 5.3: the expanded percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeseg.benchmark.document import BenchConfig, Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """How often to resample, the confidence as a fraction of 1, and the seed of the draws."""

    resamples: int
    confidence: float
    seed: int

    @classmethod
    def of(cls, config: BenchConfig) -> Bootstrap:
        """Create the bootstrap from a benchmark's configuration."""
        return cls(config.resamples, config.confidence, config.seed)

    def draw(self, units: int) -> NDArray[np.int64]:
        """(resamples, units): how often each unit was drawn; every row adds up to ``units``."""
        generator = np.random.default_rng(self.seed)
        even = np.full(units, 1 / units)
        return generator.multinomial(units, even, size=self.resamples)

    def interval(self, values: Floats, units: int) -> Interval:
        """The expanded percentile interval.

        Args:
            values: (resamples,), a figure of each resample.
            units: Blocks or pictures that were drawn from, at least 2.
        """
        quantile = student_t_quantile((1 + self.confidence) / 2, units - 1)
        tail = NormalDist().cdf(-math.sqrt(units / (units - 1)) * quantile)
        low, high = np.quantile(values, (tail, 1 - tail))
        return float(low), float(high)


def latency_intervals(
    blocks: Sequence[Floats], points: Sequence[float], plan: Bootstrap
) -> dict[str, Interval]:
    """Intervals of percentiles and of the mean.

    Args:
        blocks: Milliseconds of the calls of each block, (calls,).
        points: Percentages within 0…100, as :func:`edgeseg.stream.latency.percentiles` takes them.
        plan: Parameters of the bootstrap.

    Returns:
        ``{"p50": (low, high), …, "mean": (low, high)}``; empty for fewer than two blocks,
        which say nothing of each other, and for no resamples.
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
