"""The engines of a benchmark as figures show them: numbered, coloured, one row an engine."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.report.contents import labels
from edgeseg.report.svg import COLOURS


@dataclass(frozen=True)
class Entry:
    """One engine in the figures.

    Attributes:
        number: Number from 1, shown beside its marks and in the key.
        label: Label in the key.
        run: Row of the benchmark.
        colour: Colour of its marks; repeats after six engines, unlike the number.
    """

    number: int
    label: str
    run: Run
    colour: str


def entries(bench: BenchReport) -> list[Entry]:
    """One row per engine that ran: batch 1 where possible, the fastest number of threads."""
    timed = [run for run in bench.runs if run.latency_ms and run.latency_quantiles_ms]
    rows: dict[str, Run] = {}
    for run in sorted(timed, key=_plainness):
        rows.setdefault(run.engine, run)
    shown = [run for run in timed if rows[run.engine] is run]
    return [
        Entry(place + 1, _short(label), run, COLOURS[place % len(COLOURS)])
        for place, (label, run) in enumerate(zip(labels(tuple(shown)), shown, strict=True))
    ]


def _plainness(run: Run) -> tuple[int, float]:
    return run.batch or 1, (run.latency_ms or {})["p50"]


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
