"""Confidence intervals of latencies by the block bootstrap.

Calls that follow each other share a clock, a temperature and a cache, so they are no
independent samples; blocks, between which other engines ran, nearly are. So whole blocks are
drawn with replacement, as many as there are, and the figure is computed of all calls in them
(Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Künsch 1989
for series).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.metrics import Bootstrap, Interval
from edgeseg.options.benchmark import BenchConfig

Floats = NDArray[np.float64]


def bootstrap_of(config: BenchConfig) -> Bootstrap:
    """The bootstrap that a benchmark's configuration asks for."""
    return Bootstrap(config.resamples, config.confidence, config.seed)


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
