"""Plots of benchmarks (distributions, accuracy against latency, sweeps) and of training curves.

Marks carry the number of their engine, which the page's key explains once for all figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.report.contents import Entry, TrainingSummary, shortened
from edgeseg.report.svg import COLOURS, FAINT, INK, Draw, Plot, legend, milliseconds_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def histogram_figure(shown: Sequence[Entry]) -> Plot | None:
    """Latency histogram, a row per engine, on one axis; None where nothing was timed.

    Drawn from the hundred quantiles of the document: between two of them lies one call in a
    hundred, evenly. Each row is as high as its own peak.
    """
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        low, high = _reach(shown)
        milliseconds_axis(axes, low, high)
        logarithmic = axes.get_xscale() == "log"
        edges = (
            np.geomspace(low * 0.9, high * 1.1, 90)
            if logarithmic
            else (np.linspace(0, high * 1.06, 90))
        )
        for place, entry in enumerate(shown):
            share = shares_between(np.asarray(entry.run.latency_quantiles_ms), edges)
            base, top = -float(place), 0.82 * share / max(float(share.max()), 1e-12)
            axes.stairs(base + top, edges, baseline=base, fill=True, color=entry.colour, alpha=0.55)
            axes.stairs(base + top, edges, baseline=base, color=entry.colour, linewidth=1.2)
            middle = (entry.run.latency_ms or {})["p50"]
            axes.plot([middle, middle], [base, base + 0.82], color=INK, linewidth=1)
        axes.set_yticks([-place for place in range(len(shown))], [str(e.number) for e in shown])
        for tick, entry in zip(axes.get_yticklabels(), shown, strict=True):
            tick.set(color=entry.colour, fontweight="bold", verticalalignment="bottom")
        axes.set_ylim(-len(shown) + 0.85, 1.0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("latency per call, ms")

    return Plot("histogram", "Histogram of the latency of each engine", draw, _rows_high(shown))


def shares_between(quantiles: Floats, edges: Floats) -> Floats:
    """Share of the calls between neighbouring ``edges``, by linear interpolation.

    Args:
        quantiles: (n,) rising, the first the least and the last the greatest value.
        edges: (m + 1,) rising.

    Returns:
        (m,) that add up to 1 where the edges hold all quantiles.
    """
    # A step of no width is a jump: np.interp takes its upper end, and so misses nothing.
    levels = np.linspace(0, 1, len(quantiles))
    below = np.interp(edges, quantiles, levels, left=0.0, right=1.0)
    return np.asarray(np.diff(below), np.float64)


def latency_figure(shown: Sequence[Entry]) -> Plot | None:
    """Empirical distribution of the latency of each engine; None where nothing was timed."""
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for entry in shown:
            values = np.asarray(entry.run.latency_quantiles_ms)
            axes.plot(values, np.linspace(0, 100, len(values)), color=entry.colour)
            level = 30 + 40 * (entry.number - 1) / max(len(shown) - 1, 1)
            _number(
                axes,
                entry,
                float(np.interp(level, np.linspace(0, 100, len(values)), values)),
                level,
            )
        milliseconds_axis(axes, *_reach(shown))
        axes.set_ylim(0, 102)
        axes.set_xlabel("latency per call, ms")
        axes.set_ylabel("cumulative share of calls, %")

    return Plot("latency", "Distribution of the latency of each engine", draw, _rows_high(shown))


def trade_figure(shown: Sequence[Entry]) -> Plot | None:
    """Accuracy against median latency with the Pareto front; None without accuracy.

    Bars are the intervals of both, where the document has them.
    """
    scored = all(entry.run.mean_iou is not None for entry in shown)
    points = [(e, e.run.mean_iou if scored else e.run.pixel_agreement) for e in shown]
    if len(shown) < 2 or any(value is None for _, value in points):
        return None
    heights = [100 * (value or 0.0) for _, value in points]
    middles = [(entry.run.latency_ms or {})["p50"] for entry in shown]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        best = pareto_front(middles, heights)
        steps = sorted((middles[place], heights[place]) for place in best)
        axes.step(*zip(*steps, strict=True), where="post", color=FAINT, linewidth=1, zorder=1)
        across, up = list(middles), list(heights)
        for place, (entry, _) in enumerate(points):
            x, y = _bars(axes, entry, middles[place], heights[place], scored=scored)
            across, up = [*across, *x], [*up, *y]
            face = entry.colour if place in best else "none"
            axes.plot(middles[place], heights[place], "o", color=entry.colour, mfc=face, ms=7)
            _number(axes, entry, middles[place], heights[place], offset=(7, 6))
        milliseconds_axis(axes, min(across), 1.03 * max(across))
        # Room of at least two points, so that a difference of nothing does not look like one.
        centre, room = (max(up) + min(up)) / 2, max(2.0, 1.25 * float(np.ptp(up)))
        axes.set_ylim(centre - room / 2, centre + room / 2)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("median latency per call, ms")
        axes.set_ylabel("mean IoU, %" if scored else "pixels equal to FP32, %")

    return Plot("trade", "Accuracy against latency", draw)


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> set[int]:
    """Indices of the Pareto-optimal points: no other costs at most as much and is worth more.

    Of equal points, all are in front.
    """
    points = list(zip(costs, values, strict=True))
    return {
        place
        for place, (cost, value) in enumerate(points)
        if not any(
            other_cost <= cost and other >= value and (other_cost, other) != (cost, value)
            for other_cost, other in points
        )
    }


def _bars(
    axes: Axes, entry: Entry, middle: float, height: float, *, scored: bool
) -> tuple[Sequence[float], Sequence[float]]:
    """Draw what is known of the intervals; returns their ends, across and up."""
    style: Any = {"color": entry.colour, "linewidth": 1.2, "alpha": 0.7, "zorder": 1}
    across = (entry.run.latency_interval_ms or {}).get("p50", ())
    up = _heights(entry.run, height) if scored else []
    if across:
        axes.plot(across, [height, height], **style)
    if up:
        axes.plot([middle, middle], up, **style)
    return across, up


def _heights(run: Run, height: float) -> list[float]:
    """Ends of the mean IoU in per cent: what a drop leaves of the reference, which stands still."""
    if run.drop_interval and run.drop is not None:
        return [height + 100 * (run.drop - end) for end in run.drop_interval]
    return [100 * end for end in run.mean_iou_interval or ()]


def _number(
    axes: Axes, entry: Entry, x: float, y: float, offset: tuple[int, int] = (4, -3)
) -> None:
    axes.annotate(
        str(entry.number),
        (x, y),
        xytext=offset,
        textcoords="offset points",
        color=entry.colour,
        fontweight="bold",
        annotation_clip=True,
    )


def _reach(shown: Sequence[Entry]) -> tuple[float, float]:
    """The least latency, and the greatest 99th percentile.

    The slowest call of thousands would squeeze all else to the left edge.
    """
    starts = [entry.run.latency_quantiles_ms[0] for entry in shown]
    return min(starts), max((entry.run.latency_ms or {})["p99"] for entry in shown)


def _rows_high(shown: Sequence[Entry]) -> float:
    """Inches for a figure with a line an engine."""
    return max(2.6, 0.9 + 0.42 * len(shown))


def training_figures(training: TrainingSummary) -> list[Plot]:
    """Loss, and accuracy, over the epochs, of the numbers in the history."""
    series = {
        key: [_finite(row.get(key)) for row in training.history]
        for row in training.history[:1]
        for key in row
    }
    groups = (
        ("loss", "loss", 1.0, [key for key in series if "loss" in key]),
        ("score", "%", 100.0, [key for key in series if "iou" in key or "accuracy" in key]),
    )
    return [
        Plot(f"training-{name}", f"Training: {name}", _curves(series, keys, unit, scale))
        for name, unit, scale, keys in groups
        if any(np.isfinite(series[key]).any() for key in keys)
    ]


def _curves(series: dict[str, list[float]], keys: list[str], unit: str, scale: float) -> Draw:
    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, key in enumerate(keys):
            values = scale * np.array(series[key], np.float64)
            colour = COLOURS[place % len(COLOURS)]
            name = shortened(key.replace("_", " ").replace("iou", "IoU"), 34)
            alone = "o" if len(values) == 1 else None
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=name, marker=alone)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        if unit == "loss":
            axes.set_ylim(bottom=0)
        legend(axes)

    return draw


def _finite(value: object) -> float:
    """Return a number, or NaN for anything else: a gap in the curve."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else float("nan")  # type: ignore[arg-type]  # just checked


