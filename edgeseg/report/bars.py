"""Bars and the confusion matrix, which a page draws without a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.benchmark.document import EngineAccuracy, Run
from edgeseg.metrics import ConfusionMatrix
from edgeseg.report.confusion import whole_percent
from edgeseg.report.contents import Entry, StreamSummary
from edgeseg.report.tables import milliseconds


@dataclass(frozen=True)
class Part:
    """One part of a bar: per cent of the width, and its style (none for a gap).

    ``name`` appears in the key, ``text`` is its value with the unit.
    """

    share: float
    style: str = "s1"
    name: str = ""
    text: str = ""


@dataclass(frozen=True)
class Stack:
    """A bar of parts one after the other, and the number beside it."""

    name: str
    parts: tuple[Part, ...]
    text: str


def stage_stacks(shown: Sequence[Entry]) -> list[Stack]:
    """Median stages of each engine on one scale, and on to the 95th percentile of a call."""
    known = [
        (entry, {stage: values["p50"] for stage, values in (entry.run.stages_ms or {}).items()})
        for entry in shown
        if entry.run.stages_ms
    ]
    tails = [(entry.run.latency_ms or {}).get("p95", 0.0) for entry, _ in known]
    longest = max([sum(stages.values()) for _, stages in known] + tails, default=0.0)
    stacks = []
    for (entry, stages), tail in zip(known, tails, strict=True):
        rest = _share(tail - sum(stages.values()), longest)
        text = f"{milliseconds((entry.run.latency_ms or {}).get('p50'))} ms"
        parts = _parts(stages, longest) + ((Part(rest, "rest", "to p95"),) if rest > 0 else ())
        stacks.append(Stack(_name(entry), parts, text))
    return stacks


def start_stacks(shown: Sequence[Entry]) -> list[Stack]:
    """A fresh process: the interpreter, opening the engine, the first picture."""
    known = [(entry, entry.run.cold_start_ms) for entry in shown if entry.run.cold_start_ms]
    longest = max((start["total"] for _, start in known), default=0.0)
    stacks = []
    for entry, start in known:
        total, opened, first = (start.get(key, 0.0) for key in ("total", "open", "first_inference"))
        rest = max(total - opened - first, 0.0)
        parts = {"interpreter": rest, "open": opened, "first picture": first}
        stacks.append(Stack(_name(entry), _parts(parts, longest), f"{total:.0f} ms"))
    return stacks


def _parts(values: Mapping[str, float], whole: float) -> tuple[Part, ...]:
    return tuple(
        Part(_share(value, whole), f"s{place}", name, f"{milliseconds(value)} ms")
        for place, (name, value) in enumerate(values.items())
    )


def single_bars(
    shown: Sequence[Entry], value: Callable[[Run], float | None], unit: str
) -> list[Stack]:
    """A bar per engine that has the value, with at least two significant digits."""
    known = [(entry, number) for entry in shown if (number := value(entry.run))]
    longest = max((number for _, number in known), default=0.0)
    return [
        Stack(
            _name(entry),
            (Part(_share(number, longest)),),
            f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}",
        )
        for entry, number in known
    ]


def waterfall(stream: StreamSummary) -> list[Stack]:
    """Stages of a frame: each begins where the median of the one before ended."""
    known = [
        (name, stage["p50"] or 0.0, max(stage.get("p99") or 0.0, stage["p50"] or 0.0))
        for name, stage in stream.stages_ms.items()
        if stage.get("p50") is not None
    ]
    starts = [sum(middle for _, middle, _ in known[:place]) for place in range(len(known))]
    pairs = list(zip(starts, known, strict=True))
    width = max((start + tail for start, (_, _, tail) in pairs), default=0.0)
    return [
        Stack(
            name,
            (
                Part(_share(start, width), style=""),
                Part(_share(middle, width), "s1", "median"),
                Part(_share(tail - middle, width), "tail", "to p99"),
            ),
            f"{middle:.2f} / {tail:.2f} ms",
        )
        for start, (name, middle, tail) in pairs
    ]


def _name(entry: Entry) -> str:
    return f"{entry.number} {entry.label}"


def _share(value: float, whole: float) -> float:
    return round(100 * value / whole, 2) if whole > 0 else 0.0


MAX_CLASSES = 24
"""Larger matrices are not shown, only their most frequent confusions."""


@dataclass(frozen=True)
class HeatCell:
    """Per cent of the row as text, empty where it rounds to nothing, and the shade, 0…100."""

    text: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """A true class: its share of all labelled pixels, its IoU, and what it was predicted as."""

    name: str
    pixels: str
    iou: str
    cells: tuple[HeatCell, ...]


def heat_map(entry: EngineAccuracy | None) -> list[HeatRow]:
    """The rows of the matrix; empty where there is none, or it is too large to be read."""
    confusion = confusion_of(entry)
    if entry is None or confusion is None or len(entry.classes) > MAX_CLASSES:
        return []
    totals = confusion.matrix.sum(axis=1)
    rows = []
    for place, name in enumerate(entry.classes):
        shares = confusion.matrix[place] / max(int(totals[place]), 1)
        rows.append(
            HeatRow(
                name,
                f"{100 * totals[place] / max(int(totals.sum()), 1):.1f}",
                _percent(float(confusion.per_class_iou[place])),
                tuple(_cell(float(share), known=bool(totals[place])) for share in shares),
            )
        )
    return rows


def confusions(entry: EngineAccuracy | None) -> list[str]:
    """``12.3 % of all errors: car predicted as bus`` for the five most frequent ones."""
    confusion = confusion_of(entry)
    if entry is None or confusion is None:
        return []
    wrong = confusion.matrix.copy()
    np.fill_diagonal(wrong, 0)
    total = int(wrong.sum())
    first = np.argsort(wrong, axis=None, kind="stable")[::-1][:5]
    pairs = [divmod(int(place), confusion.num_classes) for place in first]
    return [
        f"{100 * wrong[true, predicted] / total:.1f} % of all errors: "
        f"{entry.classes[true]} predicted as {entry.classes[predicted]}"
        for true, predicted in pairs
        if wrong[true, predicted]
    ]


def confusion_of(entry: EngineAccuracy | None) -> ConfusionMatrix | None:
    """The counts, None where the document has none."""
    if entry is None or not entry.confusion:
        return None
    confusion = ConfusionMatrix(len(entry.classes))
    confusion.matrix += np.array(entry.confusion, np.int64)
    return confusion


def _cell(share: float, *, known: bool) -> HeatCell:
    return HeatCell(whole_percent(share) if known and share >= 0.005 else "", round(100 * share))


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"
