"""Tables as columns and cells, for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.metrics import Interval
from edgeseg.report.contents import RUNTIMES, StreamSummary, label, labels

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NONE = "–"
Layout = Literal["", "single", "narrow"]


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
    """Rows of text, one cell per column.

    Attributes:
        emphasis: The row to point at, if any.
        layout: How a page sets it: ``single`` has one column on a phone, ``narrow`` is no wider
            than a paragraph.
        marks: Style of each cell on a page, e.g. ``worse``; empty where no cell has one.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: int | None = None
    layout: Layout = ""
    marks: tuple[tuple[str, ...], ...] = ()


Cell = Callable[[Run], str | None]

Cells = tuple[tuple[Column, Cell], ...]

_SPEED: Cells = (
    (Column("Size", "MiB"), lambda run: f"{run.bytes / 2**20:.2f}"),
    (Column("p50", "ms"), lambda run: _latency(run, "p50")),
    (Column("p95", "ms"), lambda run: _latency(run, "p95")),
    (Column("Rate", "fps"), lambda run: _fixed(run.throughput_fps, 1)),
    (Column("Speed", "× FP32"), lambda run: _fixed(run.speedup, 2)),
)
_LOST: Cells = ((Column("Drop", "points"), lambda run: _drop(run.drop)),)
_FLICKER: Cells = ((Column("Flicker", "%"), lambda run: _percent(run.flicker, 2)),)
_WIDE: Cells = (
    *_SPEED,
    (Column("Mean IoU", "%"), lambda run: _percent(run.mean_iou, 1)),
    *_LOST,
    (Column("Agreement", "%"), lambda run: _percent(run.pixel_agreement, 2)),
    *_FLICKER,
)


def _blocks(run: Run) -> str | None:
    """``11 of 12`` where some were dropped."""
    whole = run.blocks + run.blocks_dropped
    return None if not whole else f"{run.blocks} of {whole}" if run.blocks_dropped else str(whole)


_DETAIL: Cells = (
    (Column("Open", "ms"), lambda run: _start(run, "open")),
    (Column("First picture", "ms"), lambda run: _start(run, "first_inference")),
    (Column("Start", "ms"), lambda run: _start(run, "total")),
    (Column("Memory", "MiB"), lambda run: _fixed(run.peak_rss_mib, 0)),
    (Column("Energy", "mJ per picture"), lambda run: _fixed(run.energy_mj_per_frame, 1)),
    (Column("Above idle", "mJ"), lambda run: _fixed(run.energy_above_idle_mj_per_frame, 1)),
    (Column("Power", "W"), lambda run: _fixed(run.power_w, 1)),
    (Column("Low precision", "% of MACs"), lambda run: _percent(run.low_precision_share, 1)),
    (Column("Calls"), lambda run: str(run.calls) if run.calls else None),
    (Column("Blocks"), _blocks),
    (Column("Spread", "%"), lambda run: _percent(run.spread, 1)),
)

_POINTS = ("p50", "p90", "p95", "p99", "mean", "max")

_TERMINAL: Cells = (
    (Column("Engine", number=False), label),
    *_SPEED,
    (Column("IoU", "%"), lambda run: _percent(run.mean_iou, 1)),
    *_LOST,
    (Column("Agree", "%"), lambda run: _percent(run.pixel_agreement, 1)),
    *_FLICKER,
)

_NARROW = tuple(cell for cell in _TERMINAL if cell[0].name not in ("Size", "Rate", "Agree"))


def bench_table(bench: BenchReport, *, wide: bool = False) -> Table:
    """The comparison: precision, runtime, size, latency, accuracy; a row per engine.

    It fits into the eighty characters of a terminal, unless it may be ``wide``.
    """
    timed = {place: run.latency_ms["p50"] for place, run in enumerate(bench.runs) if run.latency_ms}
    best = min(timed, key=lambda place: timed[place]) if len(timed) > 1 else None
    if wide:
        return _table((*_identity(bench), *_WIDE), bench.runs, best)
    names = labels(bench.runs)
    # A long name and flicker take the room of the least important columns.
    flickers = any(run.flicker is not None for run in bench.runs)
    room = _NARROW if flickers or max(map(len, names), default=0) > 26 else _TERMINAL
    table = _table(room, bench.runs, best)
    named = zip(names, table.rows, strict=True)
    return Table(table.columns, tuple((text, *row[1:]) for text, row in named), best)


