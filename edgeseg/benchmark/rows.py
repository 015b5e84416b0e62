"""Turn the blocks and scores of an engine into its row, and say how far to trust the figures.

A run is noisy when something disturbed its timing: other processes, a host that took the processor
away, a clock that changed, heat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.artifacts import sidecar
from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import plural
from edgeseg.benchmark.accuracy import Accuracy
from edgeseg.benchmark.cases import Unavailable
from edgeseg.benchmark.coldstart import ColdStart
from edgeseg.benchmark.conditions import Conditions, During
from edgeseg.benchmark.document import BlockSeries, NetworkSummary, Run
from edgeseg.benchmark.significance import bootstrap_of, latency_intervals
from edgeseg.benchmark.timing import STAGES, Block, Timing, quiet_blocks, spread_of
from edgeseg.metrics import Bootstrap, Interval
from edgeseg.options.benchmark import BenchConfig
from edgeseg.stream.latency import percentiles

POINTS = (50, 90, 95, 99)


@dataclass(frozen=True)
class Measured:
    """All measurements of one case.

    Attributes:
        timing: Timing with at least one block.
        start: Start of a fresh process; the reason if it failed, None if not tried.
        idle_w: Sum of all energy sensors at rest, in watts.
    """

    timing: Timing
    accuracy: Accuracy = field(default_factory=Accuracy)
    start: ColdStart | str | None = None
    idle_w: float | None = None


def row(measured: Measured, config: BenchConfig) -> Run:
    """The row of an engine that ran."""
    case = measured.timing.case
    engine = case.engine
    origin = sidecar.read(engine.path)
    precise = origin.precision if origin else None
    start = measured.start if isinstance(measured.start, ColdStart) else None
    blocks = quiet_blocks(measured.timing.blocks, config.max_other_load)
    return Run(
        engine=str(engine.path),
        name=engine.card.name,
        runtime=engine.runtime,
        runtime_version=machine.versions((engine.runtime,)).get(engine.runtime),
        precision=engine.card.precision,
        network=network_of(engine.card),
        computes_in=engine.computes_in,
        bytes=engine.path.stat().st_size if engine.path.is_file() else 0,
        low_precision_share=precise.low_precision_share if precise else None,
        gate=origin.gate if origin else None,
        batch=case.batch,
        threads=case.threads,
        **vars(measured.accuracy),
        cold_start_ms=start.milliseconds() if start else None,
        peak_rss_mib=start.peak_rss_mib if start else None,
    ).model_copy(
        update=_latency(blocks, case.batch, bootstrap_of(config))
        | _energy(blocks, case.batch, measured.idle_w)
        | _series(measured.timing.blocks, blocks)
    )


def network_of(card: ModelCard) -> NetworkSummary:
    """Architecture, options and input size."""
    size = card.input.width, card.input.height
    return NetworkSummary(arch=card.arch, options=card.options, size=size)


def _latency(blocks: Sequence[Block], batch: int, plan: Bootstrap) -> dict[str, object]:
    """Percentiles of all calls, their intervals, and the rate; keys of :class:`Run`."""
    stages = np.concatenate([block.stages_ms for block in blocks])
    calls = stages.sum(axis=1)
    intervals = latency_intervals([block.calls_ms for block in blocks], POINTS, plan)
    by_stage = {
        name: latency_intervals([block.stages_ms[:, place] for block in blocks], POINTS, plan)
        for place, name in enumerate(STAGES)
    }
    slow_and_fast = intervals.get("mean")
    return {
        "latency_ms": summarise(calls),
        "latency_interval_ms": _rounded(intervals) or None,
        "stages_ms": {name: summarise(stages[:, place]) for place, name in enumerate(STAGES)},
        "stages_interval_ms": {name: _rounded(found) for name, found in by_stage.items()}
        if intervals
        else None,
        "throughput_fps": round(batch * len(calls) / (float(calls.sum()) / 1e3), 2),
        "throughput_interval_fps": (
            round(1e3 * batch / slow_and_fast[1], 2),
            round(1e3 * batch / slow_and_fast[0], 2),
        )
        if slow_and_fast
        else None,
        "latency_quantiles_ms": tuple(round(float(q), 4) for q in np.percentile(calls, range(101))),
    }


def _energy(blocks: Sequence[Block], batch: int, idle_w: float | None) -> dict[str, object]:
    """Millijoules per picture and mean power; empty without a sensor."""
    joules = sum(sum(block.joules) for block in blocks)
    seconds = sum(block.seconds for block in blocks)
    if not any(block.joules for block in blocks) or not seconds:
        return {}
    frames = batch * sum(len(block.stages_ms) for block in blocks)
    above = None if idle_w is None else round(1e3 * (joules - idle_w * seconds) / frames, 3)
    return {
        "energy_mj_per_frame": round(1e3 * joules / frames, 3),
        "energy_above_idle_mj_per_frame": above,
        "power_w": round(joules / seconds, 3),
    }


def _series(blocks: Sequence[Block], kept: Sequence[Block]) -> dict[str, object]:
    """All blocks in the order of time, and how many of them count."""
    counted = set(map(id, kept))
    return {
        "calls": sum(len(block.stages_ms) for block in kept),
        "blocks": len(kept),
        "blocks_dropped": len(blocks) - len(kept),
        "spread": round(spread_of(kept), 4),
        "block_series": tuple(
            BlockSeries(
                round=place,
                calls=len(block.stages_ms),
                median_ms=round(block.median_ms, 4),
                mean_ms=round(float(block.calls_ms.mean()), 4),
                other_cores=round(block.other_cores, 3),
                kept=id(block) in counted,
            )
            for place, block in enumerate(blocks)
        ),
    }


def summarise(samples_ms: NDArray[np.float64]) -> dict[str, float]:
    """p50, p90, p95, p99, mean and max in ms, to a tenth of a microsecond."""
    points = percentiles(samples_ms, POINTS)
    whole = points | {"mean": float(samples_ms.mean()), "max": float(samples_ms.max())}
    return {key: round(float(value), 4) for key, value in whole.items()}


def _rounded(intervals: dict[str, Interval]) -> dict[str, Interval]:
    return {name: (round(low, 4), round(high, 4)) for name, (low, high) in intervals.items()}


def with_speedups(runs: Sequence[Run], reference: Path | None) -> list[Run]:
    """Fill in ``speedup``, relative to the reference of the same batch and threads."""
    bases = {
        (run.batch, run.threads): run.latency_ms["p50"]
        for run in runs
        if run.engine == str(reference) and run.latency_ms
    }
    return [
        run.model_copy(update={"speedup": round(base / run.latency_ms["p50"], 3)})
        if run.latency_ms and (base := bases.get((run.batch, run.threads)))
        else run
        for run in runs
    ]


def unavailable_row(entry: Unavailable) -> Run:
    """The row of an artefact that cannot run here, from its side-car."""
    origin = sidecar.read(entry.path)
    precise = origin.precision if origin else None
    return Run(
        engine=str(entry.path),
        name=origin.card.name if origin else entry.path.name,
        runtime=origin.runtime if origin else "unknown",
        runtime_version=origin.runtime_version if origin else None,
        precision=origin.card.precision if origin else "unknown",
        network=network_of(origin.card) if origin else None,
        bytes=entry.path.stat().st_size if entry.path.is_file() else 0,
        runs_here=False,
        reason=entry.reason,
        low_precision_share=precise.low_precision_share if precise else None,
        gate=origin.gate if origin else None,
    )


MAX_STEAL = 0.01
"""Share of the cores' time that a host may give to others."""

