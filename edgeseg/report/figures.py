"""Plots as inline SVG that follows the page's colours, light or dark.

Matplotlib draws with three stand-in colours, which become CSS variables; text stays text, in
the page's font. Figures are drawn small, so that their text is readable at a phone's width.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.bench.document import BenchReport, Run
from edgeseg.errors import RuntimeMissing
from edgeseg.report.contents import TrainingSummary, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, RULE = "#0a0b0c", "#0a0b0d", "#0a0b0e"
_STAND_INS = {INK: "currentColor", FAINT: "var(--faint)", RULE: "var(--rule)"}

# Mid-tones that stand out on white and on near-black, told apart with any colour vision.
COLOURS = ("#3b82c4", "#d9822b", "#2a9d78", "#c8553d", "#9b6fc9", "#7d8590")
MARKERS = ("o", "s", "^", "D", "v", "P")

# Any: the names that Matplotlib's stubs allow here differ from version to version.
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}

Draw = Callable[["Axes"], None]


def latency_figure(bench: BenchReport) -> str | None:
    """Empirical distribution of the latency of each engine; None where nothing was timed."""
    timed = _timed(bench)
    if not timed:
        return None

    def draw(axes: Axes) -> None:
        for text, run, colour, _ in timed:
            axes.plot(run.latency_quantiles_ms, np.arange(101), color=colour, label=text)
        # The slowest call of thousands would squeeze all else to the left edge.
        ends = [(run.latency_ms or {})["p99"] for _, run, _, _ in timed]
        starts = [run.latency_quantiles_ms[0] for _, run, _, _ in timed]
        _milliseconds(axes, min(starts), max(ends))
        axes.set_ylim(0, 102)
        axes.set_xlabel("latency of a call, ms")
        axes.set_ylabel("calls at most as slow, %")
        _legend(axes)

    return _svg("latency", "Distribution of the latency of each engine", draw)


def trade_figure(bench: BenchReport) -> str | None:
    """Accuracy against median latency, the bar reaching to p95; None without accuracy."""
    timed = _timed(bench)
    scored = all(run.mean_iou is not None for _, run, _, _ in timed)
    values = [run.mean_iou if scored else run.pixel_agreement for _, run, _, _ in timed]
    if len(timed) < 2 or any(value is None for value in values):
        return None
    heights = [100 * value for value in values if value is not None]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for (text, run, colour, marker), height in zip(timed, heights, strict=True):
            latency = run.latency_ms or {}
            middle, tail = latency["p50"], latency["p95"]
            axes.plot([middle, tail], [height, height], color=colour, linewidth=1.2, alpha=0.7)
            axes.plot(middle, height, marker, color=colour, markersize=7, label=text, linestyle="")
        # Room of at least two points, so that a difference of nothing does not look like one.
        centre, room = (max(heights) + min(heights)) / 2, max(2.0, 1.5 * float(np.ptp(heights)))
        axes.set_ylim(centre - room / 2, centre + room / 2)
        ends = [(run.latency_ms or {})["p95"] for _, run, _, _ in timed]
        _milliseconds(axes, min((run.latency_ms or {})["p50"] for _, run, _, _ in timed), max(ends))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("latency of a call, ms (mark: p50, line: to p95)")
        axes.set_ylabel("mean IoU, %" if scored else "pixels as FP32, %")
        _legend(axes)

    return _svg("trade", "Accuracy against latency", draw)


def training_figures(training: TrainingSummary) -> list[str]:
    """Loss, and accuracy, over the epochs, of the numbers in the history."""
    series = {
        key: [_number(row.get(key)) for row in training.history]
        for row in training.history[:1]
        for key in row
    }
    groups = (
        ("loss", "loss", 1.0, [key for key in series if "loss" in key]),
        ("score", "%", 100.0, [key for key in series if "iou" in key or "accuracy" in key]),
    )
    return [
        _svg(f"training-{name}", f"Training: {name}", _curves(series, keys, unit, scale))
        for name, unit, scale, keys in groups
        if any(np.isfinite(series[key]).any() for key in keys)
    ]


def _curves(series: dict[str, list[float]], keys: list[str], unit: str, scale: float) -> Draw:
    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, key in enumerate(keys):
            values = scale * np.array(series[key], np.float64)
            colour = COLOURS[place % len(COLOURS)]
            name = _short(key.replace("_", " ").replace("iou", "IoU"))
            alone = "o" if len(values) == 1 else None
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=name, marker=alone)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        if unit == "loss":
            axes.set_ylim(bottom=0)
        _legend(axes)

    return draw


def _timed(bench: BenchReport) -> list[tuple[str, Run, str, str]]:
    """Label, run, colour and marker of the engines that ran, the same in every figure."""
    return [
        (_short(text), run, COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, (text, run) in enumerate(zip(labels(bench.runs), bench.runs, strict=True))
        if run.latency_ms and run.latency_quantiles_ms
    ]


def _short(text: str, limit: int = 34) -> str:
    """A label that leaves room for the plot."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _number(value: object) -> float:
    """NaN for what is no number: a gap in the curve."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else float("nan")  # type: ignore[arg-type]  # just checked


def _milliseconds(axes: Axes, low: float, high: float) -> None:
    """A time axis from zero, logarithmic where the engines lie too far apart for that."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if high <= 10 * low or low <= 0:
        axes.set_xlim(0, high * 1.08)
        return
    axes.set_xscale("log")
    axes.set_xlim(low * 0.85, high * 1.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    """Above the plot, where it covers no curve."""
    handles, _ = axes.get_legend_handles_labels()
    columns = 1 if len(handles) > 4 else 2
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        handlelength=1.4,
        borderaxespad=0.2,
        columnspacing=1.4,
    )


def _svg(name: str, title: str, draw: Draw) -> str:
    """Draw one figure and make it part of a page: no size, no links, no names that clash."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeMissing(
            f"reports need Matplotlib: {error}", mend="pip install 'edgeseg[report]'"
        ) from error
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(4.9, 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _embed(buffer.getvalue(), name, title)


def _embed(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In HTML the namespaces are implied, and a page without URLs is easily seen to load nothing.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