def _identity(bench: BenchReport) -> Cells:
    """Columns that name a row; those in which no two rows differ are empty, and so left out."""

    def varies(of: Callable[[Run], object]) -> bool:
        return len({of(run) for run in bench.runs if run.runs_here}) > 1

    sizes = varies(lambda run: run.network and run.network.size)
    several = sizes or varies(lambda run: run.name)
    batches, threads = varies(lambda run: run.batch), varies(lambda run: run.threads)
    return (
        (Column("Engine", number=False), lambda run: Path(run.engine).name),
        (
            Column("Network", number=False),
            lambda run: _network(run, size=sizes) if several else None,
        ),
        (Column("Precision", number=False), lambda run: run.precision.upper()),
        (Column("Runtime", number=False), lambda run: RUNTIMES.get(run.runtime, run.runtime)),
        (Column("Batch"), lambda run: str(run.batch) if batches and run.batch else None),
        (Column("Threads"), lambda run: str(run.threads) if threads and run.threads else None),
    )


def _network(run: Run, *, size: bool) -> str:
    """Its name, and where sizes differ that of its input."""
    if not size or run.network is None:
        return run.name
    width, height = run.network.size
    return f"{run.name} {width}×{height}"


def latency_table(bench: BenchReport) -> Table:
    """Percentiles of a call, end to end, with their intervals."""

    def cell(point: str) -> Cell:
        return lambda run: _interval(run.latency_ms, run.latency_interval_ms, point)

    return _with_labels(bench, [(Column(point, "ms"), cell(point)) for point in _POINTS], "single")


def stages_table(bench: BenchReport) -> Table:
    """Median with its interval, and 95th percentile, of each stage."""

    def cell(stage: str, point: str) -> Cell:
        return lambda run: _interval(
            (run.stages_ms or {}).get(stage),
            (run.stages_interval_ms or {}).get(stage) if point == "p50" else None,
            point,
        )

    stages = dict.fromkeys(stage for run in bench.runs for stage in run.stages_ms or ())
    pairs = [(stage, point) for stage in stages for point in ("p50", "p95")]
    return _with_labels(bench, [(Column(f"{s} {p}", "ms"), cell(s, p)) for s, p in pairs], "single")


def detail_table(bench: BenchReport) -> Table:
    """Start-up, memory, energy, and how much was measured, of the engines that ran here."""
    return _with_labels(bench, _DETAIL)


def _with_labels(
    bench: BenchReport, cells: Sequence[tuple[Column, Cell]], layout: Layout = ""
) -> Table:
    """A table of the rows that ran, named as in the figures."""
    ran = [run for run in bench.runs if run.runs_here]
    names = {id(run): text for run, text in zip(ran, labels(tuple(ran)), strict=True)}
    engine: tuple[Column, Cell] = (Column("Engine", number=False), lambda run: names[id(run)])
    return replace(_table((engine, *cells), ran, None), layout=layout)


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
    return Table(columns, rows, layout="narrow")


def sensitivity_table(layers: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Table of each layer's loss; ``layers`` as in ``edgeseg sensitivity --json``."""
    changed = Column("Changed", "points of IoU" if metric == "mean_iou" else "% of pixels")
    lost = [(Column("IoU lost", "points"), lambda layer: _drop(layer["loss"]))]
    cells: list[tuple[Column, Callable[[Mapping[str, Any]], str | None]]] = [
        (Column("Layer", number=False), lambda layer: str(layer["layer"])),
        (changed, lambda layer: _percent(layer["change"], 2)),
        *(lost if metric == "mean_iou" else []),
        (Column("Score error", "%"), lambda layer: _percent(layer["score_error"], 2)),
        (Column("MACs", "%"), lambda layer: _percent(layer["macs_share"], 1)),
        (
            Column("All others", "points" if metric == "mean_iou" else "% of pixels"),
            lambda layer: _drop(layer["loss_of_others"]),
        ),
    ]
    filled = [(c, cell) for c, cell in cells if any(cell(layer) for layer in layers)]
    rows = (tuple(cell(layer) or NONE for _, cell in filled) for layer in layers)
    return Table(tuple(column for column, _ in filled), tuple(rows))


def render_rich(table: Table) -> RichTable:
    """For a rich console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        heading = Text(f"{column.name}\n{column.unit}" if column.unit else column.name)
        # Where the terminal is narrow, names are folded and no number is cut.
        drawn.add_column(
            heading,
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
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


def _start(run: Run, key: str) -> str | None:
    return _fixed((run.cold_start_ms or {}).get(key), 0)


def _interval(
    values: Mapping[str, float] | None, intervals: Mapping[str, Interval] | None, key: str
) -> str | None:
    """``25.02 [24.90–25.31]``, as far as it is known; pages set the interval below."""
    value, ends = (values or {}).get(key), (intervals or {}).get(key)
    text = milliseconds(value)
    if text is None or ends is None:
        return text
    return f"{text} [{milliseconds(ends[0])}–{milliseconds(ends[1])}]"


def milliseconds(value: float | None) -> str | None:
    """Two decimals, fewer for large values: 9.87, 98.76, 987.6, 9876."""
    if value is None:
        return None
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"
