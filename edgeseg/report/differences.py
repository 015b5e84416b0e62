"""A comparison of two benchmarks as a page, as Markdown, and as a table for the terminal.

::

    write_comparison(Path("compare.html"), comparison)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.artifacts.files import write_atomic
from edgeseg.benchmark.comparison import Change, ComparedRow, Comparison, Metric, describe
from edgeseg.errors import UsageError
from edgeseg.report.svg import FAINT, INK, RULE, svg
from edgeseg.report.tables import NONE, Column, Table, escape_markdown, render_markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

COLOURS = {"better": "#2a9d78", "worse": "#c8553d", "same": "#7d8590", "cannot tell": "#7d8590"}
TITLE = "Before and after"
_ORDER = {"worse": 0, "better": 1, "same": 2, "cannot tell": 3}
_METRICS: tuple[tuple[Metric, str], ...] = (
    ("latency", "Latency"),
    ("mean_iou", "Mean IoU"),
    ("memory", "Memory"),
    ("size", "Size"),
)


def write_comparison(path: Path, found: Comparison) -> None:
    """Write a page with plots (``.html``) or the same without them (``.md``).

    Raises:
        UsageError: Another suffix, or the file cannot be written.
        RuntimeMissing: Matplotlib or Jinja are not installed (HTML only).
    """
    if check_comparison(path).suffix == ".html":
        from edgeseg.report.page import render

        text = render("comparison.html.j2", lambda markup: _values(found, markup))
    else:
        text = render_comparison(found)
    write_atomic(Path(path), text)


def check_comparison(path: Path) -> Path:
    """The path; raises UsageError where it is no .html or .md."""
    path = Path(path)
    if path.suffix not in (".html", ".md"):
        raise UsageError(
            f"{path}: a comparison is .html or .md, not {path.suffix or 'without suffix'!r}"
        )
    return path


def tell(found: Comparison, console: Console) -> None:
    """Print what a terminal has room for: the changes of each row, and what to keep in mind."""
    for headline, reasons in cautions(found):
        console.print("\n  ".join((headline, *reasons)), markup=False)
    for row in found.rows:
        console.print(describe(row), markup=False)
        for change in row.changes:
            if change.verdict != "same":
                told = f"{change.word}: {change.figures}, {change.amount}"
                console.print(f"  {change.metric} {told}; {change.why}", markup=False)
    for sentence in (*remarks(found), lead(found)):
        console.print(sentence, markup=False)


def change_table(found: Comparison) -> Table:
    """A row an engine, a column a metric: the verdict, and by how much."""
    told = [(m, name) for m, name in _METRICS if any(row.of(m) for row in found.rows)]
    columns = (Column("Engine", number=False), *(Column(name, number=False) for _, name in told))
    rows = tuple(
        (describe(row), *(_cell(row.of(metric)) for metric, _ in told)) for row in found.rows
    )
    return Table(columns, rows)


def _cell(change: Change | None) -> str:
    """``slower: 25.02 → 27.05 ms, +8.1 % (+6.9 … +9.2)``."""
    return NONE if change is None else f"{change.word}: {change.figures}, {change.amount}"


def lead(found: Comparison) -> str:
    """In one line: ``2 slower, 1 less accurate, 3 faster; 14 the same; 2 cannot be told``."""
    changes = [change for row in found.rows for change in row.changes]
    counts = Counter(change.word for change in sorted(changes, key=lambda one: _ORDER[one.verdict]))
    same, unknown = counts.pop("same", 0), counts.pop("cannot tell", 0)
    parts = [", ".join(f"{count} {word}" for word, count in counts.items()) or "Nothing changed"]
    parts += [f"{same} the same"] if same else []
    parts += [f"{unknown} cannot be told"] if unknown else []
    return f"{'; '.join(parts)}."


def method(found: Comparison) -> list[str]:
    """How it was judged, a paragraph an item."""
    config = found.config
    return [
        f"Latency: the ratio of the medians of the blocks, with a bootstrap interval over whole "
        f"blocks ({1 - config.level:.0%}, {config.resamples} draws), and the two-sided "
        f"Mann-Whitney test of the block medians. Accuracy: the paired bootstrap over the labelled "
        f"pictures. The p-values of all rows are corrected together (Holm), so that the chance to "
        f"flag any row of two runs that do not differ is {config.level:.0%} for each of the two.",
        f"A difference is told where it is sure and at least {config.latency:.0%} of latency or "
        f"{100 * config.accuracy:.2g} points of mean IoU; it is the same where the whole interval "
        f"lies below that. Memory and size are single figures that no test can judge: from "
        f"{config.memory:.0%} and {config.size:.0%} on they are told.",
        "What varies between two runs and not within one, such as where memory came to lie, is "
        "not in these intervals. Where much depends on it, measure both sides again.",
    ]


def cautions(found: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Warnings to show at the top: runs that are not comparable or noisy."""
    told: list[tuple[str, tuple[str, ...]]] = []
    if not found.like_with_like:
        told.append(("This is not like with like.", found.differences))
    for side, which in ((found.before, "first"), (found.after, "second")):
        if side.noisy:
            told.append(
                (f"The {which} run ({side.origin}) was noisy: no latency is judged.", side.why)
            )
    return told


