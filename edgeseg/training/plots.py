"""Plots of a training run: its curves, and predictions for validation pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.figures import save_figure
from edgeseg.data.panels import brightened
from edgeseg.engines.base import Engine
from edgeseg.errors import needed
from edgeseg.evaluation import Labelled, score
from edgeseg.ops.overlay import colourise

with needed("plots need", "train"):
    from matplotlib.figure import Figure

_ROWS = 5
"""Rows of predictions, spread evenly over the ranking by mean IoU."""


@dataclass(frozen=True)
class Curves:
    """Loss and mean IoU (0 to 1), one value per epoch."""

    loss: Sequence[float]
    mean_iou: Sequence[float]


def save_curves(path: Path, curves: Curves) -> None:
    """Plot training loss and validation mean IoU over the epochs and save them as a PNG."""
    epochs = range(1, len(curves.loss) + 1)
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot(xlabel="epoch", ylabel="training loss")
    left.plot(epochs, curves.loss, color="#d55e00", label="training loss")
    left.set_ylim(bottom=0)
    right = left.twinx()
    right.set_ylabel("validation mean IoU")
    right.plot(epochs, curves.mean_iou, color="#009e73", label="validation mean IoU")
    right.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def save_predictions(path: Path, engine: Engine, pictures: Iterable[Labelled]) -> None:
    """Save a PNG of rows "picture | truth | prediction", from the worst picture to the best.

    Args:
        pictures: Validation pictures with their masks, iterated twice. Those of which no pixel is
            labelled have no score and are left out.
    """
    ignore = engine.card.classes.ignore
    ranked = sorted(
        (score(engine, [pair]).mean_iou, number)
        for number, pair in enumerate(pictures)
        if (pair[1] != ignore).any()
    )
    places = np.unique(np.linspace(0, len(ranked) - 1, min(_ROWS, len(ranked))).round().astype(int))
    chosen = {ranked[place][1] for place in places}
    shown = {number: pair for number, pair in enumerate(pictures) if number in chosen}
    figure = Figure(figsize=(7.5, 2.5 * len(places)), layout="constrained")
    grid = figure.subplots(len(places), 3, squeeze=False)
    for axes, place in zip(grid, places, strict=True):
        mean_iou, number = ranked[place]
        for axis, panel in zip(axes, panels(engine, shown[number]), strict=True):
            axis.imshow(panel[..., ::-1])
            axis.set_axis_off()
        axes[2].set_title(f"mean IoU {mean_iou:.3f}", fontsize=9)
    for axis, title in zip(grid[0], ("picture", "truth", "prediction"), strict=True):
        axis.set_title(" · ".join(filter(None, (title, axis.get_title()))), fontsize=9)
    save_figure(figure, path)


def panels(engine: Engine, pair: Labelled) -> list[NDArray[np.uint8]]:
    """Render picture, truth and prediction, uint8 (H, W, 3) BGR each."""
    image, truth = pair
    palette = engine.card.classes.palette
    return [
        brightened(image),
        *(colourise(each, palette) for each in (truth, engine.segment(image))),
    ]
