"""The report as Markdown: the figures and tables without plots and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeseg import __version__
from edgeseg.machine import summary
from edgeseg.report import tables
from edgeseg.report.contents import Contents, headlines, not_run
from edgeseg.report.method import machine_facts, method
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
    for item in headlines(contents):
        context = f" ({escape(item.context)})" if item.context else ""
        yield f"- {escape(item.name)}: **{item.value} {item.unit}**{context}"
    if bench and bench.runs:
        yield from ("\n## Engines\n", render_markdown(tables.bench_table(bench, wide=True)))
        yield from (f"- Not run: {escape(sentence)}" for sentence in not_run(bench))
        if bench.notes:
            yield "\nTo keep in mind:\n"
            yield from (f"- {escape(note)}" for note in bench.notes)
        details = tables.detail_table(bench)
        if details.rows:
            yield from ("\n### Stages, tail, start and memory\n", render_markdown(details))
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
    if contents.commands:
        yield from ("\n## Commands\n", _fenced("\n".join(contents.commands)))


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"
