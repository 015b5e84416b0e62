"""Plot throughput over threads and batch size, a curve per engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.report.entries import Entry
from edgeseg.report.svg import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        _figure(axis, curves)
        for axis in TITLES
        if (curves := [(e, runs) for e in shown if (runs := sweep(bench, e, axis))])
    ]


def _figure(axis: Axis, curves: Sequence[tuple[Entry, list[Run]]]) -> Plot:
    def draw(axes: Axes) -> None:
        places = sorted({getattr(run, axis) for _, runs in curves for run in runs})
        for entry, runs in curves:
            x = [places.index(getattr(run, axis)) for run in runs]
            y = [run.throughput_fps or 0.0 for run in runs]
            axes.plot(x, y, "o-", color=entry.colour, ms=5)
            for place, run in zip(x, runs, strict=True):
                if ends := run.throughput_interval_fps:
                    axes.plot([place, place], ends, color=entry.colour, linewidth=1.2, alpha=0.7)
            axes.annotate(
                str(entry.number),
                (x[-1], y[-1]),
                # Side by side, since curves may end in one point.
                xytext=(7 + 9 * (entry.number - 1), -3),
                textcoords="offset points",
                color=entry.colour,
                fontweight="bold",
            )
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.margins(x=0.12)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(TITLES[axis])
        axes.set_ylabel("pictures per second")

    return Plot(f"sweep-{axis}", f"Pictures per second over {TITLES[axis]}", draw)
