"""Timing engines against each other: warm-up, interleaved blocks, and the load beside them.

Drift of clock speed and temperature would favour whichever engine ran at the better moment.
So each round gives every engine one block of calls, in a random order that the seed fixes; a
block during which other processes used the processor can then be detected and left out.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeseg.benchmark.cases import Case
from edgeseg.benchmark.conditions import OtherLoad
from edgeseg.benchmark.energy import Meter, no_meter
from edgeseg.console import Track, silent
from edgeseg.ops.preprocess import preprocess, restore_labels
from edgeseg.options.benchmark import BenchConfig

STAGES = ("preprocess", "infer", "restore")

Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Block:
    """Consecutive calls of one engine, and what went on beside them.

    Attributes:
        stages_ms: float64 (calls, stages).
        other_cores: Mean number of cores kept busy by other processes.
        joules: Energy measured by each sensor of the meter.
        seconds: Time between the two readings of the meter, each counted at its end.
    """

    stages_ms: NDArray[np.float64]
    other_cores: float
    joules: tuple[float, ...] = ()
    seconds: float = 0.0

    @property
    def calls_ms(self) -> NDArray[np.float64]:
        """(calls,): end to end."""
        calls: NDArray[np.float64] = self.stages_ms.sum(axis=1)
        return calls

    @property
    def median_ms(self) -> float:
        """Median of a call, end to end."""
        return float(np.median(self.calls_ms))


@dataclass
class Timing:
    """The blocks of one case measured so far."""

    case: Case
    stable: bool
    blocks: list[Block] = field(default_factory=list)


def interleave(
    timings: Sequence[Timing],
    images: Images,
    config: BenchConfig,
    track: Track = silent,
    meter: Meter = no_meter,
) -> None:
    """Add to each of ``timings`` one block a round, in an order that the seed fixes.

    What an interruption leaves are whole blocks; the one it fell into is lost.
    """
    order = random.Random(config.seed)
    for _ in track(range(config.rounds), "Measuring", config.rounds):
        for timing in order.sample(timings, len(timings)):
            block = measure_block(timing.case, images, config.block_seconds, meter)
            timing.blocks.append(block)


def warm_up(case: Case, images: Images, config: BenchConfig, window: int = 5) -> bool:
    """Run until the median of a window of calls stands still; False where it never did."""
    deadline = time.perf_counter() + config.warm_up_seconds
    calls = timed_calls(case, images)
    before = 0.0
    while time.perf_counter() < deadline:
        now = statistics.median(sum(next(calls)) for _ in range(window))
        if abs(now - before) <= config.stable_within * now:
            return True
        before = now
    return False


def measure_block(case: Case, images: Images, seconds: float, meter: Meter = no_meter) -> Block:
    """Calls of one engine for ``seconds``, three at least.

    The first call after another engine ran pays for cold caches and is not counted.
    """
    calls = timed_calls(case, images)
    next(calls)
    load = OtherLoad()
    energy = meter()
    began = time.perf_counter()
    samples = list(itertools.islice(calls, 3))
    while time.perf_counter() < began + seconds:
        samples.append(next(calls))
    joules = tuple(after - before for before, after in zip(energy, meter(), strict=True))
    elapsed = time.perf_counter() - began
    return Block(np.array(samples, np.float64), load.cores(), joules, elapsed)


def timed_calls(case: Case, images: Images) -> Iterator[tuple[float, ...]]:
    """For ever: ms of each stage of one call, the pictures in turn."""
    engine, batch = case.engine, case.batch
    spec = engine.card.input
    tensor = np.empty((batch, *spec.shape), np.float32)
    turn = itertools.cycle(images)
    while True:
        pictures = list(itertools.islice(turn, batch))
        began = time.perf_counter_ns()
        for place, picture in enumerate(pictures):
            preprocess(picture, spec, out=tensor[place])
        prepared = time.perf_counter_ns()
        labels = engine.infer(tensor)
        inferred = time.perf_counter_ns()
        for label_map, picture in zip(labels, pictures, strict=True):
            restore_labels(label_map, picture.shape[:2], spec)
        restored = time.perf_counter_ns()
        yield (prepared - began) / 1e6, (inferred - prepared) / 1e6, (restored - inferred) / 1e6


def quiet_blocks(blocks: Sequence[Block], limit: float) -> list[Block]:
    """The blocks during which others used at most ``limit`` cores; all if those are too few.

    Keeping a minority would choose the lucky moments of a busy machine.
    """
    quiet = [block for block in blocks if block.other_cores <= limit]
    return quiet if 2 * len(quiet) >= len(blocks) else list(blocks)


def spread_of(blocks: Sequence[Block]) -> float:
    """Distance of the quartiles of the block medians, as a fraction of their median."""
    low, middle, high = np.percentile([block.median_ms for block in blocks], (25, 50, 75))
    return float((high - low) / middle)
