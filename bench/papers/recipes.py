"""What single parts of a recipe are worth, and what unlabelled pictures add to few labels.

    python bench/papers/recipes.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Each row adds one thing to a plain training with flips and quarter turns. Of the last two, one is
trained on few labelled pictures, and the other, in as many steps, also on pictures that the first
one labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import common
import variants
from common import Column, Experiment, Lab, Outcome, Row
from measures import measure

from edgeseg.data.folders import read_split
from edgeseg.options.training import Augmentation, Recipe, Teaching, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="recipes",
    title="Parts of a recipe, and unlabelled pictures",
    paper="Chen et al. 2017 (DeepLabv3, section 4.1: scales); Shrivastava et al. 2016 (hard "
    "examples); Ronneberger et al. 2015, section 3.1 (elastic deformations); Hinton et al. 2015 "
    "(distillation)",
    claim="Random scales, elastic deformations, hard examples and a teacher's labels each raise "
    "accuracy.",
    columns=(
        Column("mean_iou", "Mean IoU"),
        Column("f1", "F1 at IoU 0.5"),
        Column("merges", "Merges", "", 0),
        Column("border_accuracy", "Pixel accuracy within 4 px of a border"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="dsb2018",
)
PLAIN, FEW, TAUGHT = "plain", "few labels", "few labels, taught"
BALANCED = "class weights"
"""Long et al. 2015, section 4.3: unnecessary. So the claim does not depend on its gain."""
PARTS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    "scales 0.8-1.5": {"scale": (0.8, 1.5)},
    "scales 0.5-2": {"scale": (0.5, 2.0)},
    "elastic": {"elastic": True},
    "hardest quarter": {"ohem": 0.25},
    BALANCED: {"class_weights": "median-frequency"},
}
"""Row → fields of the recipe or its augmentation that differ from the plain one."""


@dataclass(frozen=True)
class Settings(variants.Settings):
    """One scale; the parts to try, and every how many-th picture is labelled for the last two."""

    parts: tuple[str, ...] = tuple(PARTS)
    few: int = 4


SCALES = {
    "smoke": Settings((32, 32), 8, 1, 2, (0,), {"train": 12, "val": 10}, (PLAIN,), few=1),
    "cpu": Settings((128, 128), 8, 12, 8, (0,), steps={"train": 3, "val": 2}),
    "gpu": Settings((512, 512), 16, 60, 8, (0, 1, 2)),
}


def body(lab: Lab) -> Outcome:
    """Train the networks of every seed."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps)
    fewer = {"train": settings.few, "val": 1}
    few = common.link_subset(data, lab.folder / "few", fewer)
    split = read_split(data, "val")

    def row(key: str, after: Row | None = None, **options: Any) -> Row:
        config = TrainConfig(
            run=lab.run_folder(key),
            options={"width": settings.width},
            size=settings.size,
            **options,
        )
        return lab.train(key, config, lambda engine: measure(engine, split), after)

    for seed in settings.seeds:
        for name in settings.parts:
            recipe = _recipe(settings, settings.epochs, **PARTS[name])
            row(f"{name}, seed {seed}", data=data, recipe=recipe, seed=seed)
        alone = f"{FEW}, seed {seed}"
        # An epoch of the taught network has as many unlabelled pictures as labelled ones.
        epochs = settings.few * settings.epochs
        before = row(alone, data=few, recipe=_recipe(settings, epochs), seed=seed)
        row(
            f"{TAUGHT}, seed {seed}",
            before,
            data=few,
            recipe=_recipe(settings, epochs // 2),
            seed=seed,
            teaching=Teaching(lab.run_folder(alone), data / "train" / "images"),
        )
    return judge(lab.scale, lab.rows)


def _recipe(settings: Settings, epochs: int, **changes: Any) -> Recipe:
    losses = {key: changes.pop(key) for key in ("ohem", "class_weights") if key in changes}
    augmentation = Augmentation(**{"orientation": "any", "scale": None} | changes)
    return Recipe(
        epochs=max(1, epochs), batch_size=settings.batch_size, augmentation=augmentation, **losses
    )


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where every part raises mean IoU over the seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["key"].rpartition(",")[0], []).append(100 * row["mean_iou"])
    plain, few = mean(found.pop(PLAIN)), mean(found.pop(FEW))
    gains = {name: mean(values) - plain for name, values in found.items() if name != TAUGHT}
    gains[TAUGHT] = mean(found[TAUGHT]) - few
    seen = f"Mean IoU {plain:.1f} % plain and {few:.1f} % with few labels; points gained: " + (
        "; ".join(f"{name} {gain:+.1f}" for name, gain in gains.items()) + "."
    )
    held = None if scale == "smoke" else min(g for name, g in gains.items() if name != BALANCED) > 0
    spread = max(max(values) - min(values) for values in found.values())
    remark = (
        f"Trainings that differ by the seed alone are up to {spread:.1f} points apart. "
        if len(found[TAUGHT]) > 1
        else "With a single seed, a point more or less may be chance. "
    )
    remark += (
        "The epoch was chosen by val, on which the figures are. The teacher has the size of its "
        "student, which sees each label half as often as a network without a teacher. "
    )
    if scale == "cpu":
        remark += "A narrow network after few epochs on a third of the pictures, which are shrunk."
    return Outcome(seen, held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU of each row, a dot a seed."""
    axes = figure.subplots()
    names = list(dict.fromkeys(row["key"].rpartition(",")[0] for row in rows))
    for row in rows:
        place = names.index(row["key"].rpartition(",")[0])
        axes.plot(100 * row["mean_iou"], place, "o", color="#3b82c4")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mean IoU, %")
    axes.grid(alpha=0.25)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
