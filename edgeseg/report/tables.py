"""Tables as columns and cells, once for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.bench.document import BenchReport, Run
from edgeseg.report.contents import RUNTIMES, StreamSummary, label, labels

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NONE = "–"


@dataclass(frozen=True)
class Column:
    """A heading, its unit, and whether the cells are numbers (set to the right)."""

    name: str
    unit: str = ""
    number: bool = True

    @property
    def heading(self) -> str:
        """``Size, MiB``."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """Rows of text, one cell a column; ``emphasis`` is the row to point at, if any."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: int | None = None


Cell = Callable[[Run], str | None]

_WIDE: tuple[tuple[Column, Cell], ...] = (
    (Column("Engine", number=False), lambda run: Path(run.engine).name),
    (Column("Precision", number=False), lambda run: run.precision.upper()),
    (Column("Runtime", number=False), lambda run: RUNTIMES.get(run.runtime, run.runtime)),
    (Column("Size", "MiB"), lambda run: f"{run.bytes / 2**20:.2f}"),
    (Column("p50", "ms"), lambda run: _latency(run, "p50")),
    (Column("p95", "ms"), lambda run: _latency(run, "p95")),
    (Column("Rate", "fps"), lambda run: _fixed(run.throughput_fps, 1)),
    (Column("Speed", "× FP32"), lambda run: _fixed(run.speedup, 2)),
    (Column("Mean IoU", "%"), lambda run: _percent(run.mean_iou, 1)),
    (Column("Drop", "points"), lambda run: _drop(run.drop)),
    (Column("Agreement", "%"), lambda run: _percent(run.pixel_agreement, 2)),
)

_DETAIL: tuple[tuple[Column, Cell], ...] = (
    (Column("Engine", number=False), lambda run: Path(run.engine).name),
    (Column("Preprocess", "ms"), lambda run: _stage(run, "preprocess")),
    (Column("Infer", "ms"), lambda run: _stage(run, "infer")),
    (Column("Restore", "ms"), lambda run: _stage(run, "restore")),
    (Column("p90", "ms"), lambda run: _latency(run, "p90")),
    (Column("p99", "ms"), lambda run: _latency(run, "p99")),
    (Column("Slowest", "ms"), lambda run: _latency(run, "max")),
    (Column("Start", "ms"), lambda run: _fixed((run.cold_start_ms or {}).get("total"), 0)),
    (Column("Memory", "MiB"), lambda run: _fixed(run.peak_rss_mib, 0)),
    (Column("Low precision", "% of MACs"), lambda run: _percent(run.low_precision_share, 1)),
    (Column("Calls"), lambda run: str(run.calls) if run.calls else None),
    (Column("Spread", "%"), lambda run: _percent(run.spread, 1)),
)


_TERMINAL: tuple[tuple[Column, Cell], ...] = (
    (Column("Engine", number=False), label),
    (Column("Size", "MiB"), lambda run: f"{run.bytes / 2**20:.2f}"),
    (Column("p50", "ms"), lambda run: _latency(run, "p50")),
    (Column("p95", "ms"), lambda run: _latency(run, "p95")),
    (Column("Rate", "fps"), lambda run: _fixed(run.throughput_fps, 1)),
    (Column("Speed", "× FP32"), lambda run: _fixed(run.speedup, 2)),
    (Column("IoU", "%"), lambda run: _percent(run.mean_iou, 1)),
    (Column("Drop", "points"), lambda run: _drop(run.drop)),
    (Column("Agree", "%"), lambda run: _percent(run.pixel_agreement, 1)),
)


def bench_table(bench: BenchReport, *, wide: bool = False) -> Table:
    """The comparison: precision, runtime, size, latency, accuracy; a row an engine.

    It fits into the eighty characters of a terminal, unless it may be ``wide``.
    """
    timed = {place: run.latency_ms["p50"] for place, run in enumerate(bench.runs) if run.latency_ms}
    best = min(timed, key=lambda place: timed[place]) if len(timed) > 1 else None
    if wide:
        return _table(_WIDE, bench.runs, best)
    table = _table(_TERMINAL, bench.runs, best)
    named = zip(labels(bench.runs), table.rows, strict=True)
    return Table(table.columns, tuple((text, *row[1:]) for text, row in named), best)


