"""Bars that the page draws without a picture: names, percentages of the width, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.benchmark.document import Run
from edgeseg.report.contents import StreamSummary
from edgeseg.report.entries import Entry
from edgeseg.report.tables import milliseconds


@dataclass(frozen=True)
class Bar:
    """One bar of a waterfall in percent of the width: where it begins, p50, and on to p99."""

    name: str
    start: float
    length: float
    tail: float
    text: str


@dataclass(frozen=True)
class Part:
    """One part of a stack: its name, percent of the width, and its value with the unit."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class Stack:
    """Parts one after the other, a tail that is part of none, and the number beside them."""

    name: str
    parts: tuple[Part, ...]
    text: str
    tail: float = 0.0


def stage_stacks(shown: Sequence[Entry]) -> list[Stack]:
    """Median stages of each engine on one scale, and on to the 95th percentile of a call."""
    known = [
        (entry, {stage: values["p50"] for stage, values in (entry.run.stages_ms or {}).items()})
        for entry in shown
        if entry.run.stages_ms
    ]
    tails = [(entry.run.latency_ms or {}).get("p95", 0.0) for entry, _ in known]
    longest = max([sum(stages.values()) for _, stages in known] + tails, default=0.0)
    return [
        Stack(
            f"{entry.number} {entry.label}",
            tuple(Part(*part) for part in _parts(stages, longest)),
            f"{milliseconds((entry.run.latency_ms or {}).get('p50'))} ms",
            _share(max(tail - sum(stages.values()), 0.0), longest),
        )
        for (entry, stages), tail in zip(known, tails, strict=True)
    ]


def start_stacks(shown: Sequence[Entry]) -> list[Stack]:
    """A fresh process: the interpreter, opening the engine, the first picture."""
    known = [(entry, entry.run.cold_start_ms) for entry in shown if entry.run.cold_start_ms]
    longest = max((start["total"] for _, start in known), default=0.0)
    return [
        Stack(
            f"{entry.number} {entry.label}",
            tuple(Part(*part) for part in _parts(_start_parts(start), longest)),
            f"{start['total']:.0f} ms",
        )
        for entry, start in known
    ]


def _start_parts(start: dict[str, float]) -> dict[str, float]:
    opened, first = start.get("open", 0.0), start.get("first_inference", 0.0)
    return {
        "interpreter": max(start["total"] - opened - first, 0.0),
        "open": opened,
        "first picture": first,
    }


def _parts(values: dict[str, float], whole: float) -> list[tuple[str, float, str]]:
    return [
        (name, _share(value, whole), f"{milliseconds(value)} ms") for name, value in values.items()
    ]


def single_bars(
    shown: Sequence[Entry], value: Callable[[Run], float | None], unit: str
) -> list[Stack]:
    """A bar an engine, of those that have the value; of two significant digits at least."""
    known = [(entry, number) for entry in shown if (number := value(entry.run))]
    longest = max((number for _, number in known), default=0.0)
    return [
        Stack(
            f"{entry.number} {entry.label}",
            (Part("", _share(number, longest), ""),),
            f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}",
        )
        for entry, number in known
    ]


def waterfall(stream: StreamSummary) -> list[Bar]:
    """Stages one after the other: each begins where the median of the one before ended."""
    known = [
        (name, stage["p50"] or 0.0, max(stage.get("p99") or 0.0, stage["p50"] or 0.0))
        for name, stage in stream.stages_ms.items()
        if stage.get("p50") is not None
    ]
    starts = [sum(middle for _, middle, _ in known[:place]) for place in range(len(known))]
    pairs = list(zip(starts, known, strict=True))
    width = max((start + tail for start, (_, _, tail) in pairs), default=0.0)
    return [
        Bar(
            name,
            _share(start, width),
            _share(middle, width),
            _share(tail - middle, width),
            f"{middle:.2f} / {tail:.2f}",
        )
        for start, (name, middle, tail) in pairs
    ]


def _share(value: float, whole: float) -> float:
    return round(100 * value / whole, 2) if whole > 0 else 0.0