def render_comparison(found: Comparison) -> str:
    """The comparison as Markdown."""
    return "\n".join(_sections(found)).rstrip("\n") + "\n"


def _sections(found: Comparison) -> Iterator[str]:
    escape = escape_markdown
    yield f"# {TITLE}: {escape(found.before.origin)}, {escape(found.after.origin)}\n"
    for side, which in ((found.before, "First"), (found.after, "Second")):
        yield (
            f"- {which}: {escape(side.origin)}, {side.created:%Y-%m-%d %H:%M} UTC, "
            f"{escape(side.machine)}"
        )
    for headline, reasons in cautions(found):
        yield f"\n**{escape(headline)}**\n"
        yield from (f"- {escape(reason)}" for reason in reasons)
    yield f"\n{lead(found)}\n"
    yield render_markdown(change_table(found))
    yield from (f"- {escape(sentence)}" for sentence in remarks(found))
    yield from ("\n## Method\n", "\n\n".join(map(escape, method(found))))


def remarks(found: Comparison) -> list[str]:
    """Rows of one side alone, versions that changed, and what the rows say together."""
    return [
        *found.notes,
        *(f"Only in {found.before.origin}: {row}." for row in found.only_before),
        *(f"Only in {found.after.origin}: {row}." for row in found.only_after),
        *(f"Version of {change}." for change in found.versions),
    ]


def _values(found: Comparison, markup: Callable[[str], str]) -> dict[str, Any]:
    drawn = (
        change_figure(found.rows, "latency", "latency, per cent of the first run"),
        change_figure(found.rows, "mean_iou", "points of mean IoU gained"),
    )
    return {
        "title": f"{TITLE}: {found.before.origin}, {found.after.origin}",
        "banner": cautions(found),
        "found": found,
        "lead": lead(found),
        "figures": [markup(figure) for figure in drawn if figure],
        "names": [describe(row) for row in found.rows],
        "metrics": [name for _, name in _METRICS],
        "cells": [[row.of(metric) for metric, _ in _METRICS] for row in found.rows],
        "remarks": remarks(found),
        "method": method(found),
        "created": found.after.created,
    }


def change_figure(rows: Sequence[ComparedRow], metric: Metric, title: str) -> str | None:
    """Each row's change with its interval, numbered as in the table; None where there is none."""
    shown = [(place + 1, change) for place, row in enumerate(rows) if (change := row.of(metric))]
    if not shown:
        return None
    still = 1.0 if metric == "latency" else 0.0

    def draw(axes: Axes) -> None:
        axes.axvline(100 * still, color=INK, linewidth=1)
        for height, (_, change) in enumerate(shown):
            colour = COLOURS[change.verdict]
            if change.interval:
                axes.plot([100 * end for end in change.interval], [-height, -height], color=colour)
            face = colour if change.verdict in ("better", "worse") else "none"
            axes.plot(100 * change.change, -height, "o", color=colour, mfc=face, ms=7)
            axes.annotate(
                change.word,
                (1.02, -height),
                xycoords=("axes fraction", "data"),
                va="center",
                color=FAINT,
                fontsize=9,
            )
        axes.set_yticks([-height for height in range(len(shown))], [str(n) for n, _ in shown])
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.margins(x=0.1)
        axes.grid(visible=True, axis="both", color=RULE)
        axes.set_xlabel(title)

    return svg(f"change-{metric}", title, draw, max(1.6, 0.9 + 0.36 * len(shown)))
