"""Variants of unet-lite on nuclei, trained alike: what skips.py and upsampling.py share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import common
from common import Column, Lab, Row, average
from measures import RADII, measure

from edgeseg.data.folders import read_split
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    Column("mean_iou", "Mean IoU"),
    Column("border_accuracy", "Pixel accuracy within 4 px of a border"),
    Column("f1", "F1 at IoU 0.5"),
    Column("recall", "Recall"),
    Column("parameters", "Parameters", "M", 2),
    Column("epochs", "Epochs", "", 0),
    Column("train_seconds", "Training", "s", 0),
)


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th picture as in ``steps``, a set of networks a seed."""

    size: tuple[int, int]
    width: int
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SCALES = {
    "smoke": Settings((64, 64), 8, 1, 2, (0,), steps={"train": 23, "val": 7}),
    "cpu": Settings((256, 256), 8, 8, 8, (0,), steps={"train": 3, "val": 1}),
    "gpu": Settings((512, 512), 16, 60, 8, (0, 1, 2)),
}


def train_variants(lab: Lab, variants: Mapping[str, Mapping[str, bool | str]]) -> list[Row]:
    """Train each variant, a row for each name and seed.

    Args:
        lab: The run of the experiment.
        variants: Name → options of unet-lite beside its width.
    """
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    split = read_split(data, "val")
    for seed in settings.seeds:
        for name, options in variants.items():
            key = f"{name}, seed {seed}"
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                options={"width": settings.width, **options},
                size=settings.size,
                recipe=Recipe(
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    augmentation=Augmentation(orientation="any"),
                ),
                seed=seed,
            )
            lab.train(key, config, lambda engine: measure(engine, split))
    return lab.rows


def draw_bands(figure: Figure, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Accuracy over the width of the band around borders, a line a network."""
    axes = figure.subplots()
    colours, styles = ("#3b82c4", "#d9822b", "#2a9d78"), ("-", "--", ":")
    for name, colour, style in zip(names, colours, styles, strict=False):
        label = f"{name}: mean IoU {100 * average(rows, name, 'mean_iou'):.1f} %"
        for row in rows:
            if row["key"].startswith(name):
                heights = [100 * row["bands"][str(radius)] for radius in RADII]
                axes.plot(RADII, heights, style, color=colour, marker="o", label=label)
                label = ""  # one entry for all seeds
    axes.set_xscale("log", base=2)
    axes.set_xticks(RADII, map(str, RADII))
    axes.set_xlabel("distance to a border at most, pixels")
    axes.set_ylabel("pixel accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