MAX_CLOCK_CHANGE = 0.05
"""Largest accepted relative change of the fastest core's clock during the run."""

NOT_THROTTLED_BY = {"ApplicationsClocksSetting", "DisplayClockSetting", "SyncBoost"}
"""NVML's clock reasons that are settings, not throttling."""


def disturbances(
    measured: Sequence[Measured], runs: Sequence[Run], config: BenchConfig
) -> Iterator[str]:
    """Disturbances seen in the timing: one sentence per kind, naming the engines."""
    loud = {
        name: (sum(b.other_cores > config.max_other_load for b in m.timing.blocks), run)
        for name, m, run in _named(measured, runs)
        if not run.blocks_dropped
    }
    yield from _sentences(
        {
            f"No stable median within {config.warm_up_seconds:g} s of warm-up": [
                name for name, m, _ in _named(measured, runs) if not m.timing.stable
            ],
            f"Other processes used more than {config.max_other_load:.0%} of a core in most "
            "blocks, which were all kept": [
                f"{name} ({blocks} of {run.blocks})"
                for name, (blocks, run) in loud.items()
                if blocks
            ],
            f"The block medians spread over more than {config.max_spread:.0%}": [
                f"{name} ({run.spread:.0%})"
                for name, _, run in _named(measured, runs)
                if run.spread is not None and run.spread > config.max_spread
            ],
        }
    )


