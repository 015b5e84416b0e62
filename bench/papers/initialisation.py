"""He initialisation and dropout of the valid U-Net, on electron microscopy.

    python bench/papers/initialisation.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Without batch normalisation, as in the paper: it would undo what an initialisation does. Without
elastic deformations, whose work dropout might do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import common
from common import Column, Experiment, Lab, Outcome, Row, average
from measures import measure

from edgeseg.data.folders import load_sample, read_split
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseg.data.folders import Split
    from edgeseg.training.predictor import TorchEngine

EXPERIMENT = Experiment(
    name="initialisation",
    title="Initialisation and dropout",
    paper="Ronneberger, Fischer and Brox 2015, sections 3 and 3.1",
    claim="Initial weights of standard deviation √(2/N) give each feature map a variance of about "
    "1, without which parts of a network may never contribute; dropout at the end of the "
    "contracting path augments the data further.",
    columns=(
        Column("pixel_error", "Pixel error", "%", 2),
        Column("mean_iou", "Mean IoU"),
        Column("border_mean_iou", "Mean IoU within 4 px of a border"),
        Column("least", "Least deviation of a layer before training", "", 3),
        Column("largest", "Largest deviation", "", 3),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="isbi2012",
)
PAPER, OTHER, WITHOUT = "as in the paper", "PyTorch's initialisation", "without dropout"
DROPOUT = {PAPER: 0.5, OTHER: 0.5, WITHOUT: 0.0}


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th slice as in ``steps``, three networks a seed."""

    size: tuple[int, int]
    options: dict[str, bool | int]
    epochs: int
    seeds: tuple[int, ...]
    learning_rate: float = 1e-3
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SCALES = {
    "smoke": Settings((64, 64), {"width": 8, "depth": 2}, 1, (0,), steps={"train": 23, "val": 7}),
    "cpu": Settings((512, 512), {"width": 8}, 20, (0,)),
    "gpu": Settings((512, 512), {"width": 64}, 200, (0, 1, 2)),
}


def body(lab: Lab) -> Outcome:
    """Train the three, seed by seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    split = read_split(data, "val")
    for seed in settings.seeds:
        for name, dropout in DROPOUT.items():
            key = f"{name}, seed {seed}"
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                arch="unet",
                options={**settings.options, "dropout": dropout},
                size=settings.size,
                color="gray",
                recipe=Recipe(
                    epochs=settings.epochs,
                    batch_size=1,
                    learning_rate=settings.learning_rate,
                    dice=0.0,
                    augmentation=Augmentation(orientation="any", scale=(1.0, 1.0)),
                ),
                seed=seed,
            )
            with initialised(name):
                lab.train(key, config, partial(figures, name, seed, split))
    return judge(lab.scale, lab.rows)


def initialised(name: str) -> AbstractContextManager[object]:
    """While it lasts, U-Nets begin as the row says."""
    return patch("edgeseg.models.unet.initialise") if name == OTHER else nullcontext()


def figures(name: str, seed: int, split: Split, engine: TorchEngine) -> dict[str, object]:
    """What the trained network reaches, and the deviations of its layers before training."""
    found = measure(engine, split)
    deviations = spread(seed, split, engine)
    return found | {
        "pixel_error": 1 - found["pixel_accuracy"],
        "deviations": deviations,
        "least": min(deviations),
        "largest": max(deviations),
        "initialisation": "PyTorch" if name == OTHER else "He",
    }


def spread(seed: int, split: Split, engine: TorchEngine) -> list[float]:
    """Standard deviation of what each 3×3 convolution gives to its ReLU, in order, untrained.

    Of one picture, whose own mean is 0 and whose deviation is 1.
    """
    import torch

    from edgeseg.models import build
    from edgeseg.models.mirror import same_size_logits

    card = engine.card
    torch.manual_seed(seed)
    model = build(card.arch, len(card.classes), card.input.channels, **card.options).eval()
    deviations: list[float] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(
                lambda _layer, _read, made: deviations.append(float(made.std()))
            )
    image, _ = load_sample(next(iter(split)), card.classes)
    picture = torch.from_numpy(preprocess(image, card.input)).reshape(1, *card.input.shape)
    with torch.inference_mode():
        same_size_logits(model, (picture - picture.mean()) / picture.std())
    return deviations


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where both lower the error, and deviations of layers begin within 1:4."""
    error = {name: 100 * average(rows, name, "pixel_error") for name in DROPOUT}
    ours = [value for row in rows if row["key"].startswith(PAPER) for value in row["deviations"]]
    other = [value for row in rows if row["key"].startswith(OTHER) for value in row["deviations"]]
    seen = (
        f"Layers begin with deviations from {min(ours):.2f} to {max(ours):.2f}, with PyTorch's "
        f"initialisation from {min(other):.3f} to {max(other):.2f}. Pixel error {error[PAPER]:.2f} "
        f"%, with PyTorch's initialisation {error[OTHER]:.2f} %, without dropout "
        f"{error[WITHOUT]:.2f} %."
    )
    held = error[PAPER] < min(error[OTHER], error[WITHOUT]) and max(ours) < 4 * min(ours)
    remark = (
        "PyTorch's initialisation is uniform with a deviation of √(1/(3N)). AdamW scales each "
        "step by the gradients that it sees, so layers that begin small still learn."
    )
    if scale == "cpu":
        remark += " A narrow network, few epochs and one seed."
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Deviations layer by layer, and pixel errors as bars."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = dict(zip(DROPOUT, ("#3b82c4", "#d9822b", "#2a9d78"), strict=True))
    for name in (PAPER, OTHER):
        for row in rows:
            if row["key"].startswith(name):
                places = range(1, len(row["deviations"]) + 1)
                left.plot(places, row["deviations"], "o-", color=colours[name], label=name)
    left.axhline(1, color="#7d8590", linewidth=1, linestyle=":")
    left.set_yscale("log")
    left.set_xlabel("3×3 convolution, in order")
    left.set_ylabel("deviation before training")
    left.legend(frameon=False)
    for place, (name, colour) in enumerate(colours.items()):
        error = 100 * average(rows, name, "pixel_error")
        right.bar(place, error, color=colour)
        right.text(place, error, f"{error:.2f}", ha="center", va="bottom", fontsize=9)
    right.set_xticks(range(len(colours)), [name.replace(" ", "\n") for name in colours], fontsize=8)
    right.set_ylabel("pixel error, %")
    right.margins(y=0.1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
