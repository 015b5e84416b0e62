"""Shapes of unet-lite, trained alike on CamVid: accuracy in INT8 against time and operators.

python bench/papers/architectures.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import common
import onnx
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row
from harness import say
from pareto import BUDGETS, Candidate, prepare, recommended, timed

from edgeseg.artifacts.files import sha256_file
from edgeseg.benchmark.document import BenchReport
from edgeseg.data.folders import read_split
from edgeseg.options.benchmark import BenchConfig
from edgeseg.options.training import Recipe, TrainConfig
from edgeseg.precision.graph import at_card_size, tensors

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from onnx import ModelProto

    from edgeseg.training.loop import TrainResult

EXPERIMENT = Experiment(
    name="architectures",
    title="Shapes of unet-lite",
    paper="Howard et al. 2017 (MobileNet), section 4.1 and table 4",
    claim="Depthwise separable convolutions need 8 to 9 times less arithmetic than full ones and "
    "lose 1.1 points of accuracy.",
    columns=(
        Column("parameters", "Parameters", "M", 2),
        Column("gflop", "Arithmetic", "GFLOP", 2),
        Column("operators", "Operators", "", 0),
        Column("traffic", "Read and written in INT8", "MB", 1),
        Column("p50_ms", "INT8, p50", "ms", 1),
        Column("p95_ms", "INT8, p95", "ms", 1),
        Column("fp32_mean_iou", "Mean IoU, val"),
        Column("mean_iou", "INT8, val"),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="camvid",
)
BASE, DEPTHWISE = "width 16", "width 16, depthwise"
Options = dict[str, bool | int | float | str]

HALF: Options = {"stem_stride": 2}
SHAPES: Mapping[str, Options] = {
    BASE: {**HALF, "width": 16},
    "width 16, decoder 8": {**HALF, "width": 16, "decoder_width": 8},
    DEPTHWISE: {**HALF, "width": 16, "depthwise": True},
    "width 32, depthwise": {**HALF, "width": 32, "depthwise": True},
    "width 48, depthwise": {**HALF, "width": 48, "depthwise": True},
    "width 8": {**HALF, "width": 8},
    "width 8, full resolution": {"width": 8},
    "width 16, depth 3": {**HALF, "width": 16, "depth": 3},
    "width 16, depth 5": {**HALF, "width": 16, "depth": 5},
}
"""Name → options of unet-lite; the stem halves the resolution where nothing else is said."""

KERNELS = frozenset({"Conv", "ConvTranspose", "MaxPool", "Resize"})
"""Operators that a runtime runs one by one. TensorRT fuses activations, additions and scales into
the convolution before them and writes concatenated tensors in place."""


@dataclass(frozen=True)
class Settings:
    """One scale; every n-th picture as in ``steps``.

    Attributes:
        seconds: Time for which each engine is measured, on one thread.
        rounds: Blocks into which that time is divided.
        calibration: Pictures that INT8 is calibrated on.
    """

    shapes: tuple[str, ...]
    size: tuple[int, int]
    epochs: int
    batch_size: int = 4
    seconds: float = 5.0
    rounds: int = 12
    calibration: int = 32
    seed: int = 0
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SCALES = {
    "smoke": Settings((BASE, DEPTHWISE), (32, 32), 1, 2, 0.3, 3, 2, steps={"train": 12, "val": 7}),
    "cpu": Settings(tuple(SHAPES), (192, 256), 16),
    "gpu": Settings(tuple(SHAPES), (352, 480), 300, 8),
}


def body(lab: Lab) -> Outcome:
    """Train all shapes, build their engines, then measure these in turns."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    names = None if lab.scale == "smoke" else CAMVID_CLASSES
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps, names)
    trained = {}
    for name in settings.shapes:
        say(f"{EXPERIMENT.name}: {name}")
        config = _config(data, lab.run_folder(name), SHAPES[name], settings)
        # Of a training that is finished, the result is only read.
        trained[name] = config, common.train_to_the_end(config)
    candidates = [
        Candidate(name, result.checkpoint, settings.size, lab.run_folder(f"{name} int8"))
        for name, (_, result) in trained.items()
    ]

    @cache
    def measured() -> tuple[BenchReport, dict[str, dict[str, Any]]]:
        built = {one.key: prepare(one, data, settings.calibration) for one in candidates}
        config = BenchConfig(settings.seconds, settings.rounds, warm_up_seconds=1, cold_starts=0)
        return timed(candidates, read_split(data, "val"), config), built

    for place, one in enumerate(candidates):
        config, result = trained[one.key]

        def figures(
            place: int = place, one: Candidate = one, result: TrainResult = result
        ) -> dict[str, Any]:
            report, built = measured()
            run = report.runs[place]
            latency = run.latency_ms or {}
            return {
                "epochs": len(result.history),
                "train_seconds": round(sum(epoch.seconds for epoch in result.history), 2),
                **built[one.key],
                **operators(onnx.load(one.folder / "model.onnx")),
                "p50_ms": latency["p50"],
                "p95_ms": latency["p95"],
                "mean_iou": run.mean_iou,
                "budgets": [b for b in BUDGETS if recommended(report, b) == run.engine],
            }

        decides = {"checkpoint": sha256_file(one.checkpoint), "measured": asdict(settings)}
        lab.row(one.key, common.settings_of(config) | decides, figures)
    return judge(lab.scale, lab.rows)


