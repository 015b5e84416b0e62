"""Plot training curves over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeseg.report.contents import TrainingSummary
from edgeseg.report.svg import COLOURS, Draw, Plot, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_figures(training: TrainingSummary) -> list[Plot]:
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
            name = _short(key.replace("_", " ").replace("iou", "IoU"))
            alone = "o" if len(values) == 1 else None
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=name, marker=alone)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        if unit == "loss":
            axes.set_ylim(bottom=0)
        legend(axes)

    return draw


def _number(value: object) -> float:
    """NaN for what is no number: a gap in the curve."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else float("nan")  # type: ignore[arg-type]  # just checked


def _short(text: str, limit: int = 34) -> str:
    """A name that leaves room for the plot."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
