"""FCN-32s, FCN-16s and FCN-8s on CamVid, each started from the one before it.

    python bench/papers/fcn.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Finer strides come later in the same training, so a network that gains might gain from the
further epochs alone. The row ``fcn32s, longer`` is the control: FCN-32s trained on for as many
epochs as FCN-16s and FCN-8s together. ``fcn8s, at once`` is trained from VGG16 for as many epochs
as the three stages together, with one cycle of the learning rate instead of three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import common
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row
from measures import RADII, measure

from edgeseg.data.folders import read_split
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="fcn",
    title="FCN-32s → FCN-16s → FCN-8s",
    paper="Long, Shelhamer and Darrell 2015, section 4.2 and table 2",
    claim="Each finer stride raises mean IoU, from 59.4 to 62.4 to 62.7 on PASCAL VOC, "
    "and the borders become visibly finer.",
    columns=(
        Column("mean_iou", "Mean IoU"),
        Column("border_mean_iou", "Mean IoU within 4 px of a border"),
        Column("border_accuracy", "Pixel accuracy there"),
        Column("epochs", "Epochs", "", 0),
        Column("parameters", "Parameters", "M"),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="camvid",
)
CONTROL, AT_ONCE = "fcn32s, longer", "fcn8s, at once"
STAGES = {"fcn32s": None, "fcn16s": "fcn32s", "fcn8s": "fcn16s"}
STARTS = {**STAGES, CONTROL: "fcn32s", AT_ONCE: None}
"""Row → the row whose network it starts from."""


@dataclass(frozen=True)
class Settings:
    """One scale: ``epochs`` of the rows to be made; every n-th picture; ``width`` of fc6 and fc7.

    The network is kept by ``val``, of which fewer pictures may be taken; figures are of all.
    """

    size: tuple[int, int]
    epochs: Mapping[str, int]
    steps: Mapping[str, int]
    width: int
    batch_size: int
    learning_rate: float
    imagenet: bool = True
    seed: int = 0


SCALES = {
    "smoke": Settings(
        size=(64, 64),
        epochs={"fcn32s": 1, "fcn16s": 1},
        steps={"train": 23, "val": 7},
        width=8,
        batch_size=2,
        learning_rate=1e-4,
        imagenet=False,
    ),
    "cpu": Settings(
        size=(352, 480),
        epochs={"fcn32s": 6, "fcn16s": 3, "fcn8s": 3, AT_ONCE: 12},
        steps={"train": 1, "val": 1},
        width=512,
        batch_size=4,
        learning_rate=1.5e-4,
    ),
    "gpu": Settings(
        size=(360, 480),
        epochs={"fcn32s": 100, "fcn16s": 50, "fcn8s": 50, CONTROL: 100, AT_ONCE: 200},
        steps={"train": 1, "val": 1},
        width=4096,
        batch_size=8,
        learning_rate=1e-4,
    ),
}


def body(lab: Lab) -> Outcome:
    """Train the stages and the control, each from the network before it."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    names = None if lab.scale == "smoke" else CAMVID_CLASSES
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps, names)
    everything = common.link_subset(lab.data, lab.folder / "all", {"val": 1}, names)
    if lab.scale == "smoke":
        everything = data
    split = read_split(everything, "val")
    rows: dict[str | None, Row] = {}
    for key in settings.epochs:
        earlier = STARTS[key]
        weights = lab.vgg16 if settings.imagenet else None
        if earlier is not None:
            weights = lab.run_folder(earlier) / "model.safetensors"
        config = configure(lab, settings, key, data, weights)
        rows[key] = lab.train(key, config, lambda engine: measure(engine, split), rows.get(earlier))
    return judge(lab.scale, rows)


def configure(
    lab: Lab, settings: Settings, key: str, data: Path, weights: Path | None
) -> TrainConfig:
    """How one stage is trained; all alike but for their epochs and what they start from."""
    recipe = Recipe(
        epochs=settings.epochs[key],
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        augmentation=Augmentation(orientation="upright"),
    )
    return TrainConfig(
        data=data,
        run=lab.run_folder(key),
        arch=key.partition(",")[0],  # type: ignore[arg-type]  # an FCN
        options={"fc_width": settings.width},
        size=settings.size,
        recipe=recipe,
        weights=weights,
        seed=settings.seed,
    )


def judge(scale: str, rows: Mapping[str | None, Row]) -> Outcome:
    """The claim holds where both figures rise at each stage, and the last beats the control."""
    stages = [rows[key] for key in STAGES if key in rows]
    ious, borders = ([row[k] for row in stages] for k in ("mean_iou", "border_mean_iou"))
    seen = f"Mean IoU {_chain(ious)} %, near borders {_chain(borders)} %"
    held = all(list(values) == sorted(values) for values in (ious, borders))
    if CONTROL in rows:
        iou, border = (rows[CONTROL][key] for key in ("mean_iou", "border_mean_iou"))
        held = held and ious[-1] > iou and borders[-1] > border
        seen += f"; FCN-32s trained on for as long as FCN-8s {_pair(rows[CONTROL])}"
    if AT_ONCE in rows:
        seen += f"; FCN-8s trained at once for as long as the three {_pair(rows[AT_ONCE])}"
    remark = (
        "On CamVid, whose signs and poles are thinner than the stride of FCN-32s, the steps are "
        "expected to be larger than on PASCAL VOC. "
    )
    if scale == "cpu":
        remark += (
            "One seed, few epochs and narrow fc6 and fc7: the order of the three is what can be "
            "read from this, not their level."
        )
    return Outcome(f"{seen}.", None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU as bars, and accuracy over the width of the band around borders."""
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    colours = ("#d9822b", "#3b82c4", "#2a9d78", "#7d8590", "#c8553d")
    for place, (row, colour) in enumerate(zip(rows, colours, strict=False)):
        iou = 100 * row["mean_iou"]
        left.bar(place, iou, color=colour)
        left.text(place, iou, f"{iou:.1f}", ha="center", va="bottom", fontsize=9)
        heights = [100 * row["bands"][str(radius)] for radius in RADII]
        style = "-" if row["key"] in STAGES else "--"
        right.plot(RADII, heights, style, color=colour, marker="o", label=row["key"])
    labels = [row["key"].replace(", ", "\n") for row in rows]
    left.set_xticks(range(len(rows)), labels, fontsize=8)
    left.set_ylabel("mean IoU, %")
    left.margins(y=0.1)
    right.set_xscale("log", base=2)
    right.set_xticks(RADII, map(str, RADII))
    right.set_xlabel("distance to a border at most, pixels")
    right.set_ylabel("pixel accuracy, %")
    right.legend(frameon=False)


def _pair(row: Row) -> str:
    return f"{100 * row['mean_iou']:.1f} % and {100 * row['border_mean_iou']:.1f} %"


def _chain(values: Sequence[float]) -> str:
    return " → ".join(f"{100 * value:.1f}" for value in values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
