"""The original U-Net on the electron microscopy it was made for, with and without deformations.

    python bench/papers/isbi.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Valid convolutions with mirrored rims, whole slices and batches of one, elastic deformations; no
weight map, whose effect is ``borders.py``'s and which trades pixel error for fewer merges. The
masks separate cells by membrane, so each connected piece of cell is an object.

The paper's figure is the challenge's "pixel error", "1 - the maximal F-score of pixel similarity"
(its evaluation page, and ``PixelError`` of Fiji's Trainable Segmentation): the F-score of the
cells' pixels over thresholds of the probability map. It is lower than the share of wrong pixels,
since most pixels are cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import common
import cv2
import numpy as np
from common import Column, Experiment, Lab, Outcome, Row, average
from measures import measure
from numpy.typing import NDArray

from edgeseg.artifacts.files import atomic_path
from edgeseg.data.folders import Split, load_sample, read_split
from edgeseg.objects import components
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseg.training.predictor import TorchEngine

Orientation = tuple[int, bool]
"""Quarter turns, and whether the turned picture is mirrored."""

AS_IT_IS: tuple[Orientation, ...] = ((0, False),)
ALL_ORIENTATIONS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))
THRESHOLDS = np.arange(10) / 10
"""The challenge compares at ten levels."""

EXPERIMENT = Experiment(
    name="isbi",
    title="The valid U-Net on ISBI 2012",
    paper="Ronneberger, Fischer and Brox 2015, section 4 and table 1",
    claim="Trained on 30 slices with elastic deformations U-Net reaches a pixel error of 6.11 %; "
    "the deformations are the key to training with so few pictures.",
    columns=(
        Column("challenge_error_turned", "Pixel error, challenge, 8 orientations", "%", 2),
        Column("challenge_error", "Pixel error, challenge", "%", 2),
        Column("pixel_error", "Wrong pixels", "%", 2),
        Column("mean_iou", "Mean IoU"),
        Column("f1", "F1 of cells at IoU 0.5"),
        Column("merges", "Merges", "", 0),
        Column("splits", "Splits", "", 0),
        Column("parameters", "Parameters", "M"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="isbi2012",
)
ELASTIC = {"elastic": True, "not elastic": False}


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th slice as in ``steps``, a pair of networks a seed."""

    size: tuple[int, int]
    options: dict[str, bool | int]
    epochs: int
    learning_rate: float
    seeds: tuple[int, ...]
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SCALES = {
    "smoke": Settings(
        size=(64, 64),
        options={"width": 8, "depth": 2},
        epochs=1,
        learning_rate=1e-3,
        seeds=(0,),
        steps={"train": 23, "val": 7},
    ),
    "cpu": Settings(
        size=(512, 512),
        options={"width": 16, "batch_norm": True},
        epochs=60,
        learning_rate=1e-3,
        seeds=(0,),
    ),
    "gpu": Settings(
        size=(512, 512),
        options={"width": 64, "batch_norm": True},
        epochs=600,
        learning_rate=1e-3,
        seeds=(0, 1, 2),
    ),
}


def body(lab: Lab) -> Outcome:
    """Train the pairs, seed by seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = with_cells(common.link_subset(lab.data, lab.folder / "data", settings.steps))
    split = read_split(data, "val")

    def figures(engine: TorchEngine) -> dict[str, object]:
        found = measure(engine, split)
        errors = {
            "pixel_error": 1 - found["pixel_accuracy"],
            "challenge_error": challenge_error(*cells(engine.path, split, AS_IT_IS)),
            "challenge_error_turned": challenge_error(*cells(engine.path, split, ALL_ORIENTATIONS)),
        }
        return found | errors

    for seed in settings.seeds:
        for name, elastic in ELASTIC.items():
            key = f"{name}, seed {seed}"
            recipe = Recipe(
                epochs=settings.epochs,
                batch_size=1,
                learning_rate=settings.learning_rate,
                dice=0.0,
                augmentation=Augmentation(orientation="any", scale=(1.0, 1.0), elastic=elastic),
            )
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                arch="unet",
                options=dict(settings.options),
                size=settings.size,
                color="gray",
                recipe=recipe,
                seed=seed,
            )
            lab.train(key, config, figures)
    return judge(lab.scale, lab.rows)


def cells(
    checkpoint: Path, split: Split, orientations: Sequence[Orientation]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where the cells of a split are, and how probable the network says they are.

    Args:
        checkpoint: A network of two classes, of which the second is the cells.
        split: Pictures, which are resized to the network's size.
        orientations: Those in which each picture is segmented; probabilities are averaged.

    Returns:
        Both 1-dimensional, the pixels of all masks; probabilities are from 0 to 1.
    """
    import torch

    from edgeseg.models.mirror import same_size_logits
    from edgeseg.training.checkpoint import load_checkpoint

    model, card = load_checkpoint(checkpoint)
    model.eval()
    truths, probabilities = [], []
    for sample in split:
        image, mask = load_sample(sample, card.classes)
        picture = torch.from_numpy(preprocess(image, card.input))[None]
        total = np.zeros(picture.shape[2:], np.float32)
        for turns, mirrored in orientations:
            with torch.inference_mode():
                turned = torch.rot90(picture, turns, (2, 3))
                turned = turned.flip(3) if mirrored else turned
                found = same_size_logits(model, turned).softmax(dim=1)[:, 1:]
                found = found.flip(3) if mirrored else found
                total += torch.rot90(found, -turns, (2, 3))[0, 0].numpy()
        truths.append(np.ravel(mask == 1))
        probabilities.append(cv2.resize(total / len(orientations), mask.shape[::-1]).ravel())
    return np.concatenate(truths), np.concatenate(probabilities)