def disturbed_machine(before: Conditions, during: During, after: Conditions) -> Iterator[str]:
    """Disturbances seen in the machine: steal time, throttling, heat, clocks."""
    if during.steal_share and during.steal_share > MAX_STEAL:
        yield f"The host gave {during.steal_share:.1%} of the processor's time to other guests."
    if during.throttle_events:
        yield f"The processor was throttled {during.throttle_events} times."
    for device in dict.fromkeys((*before.cooling, *after.cooling)):
        yield f"Cooling throttled the processor: {device}."
    for heat in after.temperatures:
        if heat.at_limit:
            yield f"{heat.sensor} reached {heat.celsius:g} °C, its limit is {heat.limit_c:g} °C."
    yield from _clock_changes(before, after)
    for gpu in dict.fromkeys((*before.gpus, *after.gpus)):
        reasons = [reason for reason in gpu.throttle if reason not in NOT_THROTTLED_BY]
        if reasons:
            yield f"{gpu.name} was throttled: {', '.join(reasons)}."


def _clock_changes(before: Conditions, after: Conditions) -> Iterator[str]:
    clocks = (
        ("highest clock allowed", before.cpu_cap_mhz, after.cpu_cap_mhz, 0.0),
        (
            "fastest core",
            max(before.cpu_mhz, default=None),
            max(after.cpu_mhz, default=None),
            MAX_CLOCK_CHANGE,
        ),
    )
    for what, then, now, allowed in clocks:
        if then and now and abs(now - then) > allowed * then:
            yield f"The clock changed: {what} {then:.0f} MHz before, {now:.0f} MHz after."


def shortcomings(
    measured: Sequence[Measured], runs: Sequence[Run], config: BenchConfig, *, reference: bool
) -> Iterator[str]:
    """Limits of an undisturbed run; ``reference`` is whether there was an FP32 engine."""
    if runs and not reference:
        yield "No FP32 engine was measured, so there is no drop, agreement or speed-up to state."
    yield from _sentences(
        {
            f"Blocks dropped, others used more than {config.max_other_load:.0%} of a core": [
                f"{name} ({run.blocks_dropped} of {run.blocks + run.blocks_dropped})"
                for name, _, run in _named(measured, runs)
                if run.blocks_dropped
            ],
            "Fewer than 100 calls, too few for a 99th percentile": [
                f"{name} ({run.calls})"
                for name, _, run in _named(measured, runs)
                if run.calls < 100
            ],
            "Start-up and memory not measured": [
                f"{name} ({m.start})"
                for name, m, _ in _named(measured, runs)
                if isinstance(m.start, str)
            ],
        }
    )


def _named(measured: Sequence[Measured], runs: Sequence[Run]) -> list[tuple[str, Measured, Run]]:
    names = row_names(runs)
    return list(zip(names, measured, runs, strict=True))


def row_names(runs: Sequence[Run]) -> list[str]:
    """The file's name, with its folder, batch or threads where rows would be ambiguous."""
    return [_name(run, runs) for run in runs]


def _name(run: Run, runs: Sequence[Run]) -> str:
    same = [other for other in runs if other.engine == run.engine]

    def differs(of: Callable[[Run], int | None]) -> bool:
        return len({of(other) for other in same}) > 1

    path = Path(run.engine)
    namesakes = {o.engine for o in runs if Path(o.engine).name == path.name}
    parts = [path.name if len(namesakes) == 1 else f"{path.parent.name}/{path.name}"]
    if differs(lambda other: other.batch):
        parts.append(f"batch {run.batch}")
    if differs(lambda other: other.threads):
        count = run.threads
        parts.append("default threads" if count is None else plural(count, "thread"))
    return ", ".join(parts)


def _sentences(findings: dict[str, list[str]]) -> Iterator[str]:
    yield from (f"{finding}: {_some(names)}." for finding, names in findings.items() if names)


def _some(names: Sequence[str]) -> str:
    """The first four: nobody reads a sentence about thirty rows."""
    more = [f"and {len(names) - 4} more"] if len(names) > 5 else []
    return "; ".join([*names[: 4 if more else 5], *more])
