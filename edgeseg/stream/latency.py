"""Measure the duration of pipeline stages and report latency percentiles."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

POINTS = (50, 90, 95, 99)
"""Default percentiles."""


def percentiles(samples_ms: ArrayLike, points: Sequence[float] = POINTS) -> dict[str, float]:
    """Percentiles of latencies.

    The p-th percentile interpolates linearly between the two nearest of the sorted samples
    (``numpy.percentile``'s method "linear", type 7 of Hyndman and Fan 1996): for n samples it
    lies at position ``(n - 1) * p / 100``.

    Args:
        samples_ms: Any shape, milliseconds.
        points: Percentages within 0…100.

    Returns:
        ``{"p50": …, "p99.9": …}`` in the order of ``points``, milliseconds.

    Raises:
        ValueError: There are no samples, or one of them is no finite number.
    """
    samples = np.asarray(samples_ms, np.float64).ravel()
    if samples.size == 0:
        raise ValueError("no samples to take percentiles of")
    if not np.isfinite(samples).all():
        raise ValueError("a sample is NaN or infinite")
    # numpy.percentile does the same, and takes 30 ms to import numpy.ma.
    places = np.asarray(points) / 100 * (samples.size - 1)
    values = np.interp(places, np.arange(samples.size), np.sort(samples))
    return {f"p{point:g}": float(value) for point, value in zip(points, values, strict=True)}


class StageClock:
    """Durations of the named stages of a loop, in bounded memory.

    Each stage keeps up to ``limit`` samples. Past that a new one replaces a random older one
    so that every frame so far had the same chance to be kept (Vitter 1985, algorithm R): the
    percentiles speak for the whole run, however long it was.

    Several threads may use one clock; one stage belongs to one thread.
    """

    def __init__(self, limit: int = 16_384) -> None:
        if limit < 1:
            raise ValueError(f"a clock keeps at least one sample, not {limit}")
        self._limit = limit
        self._stages: dict[str, _Reservoir] = {}

    def add(self, stage: str, milliseconds: float) -> None:
        """Add a duration."""
        found = self._stages.get(stage)
        if found is None:
            found = self._stages[stage] = _Reservoir(self._limit)
        found.add(milliseconds)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that have samples, in order of appearance."""
        return tuple(self._stages)

    def count(self, stage: str) -> int:
        """Number of durations recorded, including those no longer kept."""
        return self._stages[stage].seen if stage in self._stages else 0

    def samples(self, stage: str) -> NDArray[np.float64]:
        """Return the kept samples in milliseconds, float64 (n,), in order until any is replaced."""
        kept = self._stages[stage].kept if stage in self._stages else array("d")
        return np.array(kept, np.float64)

    def percentiles(self, stage: str, points: Sequence[float] = POINTS) -> dict[str, float]:
        """Compute :func:`percentiles` of a stage.

        Raises:
            ValueError: The stage has no samples.
        """
        if not self.count(stage):
            raise ValueError(f"no samples of the stage {stage!r}")
        return percentiles(self.samples(stage), points)


class _Reservoir:
    def __init__(self, limit: int) -> None:
        self.kept = array("d")
        self.seen = 0
        self._limit = limit
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        self.seen += 1
        if len(self.kept) < self._limit:
            self.kept.append(value)
            return
        place = self._random.randrange(self.seen)
        if place < self._limit:
            self.kept[place] = value