def _config(data: Path, run: Path, options: Options, settings: Settings) -> TrainConfig:
    recipe = Recipe(epochs=settings.epochs, batch_size=settings.batch_size)
    return TrainConfig(
        data, run, options=options, size=settings.size, recipe=recipe, seed=settings.seed
    )


def operators(network: ModelProto) -> dict[str, float]:
    """How many kernels run for a picture, and the MB that these read and write in INT8.

    On a GPU, which computes a network this small faster than it moves its tensors, these two
    decide its time rather than the arithmetic does.
    """
    network = at_card_size(network)
    known = tensors(network)
    kernels = [node for node in network.graph.node if node.op_type in KERNELS]
    moved = sum(
        math.prod(side or 1 for side in known[name].shape)
        for node in kernels
        for name in (*node.input, *node.output)
        if name
    )
    return {"operators": len(kernels), "traffic": moved / 1e6}


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where the depthwise network loses 2.2 points at most, twice the paper's."""
    full, divided = (next(r for r in rows if r["key"] == key) for key in (BASE, DEPTHWISE))
    arithmetic, time = (full[key] / divided[key] for key in ("gflop", "p50_ms"))
    lost = 100 * (full["fp32_mean_iou"] - divided["fp32_mean_iou"])
    seen = (
        f"Depthwise convolutions need {arithmetic:.1f} times less arithmetic and take {time:.1f} "
        f"times less time in INT8, for {lost:.1f} points of mean IoU."
    )
    best = [row for row in rows if not any(_beats(other, row) for other in rows)]
    advice = "; ".join(f"{b}: {row['key']}" for b in BUDGETS for row in rows if b in row["budgets"])
    remark = (
        "Ranked among themselves: one seed, few epochs and small pictures, so their level is lower "
        "than those of the table above. No other is both faster and more accurate in INT8 than "
        f"{', '.join(row['key'] for row in sorted(best, key=_time))}. Operators are those that "
        "TensorRT does not fuse with others; what they read and write includes weights. For a "
        f"time per frame `edgeseg bench --budget` recommends {advice}."
    )
    return Outcome(seen, None if scale == "smoke" else lost <= 2.2, remark)


def _beats(row: Row, other: Row) -> bool:
    return bool(row["p50_ms"] < other["p50_ms"] and row["mean_iou"] > other["mean_iou"])


def _time(row: Row) -> float:
    return float(row["p50_ms"])


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU over time on a CPU, and over what a GPU moves, a dot a network."""
    looks = (("p50_ms", "INT8, one thread, p50, ms"), ("traffic", "read and written in INT8, MB"))
    for axes, (key, label) in zip(figure.subplots(1, 2, sharey=True), looks, strict=True):
        middle = sum(pick(row[key] for row in rows) for pick in (min, max)) / 2
        for row in rows:
            place = row[key], 100 * row["mean_iou"]
            axes.plot(*place, "o", color="#d9822b" if row["key"] == BASE else "#3b82c4")
            # Names extend towards the middle, so that they stay in the picture.
            right = row["key"] != BASE and row[key] < middle
            side, offset = ("left", (5, 4)) if right else ("right", (-5, 4))
            axes.annotate(row["key"], place, offset, textcoords="offset points", size=6, ha=side)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        axes.margins(x=0.15)
    figure.axes[0].set_ylabel("mean IoU, val, %")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
