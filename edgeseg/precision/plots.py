"""Plots of reduced precision: the cost of each layer, and the gain of keeping some of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.figures import save_figure
from edgeseg.errors import needed

with needed("plots of precision need", "report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

_HARM, _CALM, _INK = "#c8553d", "#3b82c4", "#7d8590"
_ROWS = 40  # layers that are drawn; those behind them cost next to nothing


def save_sensitivity(
    path: Path, layers: Sequence[dict[str, Any]], *, metric: str, precision: str
) -> None:
    """Bars of each layer's own loss, the most harmful on top, and of the score error beside it.

    Args:
        layers: ``layer``, ``loss`` and ``score_error`` (or None) of each, fractions of 1.
        metric: ``mean_iou`` or ``pixel_agreement``.
        precision: Precision that the layers are reduced to.
    """
    shown = layers[:_ROWS]
    figure = Figure(figsize=(9, 1.3 + 0.26 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [_short(str(layer["layer"])) for layer in shown]
    lost = [100 * layer["loss"] for layer in shown]
    left.barh(range(len(shown)), lost, color=[_HARM if v > 0 else _CALM for v in lost])
    left.set_yticks(range(len(shown)), names, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("points of mean IoU lost" if metric == "mean_iou" else "% of pixels changed")
    errors = [100 * (layer["score_error"] or 0) for layer in shown]
    right.barh(range(len(shown)), errors, color=_CALM)
    right.set_xlabel("error of the scores, %")
    for axes in (left, right):
        _plain(axes, grid="x")
    title = f"Each layer alone in {precision.upper()}"
    left.set_title(title, fontsize=10, loc="left")
    save_figure(figure, path, metadata={"Software": None})


def save_trade_off(path: Path, trials: Sequence[Any], chosen: Any, *, precision: str) -> None:
    """Accuracy over the share of arithmetic in reduced precision, a point for each trial.

    Args:
        trials: :class:`edgeseg.precision.mixed.Trial` of one search, all on one gate.
        chosen: The one that was taken, or None.
        precision: Precision that the layers are reduced to.
    """
    gate = trials[0].gate
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    needed = 100 * (gate.reference - gate.limit)
    axes.axhline(100 * gate.reference, color=_INK, linewidth=1, label="FP32")
    axes.axhline(needed, color=_HARM, linewidth=1, linestyle="--", label="limit of the gate")
    for passed, colour, text in ((False, _HARM, "refused"), (True, _CALM, "passed")):
        some = [trial for trial in trials if trial.gate.passed is passed]
        shares = [100 * trial.macs_share for trial in some]
        values = [100 * trial.gate.value for trial in some]
        if some:
            axes.plot(shares, values, "o", color=colour, label=text, markersize=6)
    if chosen is not None:
        place = (100 * chosen.macs_share, 100 * chosen.gate.value)
        axes.plot(*place, "o", markersize=14, mfc="none", mec="black", label="chosen")
    metric = "mean IoU, %" if gate.metric == "mean_iou" else "pixels as in FP32, %"
    axes.set_xlabel(f"share of multiply-accumulates in {precision.upper()}, %")
    axes.set_ylabel(f"{metric} ({plural(gate.images, 'picture')})")
    axes.margins(x=0.08, y=0.12)
    _label_counts(axes, trials)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    _plain(axes, grid="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    save_figure(figure, path, metadata={"Software": None})


def _label_counts(axes: Axes, trials: Sequence[Any]) -> None:
    """How many layers each point keeps; of points that hide each other, the fewest."""
    low, high = axes.get_ylim()
    written: dict[tuple[int, int], Any] = {}
    for trial in sorted(trials, key=lambda one: len(one.kept)):
        height = (100 * trial.gate.value - low) / (high - low)
        if np.isfinite(height):
            written.setdefault((round(trial.macs_share * 40), round(height * 25)), trial)
    for trial in written.values():
        axes.annotate(
            f"{len(trial.kept)} kept",
            (100 * trial.macs_share, 100 * trial.gate.value),
            xytext=(0, 11),
            textcoords="offset points",
            fontsize=8,
            ha="center",
            color=_INK,
        )


def _plain(axes: Axes, *, grid: Any) -> None:
    axes.grid(axis=grid, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8)


def _short(name: str, letters: int = 34) -> str:
    """Shorten a name from the left: its end is the distinctive part."""
    return name if len(name) <= letters else f"…{name[1 - letters :]}"
