"""Latency and accuracy of engines, side by side on one machine.

Method: every engine is warmed up until its median stands still; then rounds, in each of which
every engine has one block of calls, in a random order that the seed fixes. So drift of clock
speed and temperature hits all engines alike. A block in which other processes used the
processor is dropped. A call is preprocess → infer → restore to the picture's own size, timed
at each boundary, so the stages add up to the whole. Start-up and memory are measured in fresh
processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import machine, sidecar
from edgeseg.bench import coldstart
from edgeseg.bench.document import BenchConfig, BenchReport, Run
from edgeseg.bench.timing import (
    STAGES,
    Images,
    Timing,
    quiet_blocks,
    spread_of,
    time_engines,
)
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.evaluation import agreement, evaluate
from edgeseg.latency import percentiles

POINTS = (50, 90, 95, 99)


@dataclass(frozen=True)
class Unavailable:
    """An artefact that is listed though it cannot run on this machine, and why not."""

    path: Path
    reason: str


def bench(
    engines: Sequence[Engine],
    *,
    data: Split | None = None,
    images: Images = (),
    unavailable: Sequence[Unavailable] = (),
    config: BenchConfig | None = None,
    track: Track = silent,
) -> BenchReport:
    """Measure ``engines`` against each other.

    Args:
        engines: Open engines; the first of precision FP32 is the reference for the others.
        data: Labelled pictures, for mean IoU; also the pictures timed where ``images`` is empty.
        images: uint8 (H, W, 3) BGR or (H, W) grey, to time with.
        unavailable: Artefacts to list that cannot run here.
        config: How long and how strictly.
        track: Shows progress.

    Raises:
        UsageError: No engine at all, or no picture to time with.
        EdgesegError: As the engines and the readers of ``data`` do.
    """
    config = config or BenchConfig()
    if not engines and not unavailable:
        raise UsageError("nothing to measure: no engine given", mend="name an artefact to measure")
    images = list(images[: config.pictures]) or _pictures_of(data, config.pictures)
    if engines and not images:
        raise UsageError("no picture to time with", mend="give labelled data or pictures")
    described = machine.describe()
    timings = time_engines(engines, images, config, track)
    reference = next((engine for engine in engines if engine.card.precision == "fp32"), None)
    accuracy = _accuracy(engines, reference, data, images, track)
    starts = _cold_starts(engines, config, track)
    runs = [
        summary_row(timing, measured, start, config)
        for timing, measured, start in zip(timings, accuracy, starts, strict=True)
    ]
    return BenchReport(
        machine=described,
        config=config,
        runs=(*_with_speedup(runs, engines, reference), *map(_listed, unavailable)),
        notes=tuple(doubts(timings, runs, starts, reference, config)),
        reference=None if reference is None else str(reference.path),
        pictures=len(images),
        labelled=0 if data is None else len(data),
    )


@dataclass(frozen=True)
class Accuracy:
    """Fractions of 1, None where there is nothing to compare with."""

    mean_iou: float | None = None
    drop: float | None = None
    pixel_agreement: float | None = None


def _accuracy(
    engines: Sequence[Engine],
    reference: Engine | None,
    data: Split | None,
    images: Images,
    track: Track,
) -> list[Accuracy]:
    """Mean IoU where there are labels, and likeness to the FP32 engine where there is one.

    The reference itself has drop 0 and agreement 1 by definition.
    """
    scores: dict[int, float] = {}
    if data is not None and len(data):
        scores = {id(engine): evaluate(engine, data, track).mean_iou for engine in engines}
    found = []
    for engine in engines:
        score = scores.get(id(engine))
        drop = alike = None
        if reference is not None:
            if score is not None:
                drop = scores[id(reference)] - score
            if engine is reference:
                alike = 1.0
            elif engine.card.input == reference.card.input:
                alike = agreement(reference, engine, images)
        found.append(Accuracy(score, drop, alike))
    return found


def _cold_starts(
    engines: Sequence[Engine], config: BenchConfig, track: Track
) -> list[coldstart.ColdStart | str | None]:
    """Medians of fresh processes, taken in turns; the reason where one failed."""
    starts: list[list[coldstart.ColdStart | str]] = [[] for _ in engines]
    for _ in track(range(config.cold_starts), "Starting afresh", config.cold_starts):
        for engine, found in zip(engines, starts, strict=True):
            found.append(coldstart.measure(engine.path, threads=config.threads))
    return [_median_or_reason(found) for found in starts]


def _median_or_reason(
    found: list[coldstart.ColdStart | str],
) -> coldstart.ColdStart | str | None:
    good = [start for start in found if isinstance(start, coldstart.ColdStart)]
    if len(good) == len(found):
        return coldstart.medians(good) if good else None
    return next(start for start in found if isinstance(start, str))


def noise_frames(count: int = 4) -> list[NDArray[np.uint8]]:
    """1280×720 BGR noise, to time with where there are no pictures; latency is the same."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (720, 1280, 3), np.uint8) for _ in range(count)]


def _pictures_of(data: Split | None, count: int) -> list[NDArray[np.uint8]]:
    return [load_image(sample.image) for sample in data.samples[:count]] if data else []


