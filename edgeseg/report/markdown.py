"""The report as Markdown: the figures and tables without plots and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeseg import __version__
from edgeseg.benchmark.budget import Candidate, Recommendation
from edgeseg.benchmark.document import BenchReport
from edgeseg.machine import summary
from edgeseg.report import tables
from edgeseg.report.classes import confusions
from edgeseg.report.contents import (
    Contents,
    focus,
    headlines,
    label,
    not_run,
    other_notes,
    standing_out,
)
from edgeseg.report.method import machine_facts, method
from edgeseg.report.state import during_sentence, energy_sentence, state_table
from edgeseg.report.tables import escape_markdown as escape
from edgeseg.report.tables import render_markdown


def render_markdown_report(contents: Contents) -> str:
    """The whole document, ending in a newline."""
    return "\n".join(_sections(contents)).rstrip("\n") + "\n"


def _sections(contents: Contents) -> Iterator[str]:
    bench, training, stream = contents.bench, contents.training, contents.stream
    machine = contents.machine or (bench.machine if bench else None)
    yield f"# {escape(contents.title)}\n"
    date = f"{bench.created:%Y-%m-%d %H:%M} UTC · " if bench else ""
    line = f" · {escape(summary(machine))}" if machine else ""
    yield f"{date}edgeseg {__version__}{line}\n"
    for headline, reasons in standing_out(bench) if bench else ():
        yield f"**{escape(headline)}**\n"
        yield from (f"- {escape(reason)}" for reason in reasons)
        yield ""
    for item in headlines(contents):
        context = f" ({escape(item.context)})" if item.context else ""
        yield f"- {escape(item.name)}: **{item.value} {item.unit}**{context}"
    if bench and bench.runs:
        yield from _measured(contents, bench)
    if training:
        yield "\n## Training\n"
        known = {
            "Network": training.arch,
            "Pictures": training.dataset,
            "Epochs": training.epochs or len(training.history) or None,
            "Seconds": None if training.seconds is None else f"{training.seconds:.0f}",
            "Validation mean IoU": None
            if training.val_mean_iou is None
            else f"{100 * training.val_mean_iou:.1f} %",
        }
        yield from (f"- {name}: {escape(str(v))}" for name, v in known.items() if v is not None)
    if stream:
        yield "\n## Stream\n"
        yield (
            f"{stream.frames} frames in {stream.seconds:.1f} s, {stream.fps:.1f} fps, "
            f"{stream.dropped} dropped.\n"
        )
        if stream.stages_ms:
            yield render_markdown(tables.stage_table(stream))
    if bench:
        yield from ("\n## Method\n", "\n\n".join(map(escape, method(bench))))
    if facts := machine_facts(machine):
        yield "\n## Machine\n"
        yield from (f"- {name}: {escape(value)}" for name, value in facts)
    if bench and (table := state_table(bench)):
        yield from ("\n### Before and after\n", render_markdown(table))
    if bench and (sentence := during_sentence(bench)):
        yield escape(sentence)
    if contents.commands:
        yield from ("\n## Commands\n", _fenced("\n".join(contents.commands)))


def _measured(contents: Contents, bench: BenchReport) -> Iterator[str]:
    """The sections of a benchmark."""
    if contents.recommendation:
        yield from _recommended(contents.recommendation)
    yield from ("\n## Engines\n", render_markdown(tables.bench_table(bench, wide=True)))
    yield from (f"- Not run: {escape(sentence)}" for sentence in not_run(bench))
    if notes := other_notes(bench):
        yield "\nTo keep in mind:\n"
        yield from (f"- {escape(note)}" for note in notes)
    for title, table in (
        ("A call, end to end", tables.latency_table(bench)),
        ("By stage", tables.stages_table(bench)),
        ("Start, memory, energy", tables.detail_table(bench)),
    ):
        if table.rows:
            yield from (f"\n### {title}\n", render_markdown(table))
    if sentence := energy_sentence(bench):
        yield escape(sentence)
    best = focus(bench, contents.recommendation)
    scores = bench.accuracy_of(best) if best else None
    if best and scores:
        yield f"\n### Worst pictures of {escape(label(best))}\n"
        for picture in scores.worst(5):
            yield f"- {escape(picture.name)}: mean IoU {100 * (picture.iou or 0):.1f} %"
    if mistakes := confusions(scores):
        yield "\n### What is taken for what\n"
        yield from (f"- {escape(sentence)}" for sentence in mistakes)


def _recommended(found: Recommendation) -> Iterator[str]:
    yield f"\n## For a budget of {escape(found.budget)}\n"
    yield escape(found.why)
    rows = [*found.advice]
    rows += [f"Also within the budget: {one.name}, {_engine(one)}" for one in found.runners_up]
    rows += [f"Refused: {one.name}, {_engine(one)}" for one in found.refused]
    yield from ("", *(f"- {escape(row)}" for row in rows))


def _engine(one: Candidate) -> str:
    return f"{one.precision.upper()} in {one.runtime}: {one.why}"


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"
