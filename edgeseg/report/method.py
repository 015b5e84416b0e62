"""Describe the method, the machine and its state before and after the measurement."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.artifacts.documents import plural
from edgeseg.benchmark.conditions import Conditions, GpuState
from edgeseg.benchmark.document import BenchReport
from edgeseg.machine import Gpu, Machine
from edgeseg.report.tables import NONE, Column, Table


def method(bench: BenchReport) -> list[str]:
    """How the benchmark was measured, one paragraph per item."""
    config = bench.config
    threads = "its default number of" if config.threads is None else str(config.threads)
    paragraphs = [
        f"Each call turns a picture as the camera delivers it into a label map of the same size: "
        f"preprocess, infer, restore. {plural(bench.pictures, 'picture')} in turn; the runtime had "
        f"{threads} threads unless a row states otherwise.",
        f"Engines were warmed up until the median of five calls moved by less than "
        f"{config.stable_within:.0%}, then measured in {config.rounds} rounds. In each round "
        f"every engine had one block of {config.block_seconds:.2g} s, in random order (seed "
        f"{config.seed}), so that clock speed and temperature favour no engine. A block "
        f"during which other processes used more than {config.max_other_load:.0%} of a core was "
        f"dropped, as long as half of the blocks remained.",
    ]
    if config.resamples:
        paragraphs.append(
            f"Intervals hold {config.confidence:.0%}: {config.resamples} bootstrap samples of "
            "whole blocks, since calls of one block resemble each other; for accuracy, of "
            "pictures, and for a drop the same pictures for both engines. They cover variation "
            "within this run, not between runs or machines."
        )
    paragraphs.append(
        "The spread is the interquartile range of the block medians, relative to their median: "
        "smaller differences between engines are not meaningful."
    )
    if config.cold_starts:
        paragraphs.append(
            f"Start-up (to the first label map, files in the page cache) and peak memory are "
            f"medians over {config.cold_starts} new processes."
        )
    if bench.labelled:
        paragraphs.append(
            f"Mean IoU is that of {plural(bench.labelled, 'labelled picture')}{_source(bench)}, "
            "compared at the size of their masks. A drop is stated in points (hundredths) against "
            "the FP32 engine."
        )
    return paragraphs


def _source(bench: BenchReport) -> str:
    data = bench.data
    if data is None:
        return ""
    split = f", {data.split}" if data.split else ""
    return f" ({data.name}{split}; SHA-256 of the files {data.sha256[:12]}…)"


def machine_facts(machine: Machine | None) -> list[tuple[str, str]]:
    """Names and values of the machine's known properties."""
    if machine is None:
        return []
    heat = machine.temperature_c
    facts = [
        ("Processor", machine.cpu),
        ("Board", machine.board),
        ("Cores", _cores(machine)),
        ("Instruction sets", ", ".join(machine.cpu_flags)),
        ("Memory", f"{machine.memory_mib} MiB" if machine.memory_mib else None),
        ("GPU", "; ".join(map(_gpu, machine.gpus)) or "none"),
        ("System", machine.os),
        ("Kernel", f"{machine.kernel} {machine.architecture}"),
        ("Governor", machine.governor),
        ("Temperature at start", f"{heat:.0f} °C" if heat is not None else None),
        ("Versions", ", ".join(f"{name} {text}" for name, text in machine.versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _cores(machine: Machine) -> str:
    if machine.cores == machine.usable_cores:
        return str(machine.cores)
    return f"{machine.usable_cores:g} of {machine.cores} usable"


def _gpu(gpu: Gpu) -> str:
    parts = [
        gpu.name,
        f"compute capability {gpu.compute_capability}" if gpu.compute_capability else "",
        f"{gpu.memory_mib} MiB" if gpu.memory_mib else "",
        f"driver {gpu.driver}" if gpu.driver else "",
    ]
    return ", ".join(filter(None, parts))


def state_table(bench: BenchReport) -> Table | None:
    """Clocks, temperatures, load and limits, before and after; None where nothing was read."""
    if bench.before is None or bench.after is None:
        return None
    before, after = _facts(bench.before), _facts(bench.after)
    names = dict.fromkeys((*before, *after))
    rows = [(name, before.get(name) or NONE, after.get(name) or NONE) for name in names]
    known = tuple(row for row in rows if row[1:] != (NONE, NONE))
    columns = (Column("", number=False), Column("Before"), Column("After"))
    return Table(columns, known, layout="narrow") if known else None


def during_sentence(bench: BenchReport) -> str | None:
    """One sentence on load and throttling between the two readings."""
    during = bench.during
    if during is None:
        return None
    parts = [f"other processes kept {during.other_cores:.2f} cores busy"]
    if during.steal_share is not None:
        parts.append(f"the host gave {during.steal_share:.1%} of the time to other guests")
    if during.throttle_events is not None:
        times = "once" if during.throttle_events == 1 else f"{during.throttle_events} times"
        parts.append(f"the processor was throttled {times}")
    return f"In the {during.seconds:.0f} s between the two, {_joined(parts)}."


def energy_sentence(bench: BenchReport) -> str | None:
    """Which sensors were read, or why none was; None if none was looked for."""
    energy = bench.energy
    if energy is None:
        return None
    if not energy.sensors:
        return f"Energy: {energy.reason or 'no sensor'}."
    named = [
        f"{sensor.name} ({sensor.covers}"
        + (f", {sensor.idle_w:.2f} W idle)" if sensor.idle_w is not None else ")")
        for sensor in energy.sensors
    ]
    return f"Energy was read from {_joined(named)}."


def _facts(state: Conditions) -> dict[str, str | None]:
    facts = {
        "Core clocks, MHz": _span(state.cpu_mhz),
        "Maximum hardware clock, MHz": _whole(state.cpu_max_mhz),
        "Maximum allowed clock, MHz": _whole(state.cpu_cap_mhz),
        "Governor": ", ".join(state.governors),
        "Power mode": state.power_mode,
        "Clocks fixed at maximum": _yes_or_no(state.jetson_clocks),
        "Load average, 1 minute": f"{state.load_average:.2f}"
        if state.load_average is not None
        else None,
        "Throttled by cooling": ", ".join(state.cooling),
    }
    for heat in state.temperatures:
        limit = f" of {heat.limit_c:.0f}" if heat.limit_c is not None else ""
        facts[f"{heat.sensor}, °C"] = f"{heat.celsius:.0f}{limit}"
    for place, gpu in enumerate(state.gpus):
        name = gpu.name if len(state.gpus) == 1 else f"{gpu.name} {place}"
        facts |= {f"{name}, {what}": text for what, text in _gpu_facts(gpu).items()}
    return facts


def _gpu_facts(gpu: GpuState) -> dict[str, str | None]:
    return {
        "MHz": _of(gpu.sm_mhz, gpu.sm_max_mhz),
        "memory MHz": _whole(gpu.memory_mhz),
        "°C": _of(gpu.temperature_c, gpu.limit_c),
        "W": _of(gpu.power_w, gpu.power_limit_w),
        "throttled by": ", ".join(gpu.throttle),
    }


def _span(values: Sequence[float]) -> str | None:
    """``2450 … 3100``, one number where all are alike."""
    if not values:
        return None
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} … {high}"


def _of(value: float | None, limit: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.0f}" + (f" of {limit:.0f}" if limit is not None else "")


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