def summary_row(
    timing: Timing,
    accuracy: Accuracy,
    start: coldstart.ColdStart | str | None,
    config: BenchConfig,
) -> Run:
    """The row of an engine that ran."""
    engine, blocks = timing.engine, quiet_blocks(timing.blocks, config.max_other_load)
    stages = np.concatenate([block.stages_ms for block in blocks])
    calls = stages.sum(axis=1)
    batch = engine.batch or 1
    origin = sidecar.read(engine.path)
    precise = origin.precision if origin else None
    started = start if isinstance(start, coldstart.ColdStart) else None
    return Run(
        engine=str(engine.path),
        name=engine.card.name,
        runtime=engine.runtime,
        runtime_version=machine.versions((engine.runtime,)).get(engine.runtime),
        precision=engine.card.precision,
        computes_in=engine.computes_in,
        bytes=engine.path.stat().st_size if engine.path.is_file() else 0,
        batch=batch,
        low_precision_share=precise.low_precision_share if precise else None,
        gate=origin.gate if origin else None,
        latency_ms=summarise(calls),
        stages_ms={name: summarise(stages[:, place]) for place, name in enumerate(STAGES)},
        throughput_fps=round(batch * len(calls) / (float(calls.sum()) / 1e3), 2),
        mean_iou=accuracy.mean_iou,
        drop=accuracy.drop,
        pixel_agreement=accuracy.pixel_agreement,
        cold_start_ms=started.milliseconds() if started else None,
        peak_rss_mib=started.peak_rss_mib if started else None,
        calls=len(calls),
        blocks=len(blocks),
        blocks_dropped=len(timing.blocks) - len(blocks),
        spread=round(spread_of(blocks), 4),
        latency_quantiles_ms=tuple(round(float(q), 4) for q in np.percentile(calls, range(101))),
    )


def summarise(samples_ms: NDArray[np.float64]) -> dict[str, float]:
    """p50, p90, p95, p99, mean and max in ms, to a tenth of a microsecond."""
    points = percentiles(samples_ms, POINTS)
    whole = points | {"mean": float(samples_ms.mean()), "max": float(samples_ms.max())}
    return {key: round(float(value), 4) for key, value in whole.items()}


def _with_speedup(
    runs: Sequence[Run], engines: Sequence[Engine], reference: Engine | None
) -> list[Run]:
    if reference is None:
        return list(runs)
    base = runs[engines.index(reference)].latency_ms or {}
    return [
        run.model_copy(update={"speedup": round(base["p50"] / run.latency_ms["p50"], 3)})
        if run.latency_ms
        else run
        for run in runs
    ]


def _listed(entry: Unavailable) -> Run:
    """The row of an artefact that cannot run here, from its side-car."""
    origin = sidecar.read(entry.path)
    precise = origin.precision if origin else None
    return Run(
        engine=str(entry.path),
        name=origin.card.name if origin else entry.path.name,
        runtime=origin.runtime if origin else "unknown",
        runtime_version=origin.runtime_version if origin else None,
        precision=origin.card.precision if origin else "unknown",
        bytes=entry.path.stat().st_size if entry.path.is_file() else 0,
        runs_here=False,
        reason=entry.reason,
        low_precision_share=precise.low_precision_share if precise else None,
        gate=origin.gate if origin else None,
    )


def doubts(
    timings: Sequence[Timing],
    runs: Sequence[Run],
    starts: Sequence[coldstart.ColdStart | str | None],
    reference: Engine | None,
    config: BenchConfig,
) -> Iterator[str]:
    """What a reader must know before trusting the figures: a sentence a kind, engines named."""
    if timings and reference is None:
        yield "No FP32 engine was measured, so there is no drop, agreement or speed-up to state."
    rows = [(Path(run.engine).name, timing, run) for timing, run in zip(timings, runs, strict=True)]
    kept = [(name, _loud(t, config), r) for name, t, r in rows if not r.blocks_dropped]
    findings = {
        f"No stable median within {config.warm_up_seconds:g} s of warm-up": [
            name for name, timing, _ in rows if not timing.stable
        ],
        f"Blocks dropped, others used more than {config.max_other_load:.0%} of a core": [
            f"{name} ({run.blocks_dropped} of {run.blocks + run.blocks_dropped})"
            for name, _, run in rows
            if run.blocks_dropped
        ],
        f"Noisy: other processes used more than {config.max_other_load:.0%} of a core in most "
        "blocks, which were all kept": [
            f"{name} ({loud} of {run.blocks})" for name, loud, run in kept if loud
        ],
        f"Noisy: the block medians spread over more than {config.max_spread:.0%}": [
            f"{name} ({run.spread:.0%})"
            for name, _, run in rows
            if run.spread is not None and run.spread > config.max_spread
        ],
        "Fewer than 100 calls, too few for a 99th percentile": [
            f"{name} ({run.calls})" for name, _, run in rows if run.calls < 100
        ],
        "Start-up and memory not measured": [
            f"{name} ({start})"
            for (name, _, _), start in zip(rows, starts, strict=True)
            if isinstance(start, str)
        ],
    }
    yield from (f"{finding}: {', '.join(names)}." for finding, names in findings.items() if names)


def _loud(timing: Timing, config: BenchConfig) -> int:
    return sum(block.other_cores > config.max_other_load for block in timing.blocks)
