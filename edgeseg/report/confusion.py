"""Draw the confusion matrix, with the share and IoU of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.figures import save_figure
from edgeseg.errors import needed
from edgeseg.metrics import ConfusionMatrix

with needed("the picture of a confusion matrix needs", "report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 0.42  # inches: room for "100" in 8 points
_NAME = 24  # letters of a class name that are drawn
_WIDEST = 6000  # pixels: a matrix of 255 classes must not take a gigabyte to draw


def save_confusion(path: Path, confusion: ConfusionMatrix, classes: ClassMap) -> None:
    """Draw a confusion matrix into a PNG; see :func:`draw_confusion`.

    Raises:
        UsageError: The path cannot be written.
    """
    figure = draw_confusion(confusion, classes)
    dpi = min(120, _WIDEST / figure.get_figwidth())
    save_figure(figure, path, dpi=dpi, bbox_inches="tight")


def draw_confusion(confusion: ConfusionMatrix, classes: ClassMap) -> Figure:
    """Draw a confusion matrix.

    A row is a true class, a column what its pixels were called, in per cent of the row; what
    is below half a per cent stays empty. Beside it stand the class's share of all pixels and
    its intersection over union. A class without a pixel in the truth has an empty row.

    Args:
        classes: Names, as many as the matrix has classes.
    """
    names = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in classes.names]
    letters = max(map(len, names))
    side = max(_CELL * len(names), 1.8)
    figure = Figure(
        figsize=(side + 0.08 * letters + 2, side + 0.08 * letters + 1), layout="constrained"
    )
    _draw(figure.add_subplot(), confusion, names)
    return figure


def row_shares(confusion: ConfusionMatrix) -> NDArray[np.float64]:
    """Each row of the matrix as shares of its pixels, nan in rows without any.

    Returns:
        float64 (num_classes, num_classes), true class × predicted class.
    """
    totals = confusion.matrix.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.full(confusion.matrix.shape, np.nan)
    np.divide(confusion.matrix, totals, out=shares, where=totals > 0)
    return shares


def _draw(axes: Axes, confusion: ConfusionMatrix, names: list[str]) -> None:
    shares = row_shares(confusion)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90 if len(names) > 3 else 0, fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    title = f"mean IoU {confusion.mean_iou:.3f} · % of each true class"
    axes.set_title(title, fontsize=10, loc="left", pad=20)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005 or row == column:
            axes.text(column, row, whole_percent(share), **_inside(share))
    _margin(axes, confusion)


def _margin(axes: Axes, confusion: ConfusionMatrix) -> None:
    """Columns to the right of the matrix: share of the truth, and IoU."""
    frequency = confusion.matrix.sum(axis=1) / max(int(confusion.matrix.sum()), 1)
    heads = ["pixels, %", *map(whole_percent, frequency)]
    ious = ["–" if np.isnan(iou) else f"{iou:.3f}" for iou in confusion.per_class_iou]
    for points, column in ((44, heads), (80, ["IoU", *ious])):
        for row, text in enumerate(column, start=-1):
            axes.annotate(
                text,
                xy=(confusion.num_classes - 0.5, max(row, -0.5)),
                xytext=(points, 0 if row >= 0 else 6),
                textcoords="offset points",
                ha="right",
                va="center" if row >= 0 else "bottom",
                fontsize=8,
                color="black" if row >= 0 else "0.35",
                annotation_clip=False,
            )


def _inside(share: float) -> dict[str, Any]:
    colour = "white" if share > 0.55 else "black"
    return {"ha": "center", "va": "center", "fontsize": 8, "color": colour}


def whole_percent(share: float) -> str:
    """A share in whole per cent, below ten with a decimal; empty for NaN."""
    if np.isnan(share):
        return ""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.1f}"
