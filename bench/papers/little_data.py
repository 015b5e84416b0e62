"""FCN-8s on a tenth of CamVid: pretrained or not, with augmentation or without.

    python bench/papers/little_data.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

The scale smoke runs the same code on unet-lite, with a network of fresh weights for ImageNet's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row
from measures import measure

from edgeseg.data.folders import Split, read_split
from edgeseg.options.training import Architecture, Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseg.artifacts.card import ClassMap
    from edgeseg.training.predictor import TorchEngine

EXPERIMENT = Experiment(
    name="little_data",
    title="Few labelled pictures",
    paper="Long et al. 2015, section 4.1 (fine-tuning); Ronneberger et al. 2015, section 3.1",
    claim="Starting from a classifier is what makes FCNs trainable on little data (from scratch "
    "is not feasible), and augmentation is essential where few samples are available.",
    columns=(
        Column("start", "Start", ""),
        Column("augmentation", "Augmentation", ""),
        Column("mean_iou", "Mean IoU"),
        Column("pixel_accuracy", "Pixel accuracy"),
        Column("border_mean_iou", "Mean IoU within 4 px of a border"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="camvid",
)


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th picture as in ``steps``.

    The network is kept by ``val``, of which fewer pictures may be taken; figures are of all.
    """

    size: tuple[int, int]
    arch: Architecture
    options: dict[str, int]
    epochs: int
    batch_size: int
    learning_rate: float
    steps: Mapping[str, int]
    seed: int = 0


SCALES = {
    "smoke": Settings(
        size=(64, 64),
        arch="unet-lite",
        options={"width": 8, "depth": 2},
        epochs=1,
        batch_size=2,
        learning_rate=1e-3,
        steps={"train": 23, "val": 7},
    ),
    "cpu": Settings(
        size=(128, 160),
        arch="fcn8s",
        options={"fc_width": 512},
        epochs=10,
        batch_size=4,
        learning_rate=1e-4,
        steps={"train": 10, "val": 5},
    ),
    "gpu": Settings(
        size=(360, 480),
        arch="fcn8s",
        options={"fc_width": 4096},
        epochs=300,
        batch_size=4,
        learning_rate=1e-4,
        steps={"train": 10, "val": 1},
    ),
}


def body(lab: Lab) -> Outcome:
    """Train the four combinations."""
    settings = SCALES[lab.scale]
    smoke = lab.scale == "smoke"
    lab.settings = asdict(settings)
    names = None if smoke else CAMVID_CLASSES
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps, names)
    every = {"val": settings.steps["val"] if smoke else 1}
    split = read_split(common.link_subset(lab.data, lab.folder / "all", every, names), "val")
    if smoke:
        small = TrainConfig(data, lab.folder, options=dict(settings.options), size=settings.size)
        classifier = _untrained(small, split.classes)
    else:
        classifier = lab.vgg16
    for pretrained, augmented in itertools.product((True, False), repeat=2):
        cells = {
            "start": "ImageNet" if pretrained else "scratch",
            "augmentation": "on" if augmented else "off",
        }
        key = f"{cells['start']}, augmentation {cells['augmentation']}"
        config = TrainConfig(
            data=data,
            run=lab.run_folder(key),
            arch=settings.arch,
            options=dict(settings.options),
            size=settings.size,
            recipe=Recipe(
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                augmentation=Augmentation() if augmented else None,
            ),
            weights=classifier if pretrained else None,
            seed=settings.seed,
        )
        lab.train(key, config, partial(_figures, split, cells))
    return judge(lab.scale, lab.rows)


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where ImageNet wins either way and augmentation helps the winner."""
    both, weights, augmentation, nothing = (100 * row["mean_iou"] for row in rows)
    seen = (
        f"Mean IoU from ImageNet {both:.1f} % with augmentation and {weights:.1f} % without; "
        f"from scratch {augmentation:.1f} % and {nothing:.1f} %."
    )
    remark = f"On {rows[0]['settings']['pictures']['train']} pictures, every tenth of train. "
    if scale == "cpu":
        remark += (
            "One seed and some 90 steps: what augmentation is for, overfitting, has hardly begun, "
            "and from scratch the networks have hardly learnt."
        )
    held = both > augmentation and weights > nothing and both > weights
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU as two pairs of bars."""
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = "#3b82c4" if row["augmentation"] == "on" else "#9fb8cf"
        height = 100 * row["mean_iou"]
        label = f"augmentation {row['augmentation']}" if place < 2 else None
        position = place // 2 + 0.36 * (place % 2)
        axes.bar(position, height, width=0.34, color=colour, label=label)
        axes.annotate(
            f"{height:.1f}",
            (position, height),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_xticks((0.18, 1.18), ("from ImageNet", "from scratch"))
    axes.set_ylabel("mean IoU, %")
    axes.margins(y=0.15)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)


def _figures(split: Split, cells: Mapping[str, str], engine: TorchEngine) -> dict[str, Any]:
    return {**cells, **measure(engine, split)}


def _untrained(config: TrainConfig, classes: ClassMap) -> Path:
    """A checkpoint of fresh weights, to run the code without a classifier."""
    from edgeseg.models import build
    from edgeseg.training.checkpoint import save_checkpoint
    from edgeseg.training.setup import make_card

    card = make_card(config, classes)
    path = config.run / "fresh.safetensors"
    save_checkpoint(path, build(config.arch, len(classes), 3, **config.options), card)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
