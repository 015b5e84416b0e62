"""Accuracy of unet-lite on CamVid against parameters, beside published networks.

python bench/papers/camvid.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import common
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row
from measures import measure

from edgeseg.data.folders import SPLITS, read_split
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseg.training.predictor import TorchEngine

EXPERIMENT = Experiment(
    name="camvid",
    title="Accuracy against parameters on CamVid",
    paper="Jégou et al. 2017, table 3 (FC-DenseNet), for the published figures",
    claim="A network of few parameters trained from scratch holds its own against VGG16 with a "
    "decoder: SegNet 46.4 % with 29.5 M, FCN-8s 57.0 % with 134.5 M.",
    columns=(
        Column("parameters", "Parameters", "M", 2),
        Column("gflop", "Arithmetic", "GFLOP", 2),
        Column("mean_iou", "Mean IoU, val"),
        Column("test_mean_iou", "Mean IoU, test part"),
        Column("pixel_accuracy", "Pixel accuracy, val"),
        Column("border_mean_iou", "Mean IoU within 4 px of a border, val"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="camvid",
)

PUBLISHED = {
    "SegNet": (29.5, 46.4),
    "FCN-8s": (134.5, 57.0),
    "Dilation8": (140.8, 65.3),
    "FC-DenseNet103": (9.4, 66.9),
}
"""Network → (million parameters, mean IoU in %) on the test split at 480×360, from that table."""

NETWORKS: Mapping[str, Mapping[str, int]] = {
    "width 8": {"width": 8},
    "width 16, stem 2": {"width": 16, "stem_stride": 2},
    "width 16": {"width": 16},
    "width 24, stem 2": {"width": 24, "stem_stride": 2},
    "width 32, stem 2": {"width": 32, "stem_stride": 2},
    "width 32": {"width": 32},
}


@dataclass(frozen=True)
class Settings:
    """One scale: which networks, at which size, how long; every n-th picture as in ``steps``."""

    networks: tuple[str, ...]
    size: tuple[int, int]
    epochs: int
    batch_size: int
    learning_rate: float = 3e-3
    crop: tuple[int, int] | None = None
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})
    seed: int = 0


SCALES = {
    "smoke": Settings(
        networks=("width 8", "width 16, stem 2"),
        size=(64, 64),
        epochs=1,
        batch_size=2,
        steps={"train": 12, "val": 7},
    ),
    "cpu": Settings(
        networks=("width 8", "width 16, stem 2", "width 16"),
        size=(176, 240),
        epochs=10,
        batch_size=8,
        steps={"train": 1, "val": 5},
    ),
    "gpu": Settings(
        networks=tuple(NETWORKS),
        size=(360, 480),
        epochs=300,
        batch_size=8,
    ),
}


def body(lab: Lab) -> Outcome:
    """Train the networks of the scale, all alike."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    names = None if lab.scale == "smoke" else CAMVID_CLASSES
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps, names)
    there = {split: 1 for split in SPLITS if (lab.data / split).is_dir()}
    if lab.scale == "smoke":
        there = dict(settings.steps)
    everything = common.link_subset(lab.data, lab.folder / "all", there, names)

    def figures(engine: TorchEngine) -> dict[str, object]:
        found = measure(engine, read_split(everything, "val"))
        if "test" in there:
            found["test_mean_iou"] = measure(engine, read_split(everything, "test"))["mean_iou"]
        return found | {"gflop": gflop(engine)}

    for key in settings.networks:
        config = TrainConfig(
            data=data,
            run=lab.run_folder(key),
            arch="unet-lite",
            options=dict(NETWORKS[key]),
            size=settings.size,
            recipe=Recipe(
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                augmentation=Augmentation(orientation="upright", crop=settings.crop),
            ),
            seed=settings.seed,
        )
        lab.train(key, config, figures)
    return judge(lab.scale, lab.rows)


def gflop(engine: TorchEngine) -> float:
    """Arithmetic of one picture at the network's size: two operations a multiplication."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edgeseg.models import build

    card = engine.card
    with torch.device("meta"):
        model = build(card.arch, len(card.classes), card.input.channels, **card.options).eval()
        picture = torch.empty(1, *card.input.shape)
    with FlopCounterMode(display=False) as counter:
        model(picture)
    return float(counter.get_total_flops()) / 1e9


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where a network of less than 2 M parameters passes SegNet's figure."""
    best = max((row for row in rows if row["parameters"] < 2), key=lambda row: row["mean_iou"])
    seen = (
        f"{best['key']} with {best['parameters']:.2f} M parameters reaches "
        f"{100 * best['mean_iou']:.1f} % on val"
    )
    if "test_mean_iou" in best:
        seen += f" and {100 * best['test_mean_iou']:.1f} % on the part of test at hand"
    remark = (
        "The published figures are on the full test split of 233 frames at full size; val is one "
        "drive of 101 frames, by which the epoch was chosen, and the part of test is 62 frames at "
        "dusk. So the points lie in one plot for orientation and are not to be ranked. "
    )
    if scale == "cpu":
        remark += (
            "Trained from scratch at half the size for ten epochs, which is far from convergence."
        )
    return Outcome(seen + ".", None if scale == "smoke" else 100 * best["mean_iou"] > 46.4, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU over parameters: ours by stem, the published ones hollow."""
    axes = figure.subplots()
    for stem, colour, marker in ((1, "#3b82c4", "o"), (2, "#d9822b", "s")):
        ours = sorted(
            (row["parameters"], 100 * row["mean_iou"], row["key"].split(",")[0])
            for row in rows
            if row["settings"]["options"].get("stem_stride", 1) == stem
        )
        if not ours:
            continue
        points = zip(*(point[:2] for point in ours), strict=True)
        label = f"unet-lite, stem stride {stem}, val"
        axes.plot(*points, color=colour, marker=marker, label=label)
        for million, height, text in ours:
            below = stem == 2
            axes.annotate(
                text,
                (million, height),
                (0, -14 if below else 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    axes.plot(
        *zip(*PUBLISHED.values(), strict=True),
        "o",
        color="#7d8590",
        markerfacecolor="none",
        label="published, full test split, 480×360",
    )
    for name, (million, height) in PUBLISHED.items():
        axes.annotate(
            name,
            (million, height),
            (-7, 5),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#7d8590",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("parameters, million")
    axes.set_ylabel("mean IoU, %")
    axes.grid(alpha=0.25)
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
