"""Timing engines against each other: warm-up, interleaved blocks, and the load beside them.

Drift of clock speed and temperature would favour whichever engine ran at the better moment.
So each round gives every engine one block of calls, in a random order that the seed fixes; a
block during which other processes used the processor can then be told and left out.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.bench.document import BenchConfig
from edgeseg.console import Track, silent
from edgeseg.engines.base import Engine
from edgeseg.ops.preprocess import preprocess, restore_labels

STAGES = ("preprocess", "infer", "restore")

Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Block:
    """Consecutive calls of one engine: float64 (calls, stages) ms, and the load beside them."""

    stages_ms: NDArray[np.float64]
    other_cores: float

    @property
    def median_ms(self) -> float:
        """Median of a call, end to end."""
        return float(np.median(self.stages_ms.sum(axis=1)))


@dataclass
class Timing:
    """What was measured of one engine so far."""

    engine: Engine
    stable: bool
    blocks: list[Block] = field(default_factory=list)


def time_engines(
    engines: Sequence[Engine], images: Images, config: BenchConfig, track: Track = silent
) -> list[Timing]:
    """Warm up, then interleave blocks of all engines in random order, round by round."""
    timings = [
        Timing(engine, warm_up(engine, images, config))
        for engine in track(engines, "Warming up", len(engines))
    ]
    interleave(timings, images, config, track)
    return timings


def interleave(
    timings: Sequence[Timing], images: Images, config: BenchConfig, track: Track = silent
) -> None:
    """Add to each of ``timings`` one block a round, in an order that the seed fixes."""
    order = random.Random(config.seed)
    for _ in track(range(config.rounds), "Measuring", config.rounds):
        for timing in order.sample(timings, len(timings)):
            timing.blocks.append(measure_block(timing.engine, images, config.block_seconds))


def warm_up(engine: Engine, images: Images, config: BenchConfig, window: int = 5) -> bool:
    """Run until the median of a window of calls stands still; False where it never did."""
    deadline = time.perf_counter() + config.warm_up_seconds
    calls = timed_calls(engine, images)
    before = 0.0
    while time.perf_counter() < deadline:
        now = statistics.median(sum(next(calls)) for _ in range(window))
        if abs(now - before) <= config.stable_within * now:
            return True
        before = now
    return False


def measure_block(engine: Engine, images: Images, seconds: float) -> Block:
    """Calls of one engine for ``seconds``, three at least.

    The first call after another engine ran pays for cold caches and is not counted.
    """
    calls = timed_calls(engine, images)
    next(calls)
    meter = OtherLoad()
    deadline = time.perf_counter() + seconds
    samples = list(itertools.islice(calls, 3))
    while time.perf_counter() < deadline:
        samples.append(next(calls))
    return Block(np.array(samples, np.float64), meter.cores())


def timed_calls(engine: Engine, images: Images) -> Iterator[tuple[float, ...]]:
    """For ever: ms of each stage of one call, the pictures in turn."""
    spec, batch = engine.card.input, engine.batch or 1
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


class OtherLoad:
    """How much of the processor others used since this was made (``/proc/stat``)."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._busy = busy_seconds(machine.read_text(stat))
        self._own = time.process_time()
        self._began = time.perf_counter()

    def cores(self) -> float:
        """Mean number of cores that other processes, or other guests of the host, kept busy."""
        busy = busy_seconds(machine.read_text(self._stat)) - self._busy
        own = time.process_time() - self._own
        elapsed = time.perf_counter() - self._began
        return max(0.0, (busy - own) / elapsed) if elapsed > 0 else 0.0


def busy_seconds(stat: str) -> float:
    """Seconds all cores together were busy since the machine started, stolen time included.

    Args:
        stat: The text of ``/proc/stat`` (proc(5)); 0 where it is empty.
    """
    fields = [int(value) for value in (stat.splitlines() or [""])[0].split()[1:]]
    if len(fields) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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
