"""A U-Net with and without its skip connections, on nuclei.

python bench/papers/skips.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import common
from common import Column, Experiment, Lab, Outcome, Row, average
from measures import RADII, measure

from edgeseg.data.augment import Augmentation
from edgeseg.data.folders import read_split
from edgeseg.training.recipe import Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="skips",
    title="Skip connections",
    paper="Ronneberger, Fischer and Brox 2015, section 2; Long et al. 2015, section 4.2",
    claim="Features of high resolution, joined with the enlarged ones, let the network localise: "
    "without them what is lost in pooling stays lost.",
    columns=(
        Column("mean_iou", "Mean IoU"),
        Column("border_accuracy", "Pixel accuracy within 4 px of a border"),
        Column("f1", "F1 at IoU 0.5"),
        Column("recall", "Recall"),
        Column("parameters", "Parameters", "M", 2),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="dsb2018",
)
SKIPS = {"with skips": True, "without skips": False}


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th picture as in ``steps``, a pair of networks a seed."""

    size: tuple[int, int]
    width: int
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SCALES = {
    "smoke": Settings((64, 64), 8, 1, 2, (0,), steps={"train": 12, "val": 5}),
    "cpu": Settings((256, 256), 8, 8, 8, (0,), steps={"train": 3, "val": 1}),
    "gpu": Settings((512, 512), 16, 60, 8, (0, 1, 2)),
}


def body(lab: Lab) -> Outcome:
    """Train the pairs, seed by seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    split = read_split(data, "val")
    for seed in settings.seeds:
        for name, skips in SKIPS.items():
            key = f"{name}, seed {seed}"
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                options={"width": settings.width, "skips": skips},
                size=settings.size,
                recipe=Recipe(
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    augmentation=Augmentation(orientation="any"),
                ),
                seed=seed,
            )
            lab.train(key, config, lambda engine: measure(engine, split))
    return judge(lab.scale, lab.rows)


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where borders lose most: more than the pixels do on the whole."""
    figures = ("mean_iou", "border_accuracy", "pixel_accuracy", "f1")
    lost = {
        figure: 100 * (average(rows, "with skips", figure) - average(rows, "without", figure))
        for figure in figures
    }
    seen = (
        f"Without skips mean IoU changes by {-lost['mean_iou']:+.1f} points, F1 by "
        f"{-lost['f1']:+.1f}; pixel accuracy by {-lost['border_accuracy']:+.1f} near borders and "
        f"by {-lost['pixel_accuracy']:+.1f} on the whole."
    )
    remark = "The network without skips has fewer parameters, in the first layers of its decoder. "
    if scale == "cpu":
        remark += "A narrow network after few epochs on a third of the pictures, which are shrunk."
    held = lost["mean_iou"] > 0 and lost["border_accuracy"] > max(0.0, lost["pixel_accuracy"])
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Accuracy over the width of the band around borders, a line a network."""
    axes = figure.subplots()
    for name, colour, style in (("with skips", "#3b82c4", "-"), ("without skips", "#d9822b", "--")):
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
