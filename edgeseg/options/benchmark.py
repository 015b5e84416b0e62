"""Options of a benchmark, and of the comparison of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.documents import Document
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options

Metric = Literal["latency", "mean_iou", "memory", "size"]


@dataclass(frozen=True)
class BenchConfig(Options):
    """How long and how strictly to measure.

    Attributes:
        rounds: Blocks per engine; their spread shows how far to trust the figures.
        min_block_seconds: A block is never shorter, so that a scheduler tick cannot rule it.
        warm_up_seconds: Give up waiting for a stable median after this.
        stable_within: Stable when medians of two consecutive windows of five calls differ by
            less than this fraction.
        max_other_load: Drop blocks in which other processes used more than this many cores.
        max_spread: Call a run noisy when the quartiles of its block medians lie further apart
            than this fraction of the median.
        cold_starts: Fresh processes per engine; 0 skips start-up and memory.
        pictures: Largest number of different pictures, used in turn.
        sequence_frames: Largest number of frames of a sequence on which flicker is measured.
        threads: Threads of engines whose row states no other number; None for the default.
        seed: Fixes the order of the engines and the bootstrap.
        confidence: Confidence level of the intervals, a fraction of 1.
        resamples: Number of bootstrap resamples; 0 skips the intervals.
        idle_seconds: Time for which energy sensors, if any, are read at rest.
    """

    seconds: Annotated[float, Field(gt=0), Option("Measuring time per row, in seconds.")] = 5.0
    rounds: int = 12
    min_block_seconds: float = 0.15
    warm_up_seconds: float = 5.0
    stable_within: float = 0.05
    max_other_load: float = 0.12
    max_spread: float = 0.10
    cold_starts: int = 3
    pictures: int = 16
    sequence_frames: int = 300
    threads: int | None = None
    seed: int = 0
    confidence: float = 0.95
    resamples: int = 1000
    idle_seconds: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.seconds > 0 and self.rounds >= 1 and self.pictures >= 1):
            raise UsageError(
                "a benchmark needs seconds > 0, rounds >= 1 and pictures >= 1, "
                f"not {self.seconds:g}, {self.rounds} and {self.pictures}"
            )
        if not (0 < self.confidence < 1 and self.resamples >= 0):
            raise UsageError(
                "an interval needs a confidence between 0 and 1 and resamples >= 0, "
                f"not {self.confidence:g} and {self.resamples}"
            )

    @property
    def block_seconds(self) -> float:
        """Length of one block."""
        return max(self.min_block_seconds, self.seconds / self.rounds)


class CompareConfig(Document):
    """When a difference counts.

    Attributes:
        level: Chance of flagging any row of two runs that do not differ, of latency and of
            accuracy each; the intervals hold 1 - ``level``.
        latency: Ratios nearer to 1 than this are the same.
        accuracy: Differences of mean IoU below this are the same, a fraction of 1.
        memory: Like ``latency``, for peak resident memory.
        size: Like ``latency``, for the size of the engine's file.
        resamples: Number of resamples of each bootstrap.
        seed: Seed of the bootstrap.
    """

    level: float = 0.05
    latency: float = 0.02
    accuracy: float = 0.001
    memory: float = 0.05
    size: float = 0.01
    resamples: int = 4000
    seed: int = 0

    def threshold(self, metric: Metric) -> float:
        """Where a difference of this kind begins to matter."""
        of = {"latency": self.latency, "mean_iou": self.accuracy, "memory": self.memory}
        return of.get(metric, self.size)

    def check(self) -> None:
        """Raise UsageError where a value is out of its range."""
        thresholds = (self.latency, self.accuracy, self.memory, self.size)
        if not (0 < self.level < 1 and min(thresholds) >= 0 and self.resamples >= 100):
            raise UsageError(
                "a comparison needs a level between 0 and 1, thresholds >= 0 and at least "
                f"100 resamples, not {self.level:g}, {min(thresholds):g} and {self.resamples}"
            )
