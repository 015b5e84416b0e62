"""Accuracy on CamVid against parameters, of FCN-8s and unet-lite, beside published networks.

python bench/papers/camvid.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import common
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row
from measures import measure

from edgeseg.building import BuildConfig, build
from edgeseg.data.folders import SPLITS, read_split
from edgeseg.export.network import export_onnx
from edgeseg.options.training import Architecture, Augmentation, Recipe, Teaching, TrainConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import measure_ranges
from edgeseg.runs import CHECKPOINT

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
        Column("int8_mean_iou", "INT8, val"),
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


@dataclass(frozen=True)
class Network:
    """A network and how it is trained: FCNs start from VGG16, unet-lite from scratch.

    From scratch, crops of 224×224 as Jégou et al. take them: an epoch, which covers as many
    pixels, then has more steps.

    Attributes:
        size: (height, width) to which pictures are enlarged, None for that of the scale.
        start: Network of this experiment whose weights it starts from.
        teacher: Network of this experiment from whose scores it learns.
    """

    options: Mapping[str, int]
    arch: Architecture = "unet-lite"
    epochs: int = 30
    batch_size: int = 8
    learning_rate: float = 3e-3
    crop: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    start: str | None = None
    teacher: str | None = None


NETWORKS: Mapping[str, Network] = {
    "FCN-8s, fc 512": Network(
        {"fc_width": 512}, "fcn8s", epochs=12, batch_size=4, learning_rate=1.5e-4
    ),
    "FCN-8s, fc 512, enlarged": Network(
        {"fc_width": 512},
        "fcn8s",
        epochs=5,
        batch_size=4,
        learning_rate=1e-4,
        crop=(352, 480),
        size=(540, 720),
        start="FCN-8s, fc 512",
    ),
    "width 8": Network({"width": 8}),
    "width 16, stem 2": Network({"width": 16, "stem_stride": 2}, epochs=80, crop=(224, 224)),
    "width 16, stem 2, taught": Network(
        {"width": 16, "stem_stride": 2},
        epochs=12,
        learning_rate=1.5e-3,
        crop=(224, 224),
        start="width 16, stem 2",
        teacher="FCN-8s, fc 512",
    ),
    "width 16": Network({"width": 16}),
    "width 24, stem 2": Network({"width": 24, "stem_stride": 2}),
    "width 32, stem 2": Network({"width": 32, "stem_stride": 2}),
    "width 32": Network({"width": 32}),
}


@dataclass(frozen=True)
class Settings:
    """One scale: which networks, at which size; every n-th picture as in ``steps``.

    ``epochs`` replaces those of the networks; INT8 is calibrated on ``calibration`` pictures.
    """

    networks: tuple[str, ...]
    size: tuple[int, int]
    epochs: int | None = None
    calibration: int = 64
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})
    seed: int = 0


SCALES = {
    "smoke": Settings(
        networks=("width 8",), size=(64, 64), epochs=1, calibration=2, steps={"train": 12, "val": 7}
    ),
    "cpu": Settings(
        networks=(
            "FCN-8s, fc 512",
            "FCN-8s, fc 512, enlarged",
            "width 16, stem 2",
            "width 16, stem 2, taught",
        ),
        size=(352, 480),
    ),
    "gpu": Settings(networks=tuple(NETWORKS), size=(352, 480), epochs=300),
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

    def figures(run: Path, engine: TorchEngine) -> dict[str, object]:
        found = measure(engine, read_split(everything, "val"))
        found["int8_mean_iou"] = int8(run, everything, settings)
        if "test" in there:
            found["test_mean_iou"] = measure(engine, read_split(everything, "test"))["mean_iou"]
        return found | {"gflop": gflop(engine)}

    for key in settings.networks:
        network = NETWORKS[key]
        weights = None if network.arch == "unet-lite" else lab.vgg16
        if network.start is not None:
            weights = lab.run_folder(network.start) / CHECKPOINT
        teacher = None if network.teacher is None else lab.run_folder(network.teacher)
        config = TrainConfig(
            data=data,
            run=lab.run_folder(key),
            arch=network.arch,
            options=dict(network.options),
            size=network.size or settings.size,
            weights=weights,
            teaching=Teaching(teacher=teacher),
            recipe=Recipe(
                epochs=settings.epochs or network.epochs,
                batch_size=network.batch_size,
                learning_rate=network.learning_rate,
                augmentation=Augmentation(crop=None if lab.scale == "smoke" else network.crop),
            ),
            seed=settings.seed,
        )
        after = next((row for row in lab.rows if row["key"] == network.start), None)
        lab.train(key, config, partial(figures, config.run), after)
    return judge(lab.scale, lab.rows)


def int8(run: Path, data: Path, settings: Settings) -> float:
    """Mean IoU of the INT8 engine for ONNX Runtime, calibrated on training pictures."""
    network, manifest = run / "model.onnx", run / "calibration.json"
    export_onnx(run / "model.safetensors", network)
    collect(data / "train" / "images", manifest, count=settings.calibration)
    measure_ranges(network, manifest).save(run / "model.ranges.json")
    # Its loss is what is measured here, so no loss is too large.
    config = BuildConfig(network, "int8", "onnxruntime", data=data, max_drop=1, max_class_drop=1)
    gate = build(config).sidecar.gate
    assert gate is not None
    return gate.value


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
    if "int8_mean_iou" in best:
        drop = max(row["mean_iou"] - row["int8_mean_iou"] for row in rows)
        lost = f"{100 * drop:.2f} points at most" if drop > 0 else "nothing"
        remark += f"INT8 loses {lost}."
    return Outcome(seen + ".", None if scale == "smoke" else 100 * best["mean_iou"] > 46.4, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU over parameters: ours by kind, the published ones hollow."""
    axes = figure.subplots()
    kinds = {"FCN, val": ("#2a9d78", "D"), "unet-lite, val": ("#3b82c4", "o")}
    kinds["unet-lite, stem stride 2, val"] = ("#d9822b", "s")
    begun = {network.start for network in NETWORKS.values()}
    for kind, (colour, marker) in kinds.items():
        ours = sorted(
            (row["parameters"], 100 * row["mean_iou"], row["key"])
            for row in rows
            if kind == _kind(row)
        )
        if not ours:
            continue
        points = zip(*(point[:2] for point in ours), strict=True)
        axes.plot(*points, color=colour, marker=marker, label=kind)
        for million, height, key in ours:
            axes.annotate(
                key.replace(", stem 2", ""),
                (million, height),
                (0, -14 if key in begun else 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    tested = [row for row in rows if "test_mean_iou" in row]
    if tested:
        axes.plot(
            [row["parameters"] for row in tested],
            [100 * row["test_mean_iou"] for row in tested],
            "x",
            color="#2a9d78",
            label="the same on 62 frames of the test split",
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
    axes.margins(x=0.25, y=0.12)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _kind(row: Row) -> str:
    if row["settings"]["arch"] != "unet-lite":
        return "FCN, val"
    stem = row["settings"]["options"].get("stem_stride", 1)
    return "unet-lite, val" if stem == 1 else f"unet-lite, stem stride {stem}, val"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
