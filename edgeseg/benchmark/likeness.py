"""Check whether two benchmarks are comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeseg.benchmark.conditions import Conditions
from edgeseg.benchmark.document import BenchReport
from edgeseg.machine import Machine


def differences(before: BenchReport, after: BenchReport) -> Iterator[str]:
    """Yield a clause for each difference that makes the two incomparable.

    Another processor, another GPU, clocks under another rule, another number of threads, other
    pictures. Versions of software are none of these: see :func:`versions_changed`.
    """
    facts = zip(_facts(before).items(), _facts(after).values(), strict=True)
    yield from (
        f"{name}: {_or_none(one)}, then {_or_none(two)}" for (name, one), two in facts if one != two
    )
    if data_of(before) != data_of(after):
        yield "labelled pictures: other files"


def versions_changed(before: BenchReport, after: BenchReport) -> Iterator[str]:
    """``onnxruntime: 1.31.0, then 1.32.0`` for each version that differs, system included."""
    one, two = _versions(before.machine), _versions(after.machine)
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            yield f"{name}: {_or_none(one.get(name))}, then {_or_none(two.get(name))}"


def _facts(report: BenchReport) -> Mapping[str, object]:
    machine, state = report.machine, report.before
    return {
        "processor": machine.cpu,
        "architecture": machine.architecture,
        "cores that may be used": f"{machine.usable_cores:g} of {machine.cores}",
        "board": machine.board,
        "GPU": ", ".join(gpu.name for gpu in machine.gpus),
        "governor": _governor(machine, state),
        "power mode": state.power_mode if state else None,
        "fixed clocks": state.jetson_clocks if state else None,
        "threads asked for": report.config.threads,
        "pictures timed": report.pictures,
        "labelled pictures": report.labelled,
    }


def _governor(machine: Machine, state: Conditions | None) -> str | None:
    return ", ".join(state.governors) if state and state.governors else machine.governor


def data_of(report: BenchReport) -> str | None:
    """The hash of the labelled pictures, None where there were none."""
    return report.data.sha256 if report.data else None


def _versions(machine: Machine) -> dict[str, str]:
    drivers = {gpu.driver for gpu in machine.gpus if gpu.driver}
    system = {"system": machine.os, "kernel": machine.kernel}
    return machine.versions | system | ({"driver": ", ".join(sorted(drivers))} if drivers else {})


def _or_none(value: object) -> str:
    return "none" if value in (None, "") else str(value)
