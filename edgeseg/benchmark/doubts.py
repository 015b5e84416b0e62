"""Sentences on how far to trust the figures of a benchmark.

A run is noisy when something disturbed its timing: other processes, a host that took the
processor away, a clock that changed, heat. Those sentences say so; the others say what is
missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeseg.benchmark.conditions import Conditions, During
from edgeseg.benchmark.document import Run
from edgeseg.benchmark.rows import Measured
from edgeseg.options.benchmark import BenchConfig

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
    measured: Sequence[Measured],
    runs: Sequence[Run],
    config: BenchConfig,
    *,
    reference: bool,
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
        parts.append(f"{run.threads} thread{'' if run.threads == 1 else 's'}")
    return ", ".join(parts)


def _sentences(findings: dict[str, list[str]]) -> Iterator[str]:
    yield from (f"{finding}: {_some(names)}." for finding, names in findings.items() if names)


def _some(names: Sequence[str]) -> str:
    """The first four: a sentence about thirty rows is read by nobody."""
    more = [f"and {len(names) - 4} more"] if len(names) > 5 else []
    return "; ".join([*names[: 4 if more else 5], *more])