def challenge_error(truths: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> float:
    """The challenge's pixel error, from 0 to 1: 1 − the best F-score over :data:`THRESHOLDS`.

    Args:
        truths: Whether each pixel is cell.
        probabilities: From 0 to 1, of the same shape; counted as cell above the threshold.
    """
    scores = []
    for threshold in THRESHOLDS:
        found = probabilities > threshold
        # 2·TP + FP + FN
        total = np.count_nonzero(found) + np.count_nonzero(truths)
        scores.append(2 * np.count_nonzero(found & truths) / total if total else 1.0)
    return 1 - max(scores)


def with_cells(root: Path) -> Path:
    """Add ``instances/`` where a data set has masks alone: connected pieces of class 1."""
    for name in ("train", "val"):
        if (root / name / "instances").is_dir():
            continue
        split = read_split(root, name)
        for sample in split:
            ids = components(load_sample(sample, split.classes)[1])
            with atomic_path(root / name / "instances" / f"{sample.image.stem}.png") as path:
                cv2.imwrite(str(path), ids.astype(np.uint16))
    return root


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where elastic deformations lower the error, and to the paper's figure."""
    error, plain = (100 * average(rows, name, "challenge_error_turned") for name in ELASTIC)
    wrong = 100 * average(rows, "elastic", "pixel_error")
    f1 = 100 * average(rows, "elastic", "f1")
    seen = (
        f"The challenge's pixel error is {error:.2f} % with elastic deformations and {plain:.2f} % "
        f"without; with them {wrong:.2f} % of the pixels are wrong, and F1 of the cells is "
        f"{f1:.1f} %."
    )
    pictures = rows[0]["settings"]["pictures"]
    remark = (
        f"Trained on {pictures['train']} slices and measured on {pictures['val']} others, by "
        "which the epoch was chosen; the paper's figure is of the challenge's hidden test of 30 "
        "slices, with outputs averaged over seven rotations. The challenge's pixel error is one "
        "minus the best F-score of the cells' pixels over ten thresholds. Both networks see "
        "pictures rotated and mirrored in training. "
    )
    if scale == "cpu":
        remark += "A quarter of the paper's width."
    return Outcome(seen, None if scale == "smoke" else error < plain and error <= 6.11, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """The challenge's pixel error as bars with the paper's as a line, and F1 beside it."""
    left, right = figure.subplots(1, 2)
    seeds = sorted({row["settings"]["seed"] for row in rows})
    for place, (name, colour) in enumerate(zip(ELASTIC, ("#3b82c4", "#9fb8cf"), strict=True)):
        shown = [row for row in rows if row["key"].startswith(name)]
        positions = [seed + 0.4 * place for seed in range(len(shown))]
        for axes, key in ((left, "challenge_error_turned"), (right, "f1")):
            heights = [100 * row[key] for row in shown]
            bars = axes.bar(positions, heights, width=0.38, color=colour, label=name)
            axes.bar_label(bars, fmt="%.1f", fontsize=9)
    left.axhline(6.11, color="#c8553d", linestyle="--", label="paper, hidden test")
    left.set_ylabel("pixel error of the challenge, %")
    left.margins(y=0.15)
    right.set_ylabel("F1 of cells at IoU 0.5, %")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xticks([place + 0.2 for place in range(len(seeds))], [f"seed {s}" for s in seeds])
    names = left.get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=3, frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
