"""Table of the machine's state before and after the measurement."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.benchmark.conditions import Conditions
from edgeseg.benchmark.document import BenchReport
from edgeseg.benchmark.nvml import GpuState
from edgeseg.report.tables import NONE, Column, Table


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