def detail_table(bench: BenchReport) -> Table:
    """Medians of the stages, the tail, start-up and memory of the engines that ran here."""
    return _table(_DETAIL, [run for run in bench.runs if run.runs_here], None)


def stage_table(stream: StreamSummary) -> Table:
    """Median and 99th percentile of each stage of the stream, frame age last."""
    stages = stream.stages_ms | ({"frame age": stream.frame_age_ms} if stream.frame_age_ms else {})
    points = [
        key for key in ("p50", "p95", "p99") if any(key in stage for stage in stages.values())
    ]
    columns = (Column("Stage", number=False), *(Column(key, "ms") for key in points))
    rows = tuple(
        (name, *(milliseconds(stage.get(key)) or NONE for key in points))
        for name, stage in stages.items()
    )
    return Table(columns, rows)


def sensitivity_table(layers: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """What each layer loses alone; ``layers`` as ``edgeseg sensitivity --json`` gives them."""
    lost = ("IoU lost", "points") if metric == "mean_iou" else ("Changed", "% of pixels")
    cells: list[tuple[Column, Callable[[Mapping[str, Any]], str | None]]] = [
        (Column("Layer", number=False), lambda layer: str(layer["layer"])),
        (Column(*lost), lambda layer: _drop(layer["loss"])),
        (Column("Score error", "%"), lambda layer: _percent(layer["score_error"], 2)),
        (Column("MACs", "%"), lambda layer: _percent(layer["macs_share"], 1)),
        (Column("All others", lost[1]), lambda layer: _drop(layer["loss_of_others"])),
    ]
    filled = [(c, cell) for c, cell in cells if any(cell(layer) for layer in layers)]
    rows = (tuple(cell(layer) or NONE for _, cell in filled) for layer in layers)
    return Table(tuple(column for column, _ in filled), tuple(rows))


def render_rich(table: Table, title: str | None = None) -> RichTable:
    """For a rich console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        heading = Text(f"{column.name}\n{column.unit}" if column.unit else column.name)
        drawn.add_column(heading, justify="right" if column.number else "left", no_wrap=True)
    for place, row in enumerate(table.rows):
        # Text, not str: a file may be called "[red]".
        drawn.add_row(*map(Text, row), style="bold" if place == table.emphasis else None)
    return drawn


def render_markdown(table: Table) -> str:
    """A pipe table, numbers to the right."""
    head = [column.heading for column in table.columns]
    rule = ["---:" if column.number else "---" for column in table.columns]
    rows = [[escape_markdown(cell) for cell in row] for row in table.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell or a line."""
    for character in "\\`*_{}[]<>|#~$":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _table(
    layout: Sequence[tuple[Column, Cell]], runs: Sequence[Run], emphasis: int | None
) -> Table:
    """Cells of all runs, without the columns that are empty for each of them."""
    table = [(column, [cell(run) for run in runs]) for column, cell in layout]
    filled = [(column, cells) for column, cells in table if any(cells)]
    columns = tuple(column for column, _ in filled)
    rows = zip(*(cells for _, cells in filled), strict=True)
    return Table(columns, tuple(tuple(cell or NONE for cell in row) for row in rows), emphasis)


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{100 * value:.{digits}f}"


def _drop(value: float | None) -> str | None:
    """Points lost, a gain with its sign; no negative zero."""
    return None if value is None else f"{round(100 * value, 2) + 0.0:.2f}".replace("-", "−")


def _latency(run: Run, key: str) -> str | None:
    return milliseconds((run.latency_ms or {}).get(key))


def _stage(run: Run, name: str) -> str | None:
    return milliseconds((run.stages_ms or {}).get(name, {}).get("p50"))


def milliseconds(value: float | None) -> str | None:
    """Two decimals, fewer where they say nothing any more: 9.87, 98.76, 987.6, 9876."""
    if value is None:
        return None
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"
