"""Three ways for a decoder to enlarge, on nuclei: bilinear, learnt deconvolution, unpooling.

python bench/papers/upsampling.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
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
    name="upsampling",
    title="Three ways to enlarge",
    paper="Long et al. 2015, section 3.3; Badrinarayanan, Kendall and Cipolla 2015 for unpooling",
    claim="Enlarging within the network is effective whether the filter is fixed to bilinear or "
    "learnt; putting maxima back to where they were keeps borders without learning a filter.",
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
WAYS = ("bilinear", "deconvolution", "unpooling")
CLOSE = 0.03
"""Mean IoU by which the ways may differ and still all count as effective."""


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th picture as in ``steps``, three networks a seed."""

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
    """Train the three, seed by seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    split = read_split(data, "val")
    for seed in settings.seeds:
        for way in WAYS:
            key = f"{way}, seed {seed}"
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                options={"width": settings.width, "upsampling": way},
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
    """The claim holds where no way is far behind the best."""
    figures = ("mean_iou", "border_accuracy")
    found = {way: [100 * average(rows, way, figure) for figure in figures] for way in WAYS}
    seen = "; ".join(
        f"{way}: mean IoU {iou:.1f} %, pixel accuracy near borders {border:.1f} %"
        for way, (iou, border) in found.items()
    )
    remark = (
        "The decoder learns two 3×3 convolutions after each enlargement in all three, so the "
        "filter alone has little left to do. "
    )
    if scale == "cpu":
        remark += "A narrow network after few epochs on a third of the pictures, which are shrunk."
    ious = [iou for iou, _ in found.values()]
    held = max(ious) - min(ious) <= 100 * CLOSE
    return Outcome(f"{seen}.", None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Accuracy over the width of the band around borders, a line a network."""
    axes = figure.subplots()
    colours, styles = ("#3b82c4", "#d9822b", "#2a9d78"), ("-", "--", ":")
    for name, colour, style in zip(WAYS, colours, styles, strict=True):
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
