"""A comparison of two benchmarks as a report and for the terminal.

::

    write_comparison(Path("compare.html"), comparison)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.benchmark.comparison import ComparedRow, Comparison, FigureChange, describe
from edgeseg.options.benchmark import Metric
from edgeseg.report import tree, write_page
from edgeseg.report.sections import banners, method_section, notes
from edgeseg.report.svg import FAINT, INK, RULE, Plot
from edgeseg.report.tables import NONE, Column, Table
from edgeseg.report.tree import Paragraph, section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

COLOURS = {"better": "#2a9d78", "worse": "#c8553d", "same": "#7d8590", "inconclusive": "#7d8590"}
TITLE = "Before and after"
_ORDER = {"worse": 0, "better": 1, "same": 2, "inconclusive": 3}
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
    write_page(path, page_of(found))


def print_comparison(found: Comparison, console: Console) -> None:
    """Print the changes of each row, the notes and a summary."""
    for headline, reasons in cautions(found):
        console.print("\n  ".join((headline, *reasons)), markup=False)
    for row in found.rows:
        console.print(describe(row), markup=False)
        for change in row.changes:
            if change.verdict != "same":
                text = f"{change.word}: {change.figures}, {change.amount}"
                console.print(f"  {change.metric} {text}; {change.why}", markup=False)
    for sentence in (*remarks(found), lead(found)):
        console.print(sentence, markup=False)


def change_table(found: Comparison) -> Table:
    """A row per engine, a column per metric: the verdict, and by how much."""
    metrics = [pair for pair in _METRICS if any(row.of(pair[0]) for row in found.rows)]
    changes = [[row.of(metric) for metric, _ in metrics] for row in found.rows]
    names = [f"{place} · {describe(row)}" for place, row in enumerate(found.rows, 1)]
    return Table(
        columns=(Column("Engine", number=False), *(Column(name) for _, name in metrics)),
        rows=tuple((name, *map(_cell, row)) for name, row in zip(names, changes, strict=True)),
        layout="single",
        marks=tuple(("", *(change.verdict if change else "" for change in row)) for row in changes),
    )


def _cell(change: FigureChange | None) -> str:
    """``slower +8.1 % [+6.9 … +9.2; 25.02 → 27.05 ms]``."""
    if change is None:
        return NONE
    value, _, interval = change.amount.partition(" (")
    return f"{change.word} {value} [{interval.replace(')', '; ')}{change.figures}]"


def lead(found: Comparison) -> str:
    """In one line: ``2 slower, 1 less accurate, 3 faster; 14 the same; 2 inconclusive``."""
    changes = [change for row in found.rows for change in row.changes]
    counts = Counter(change.word for change in sorted(changes, key=lambda one: _ORDER[one.verdict]))
    same, unknown = counts.pop("same", 0), counts.pop("inconclusive", 0)
    parts = [", ".join(f"{count} {word}" for word, count in counts.items()) or "Nothing changed"]
    parts += [f"{same} the same"] if same else []
    parts += [f"{unknown} inconclusive"] if unknown else []
    return f"{'; '.join(parts)}."


def method(found: Comparison) -> list[str]:
    """How it was judged, one paragraph per item."""
    config = found.config
    return [
        f"Latency: the ratio of the medians of the blocks, with a bootstrap interval over whole "
        f"blocks ({1 - config.level:.0%}, {config.resamples} draws), and the two-sided "
        f"Mann-Whitney test of the block medians. Accuracy: the paired bootstrap over the labelled "
        f"pictures. The p-values of all rows are corrected together (Holm), so that the chance to "
        f"flag any row of two runs that do not differ is {config.level:.0%} for each of the two.",
        f"A difference is reported if it is significant and at least {config.latency:.0%} of "
        f"latency or {100 * config.accuracy:.2g} points of mean IoU; it is the same if the whole "
        f"interval lies below that. Memory and size are single figures that no test can judge: "
        f"they are reported from {config.memory:.0%} and {config.size:.0%} on.",
        "The intervals do not cover what varies between runs but not within one, such as memory "
        "placement. If much depends on a result, measure both sides again.",
    ]


def cautions(found: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Warnings to show at the top: runs that are not comparable or noisy."""
    warnings: list[tuple[str, tuple[str, ...]]] = []
    if not found.like_with_like:
        warnings.append(("The two runs are not comparable.", found.differences))
    for side, which in ((found.before, "first"), (found.after, "second")):
        if side.noisy:
            warnings.append(
                (f"The {which} run ({side.origin}) was noisy: no latency is judged.", side.why)
            )
    return warnings


def remarks(found: Comparison) -> list[str]:
    """Notes over all rows, rows of one side alone, and versions that changed."""
    return [
        *found.notes,
        *(f"Only in {found.before.origin}: {row}." for row in found.only_before),
        *(f"Only in {found.after.origin}: {row}." for row in found.only_after),
        *(f"Version of {change}." for change in found.versions),
    ]


def page_of(found: Comparison) -> tree.Page:
    """The structure of the report."""
    sides = ((found.before, "First:"), (found.after, "Second:"))
    plots = (
        change_figure(found.rows, "latency", "latency, per cent of the first run"),
        change_figure(found.rows, "mean_iou", "change of mean IoU, points"),
    )
    caption = "Filled marks are significant changes; numbers are those of the rows below."
    blocks = tree.some(
        *banners(cautions(found)),
        Paragraph(lead(found), style="lead"),
        section(
            "What changed",
            tree.grid(*(tree.Figure(plot, "", caption) for plot in plots if plot)),
            change_table(found),
            notes(remarks(found)),
        ),
        section("Why", tree.Bullets([f"{describe(row)}: {_reasons(row)}." for row in found.rows])),
        method_section(method(found)),
    )
    meta = [
        Paragraph(
            f"{side.origin}, {side.created:%Y-%m-%d %H:%M} UTC, {side.machine}", which, "meta"
        )
        for side, which in sides
    ]
    return tree.Page(f"{TITLE}: {found.before.origin}, {found.after.origin}", meta, blocks)


def _reasons(row: ComparedRow) -> str:
    return "; ".join(
        f"{change.metric.replace('mean_iou', 'mean IoU')} {change.word} ({change.why})"
        for change in row.changes
    )


def change_figure(rows: Sequence[ComparedRow], metric: Metric, title: str) -> Plot | None:
    """Each row's change with its interval, numbered as in the table; None if there is none."""
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

    return Plot(f"change-{metric}", title, draw, max(1.6, 0.9 + 0.36 * len(shown)))