Axis = Literal["threads", "batch"]
OTHER: dict[Axis, Axis] = {"threads": "batch", "batch": "threads"}
TITLES: dict[Axis, str] = {"threads": "threads", "batch": "batch size"}


def sweep(bench: BenchReport, entry: Entry, axis: Axis) -> list[Run]:
    """The rows of one engine that differ in ``axis`` alone, in its order; empty if under two."""
    other = OTHER[axis]
    alike = {
        getattr(run, axis): run
        for run in bench.runs
        if run.engine == entry.run.engine
        and run.throughput_fps
        and getattr(run, axis) is not None
        and getattr(run, other) == getattr(entry.run, other)
    }
    return [alike[value] for value in sorted(alike)] if len(alike) > 1 else []


def sweep_figures(bench: BenchReport, shown: Sequence[Entry]) -> list[Plot]:
    """Plots of pictures per second over threads and over batch size, if either was swept."""
    return [
        _sweep_figure(axis, curves)
        for axis in TITLES
        if (curves := [(e, runs) for e in shown if (runs := sweep(bench, e, axis))])
    ]


def _sweep_figure(axis: Axis, curves: Sequence[tuple[Entry, list[Run]]]) -> Plot:
    def draw(axes: Axes) -> None:
        places = sorted({getattr(run, axis) for _, runs in curves for run in runs})
        for entry, runs in curves:
            x = [places.index(getattr(run, axis)) for run in runs]
            y = [run.throughput_fps or 0.0 for run in runs]
            axes.plot(x, y, "o-", color=entry.colour, ms=5)
            for place, run in zip(x, runs, strict=True):
                if ends := run.throughput_interval_fps:
                    axes.plot([place, place], ends, color=entry.colour, linewidth=1.2, alpha=0.7)
            # Side by side, since curves may end in one point.
            _number(axes, entry, x[-1], y[-1], offset=(7 + 9 * (entry.number - 1), -3))
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.margins(x=0.12)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(TITLES[axis])
        axes.set_ylabel("pictures per second")

    return Plot(f"sweep-{axis}", f"Pictures per second over {TITLES[axis]}", draw)
