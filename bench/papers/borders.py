"""Nuclei that touch, learnt with and without the weight map of the U-Net paper.

    python bench/papers/borders.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Both networks learn objects with a gap of background between those that touch, and cross-entropy
alone: the weight map is the only difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import common
import variants
from common import Column, Experiment, Lab, Outcome, Row, average
from measures import measure

from edgeseg.data.folders import read_split
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="borders",
    title="A weight map for the borders between touching objects",
    paper="Ronneberger, Fischer and Brox 2015, section 3, equation 2",
    claim="Weighting the background between touching cells (w0 = 10, σ ≈ 5 pixels) makes the "
    "network learn the small separations between them.",
    columns=(
        Column("merges", "Merges", "", 0),
        Column("splits", "Splits", "", 0),
        Column("f1", "F1 at IoU 0.5"),
        Column("precision", "Precision"),
        Column("recall", "Recall"),
        Column("count_error", "Count error", "nuclei a picture"),
        Column("mean_iou", "Mean IoU"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="dsb2018",
)
WEIGHTS = {"without map": 0.0, "with map": 10.0}
"""Row → w0."""


@dataclass(frozen=True)
class Settings(variants.Settings):
    """One scale; a pair of networks per seed."""

    sigma: float = 5.0


SCALES = {
    "smoke": Settings((64, 64), 8, 1, 2, (0,), steps={"train": 23, "val": 7}),
    "cpu": Settings((256, 256), 8, 8, 8, (0,), steps={"train": 2, "val": 1}),
    "gpu": Settings((512, 512), 32, 100, 8, (0, 1, 2)),
}


def body(lab: Lab) -> Outcome:
    """Train the pairs, seed by seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    split = read_split(data, "val")
    for seed in settings.seeds:
        for name, w0 in WEIGHTS.items():
            key = f"{name}, seed {seed}"
            recipe = Recipe(
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                dice=0.0,
                border_weight=w0,
                border_sigma=settings.sigma,
                touching="gap",
                augmentation=Augmentation(orientation="any"),
            )
            config = TrainConfig(
                data=data,
                run=lab.run_folder(key),
                options={"width": settings.width},
                size=settings.size,
                recipe=recipe,
                seed=seed,
            )
            lab.train(key, config, lambda engine: measure(engine, split))
    return judge(lab.scale, lab.rows)


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where, over the seeds, merges fall and F1 rises."""
    without, weighted = WEIGHTS
    merges = [average(rows, name, "merges") for name in (without, weighted)]
    f1 = [100 * average(rows, name, "f1") for name in (without, weighted)]
    seeds = sum(row["key"].startswith(weighted) for row in rows)
    seen = (
        f"Over {seeds} seed{'' if seeds == 1 else 's'}, merges go from {merges[0]:.1f} to "
        f"{merges[1]:.1f} of {rows[0]['truths']} nuclei and F1 from {f1[0]:.1f} to {f1[1]:.1f} %."
    )
    remark = (
        "Both learn a gap of background between nuclei that touch, which alone keeps many apart. "
        "The map trades merges for a few splits and thinner nuclei, which mean IoU shows. "
    )
    if scale == "cpu":
        remark += "A small network after few epochs on half of the pictures, which are shrunk."
    held = merges[1] < merges[0] and f1[1] > f1[0]
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Merges and F1, a line a seed from without to with."""
    axes = figure.subplots(1, 2)
    panels = zip(axes, ("merges", "f1"), (1, 100), strict=True)
    for axis, key, factor in panels:
        for seed in sorted({row["settings"]["seed"] for row in rows}):
            values = [factor * row[key] for row in rows if row["settings"]["seed"] == seed]
            axis.plot(range(len(values)), values, marker="o", label=f"seed {seed}")
        axis.set_xticks(range(len(WEIGHTS)), WEIGHTS)
        axis.set_xlim(-0.4, len(WEIGHTS) - 0.6)
        axis.grid(alpha=0.25, axis="y")
    axes[0].set_ylabel("predictions that merge nuclei")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylabel("F1 at IoU 0.5, %")
    axes[1].set_ylim(0, 100)
    axes[0].legend(frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
