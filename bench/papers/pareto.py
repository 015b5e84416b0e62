"""Time of unet-lite in INT8 against its arithmetic, over width, depth, stem and resolution.

python bench/papers/pareto.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Nothing is trained. A row has the accuracy of the run ``runs/papers/SCALE/pareto/KEY``, if there is
one of the same options and size: ``edgeseg train --run runs/papers/cpu/pareto/width-16-stem-2 …``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from common import Column, Experiment, Lab, Outcome, Row
from harness import thread_milliseconds

from edgeseg.artifacts.files import sha256_file
from edgeseg.building import BuildConfig, build
from edgeseg.data.folders import read_split
from edgeseg.export.network import export_module
from edgeseg.options.training import TrainConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.graph import work
from edgeseg.precision.ranges import measure_ranges
from edgeseg.runs import CHECKPOINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="pareto",
    title="Time in INT8 against arithmetic",
    paper="Ma et al. 2018 (ShuffleNet V2), section 1",
    claim="Arithmetic is an indirect measure of speed: networks of similar FLOPs differ in speed.",
    columns=(
        Column("parameters", "Parameters", "M", 3),
        Column("gflop", "Arithmetic", "GFLOP", 2),
        Column("fp32_ms", "FP32, p50", "ms", 1),
        Column("int8_ms", "INT8, p50", "ms", 1),
        Column("rate", "INT8", "GFLOP/s", 0),
        Column("mean_iou", "Mean IoU, val"),
    ),
    data=None,
)


@dataclass(frozen=True)
class Network:
    """Options of unet-lite, and the (height, width) of its pictures."""

    options: Mapping[str, int]
    size: tuple[int, int] = (352, 480)


NETWORKS: Mapping[str, Network] = {
    "width 8": Network({"width": 8}),
    "width 16": Network({"width": 16}),
    "width 8, stem 2": Network({"width": 8, "stem_stride": 2}),
    "width 16, stem 2": Network({"width": 16, "stem_stride": 2}),
    "width 24, stem 2": Network({"width": 24, "stem_stride": 2}),
    "width 32, stem 2": Network({"width": 32, "stem_stride": 2}),
    "width 16, stem 2, depth 3": Network({"width": 16, "stem_stride": 2, "depth": 3}),
    "width 16, stem 2, depth 5": Network({"width": 16, "stem_stride": 2, "depth": 5}),
    "width 32, stem 2, depth 3": Network({"width": 32, "stem_stride": 2, "depth": 3}),
    "width 16, 240x176": Network({"width": 16}, (176, 240)),
    "width 16, 360x264": Network({"width": 16}, (264, 360)),
    "width 32, stem 2, 360x264": Network({"width": 32, "stem_stride": 2}, (264, 360)),
    "width 16, stem 2, 640x480": Network({"width": 16, "stem_stride": 2}, (480, 640)),
}
SMOKE = {
    "width 8": Network({"width": 8, "depth": 1}, (32, 32)),
    "width 16": Network({"width": 16, "depth": 1}, (32, 32)),
}


@dataclass(frozen=True)
class Settings:
    """One scale: which networks, how many calls of each, pictures that INT8 is calibrated on."""

    networks: Mapping[str, Network]
    rounds: int = 40
    calibration: int = 4


SCALES = {
    "smoke": Settings(SMOKE, rounds=5, calibration=1),
    "cpu": Settings(NETWORKS),
    "gpu": Settings(NETWORKS),
}


def body(lab: Lab) -> Outcome:
    """Export, quantise and time all networks of the scale."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    for key, network in settings.networks.items():
        run = lab.run_folder(key)
        checkpoint = run / CHECKPOINT
        decides = asdict(network) | {
            "rounds": settings.rounds,
            "calibration": settings.calibration,
            "checkpoint": sha256_file(checkpoint) if checkpoint.exists() else None,
        }
        config = TrainConfig(lab.data, run, options=dict(network.options), size=network.size)
        lab.row(key, decides, lambda config=config: measure(config, settings))  # type: ignore[misc]
    return judge(lab.scale, lab.rows)


def measure(config: TrainConfig, settings: Settings) -> dict[str, Any]:
    """Figures of one network; untrained where its run has no checkpoint."""
    from edgeseg.models import build as build_network
    from edgeseg.training.checkpoint import load_checkpoint
    from edgeseg.training.setup import make_card

    card = make_card(config, read_split(config.data, "train").classes)
    model = build_network(card.arch, len(card.classes), card.input.channels, **card.options)
    checkpoint, mean_iou = config.run / CHECKPOINT, None
    if checkpoint.exists():
        trained, found = load_checkpoint(checkpoint)
        if (found.options, found.input.shape) == (card.options, card.input.shape):
            model, card, mean_iou = trained, found, found.metrics["mean_iou"]
    folder = config.run.with_name(f"{config.run.name}.timed")
    folder.mkdir(parents=True, exist_ok=True)
    network = folder / "model.onnx"
    export_module(model, card, network)
    collect(config.data / "train" / "images", folder / "all.json", count=settings.calibration)
    measure_ranges(network, folder / "all.json").save(folder / "model.ranges.json")
    made = build(BuildConfig(network, "int8", "onnxruntime", min_agreement=0))
    times = thread_milliseconds({"fp32": network, "int8": made.engine}, settings.rounds)
    gflop = _gflop(network)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        "gflop": gflop,
        **{f"{name}_ms": value for name, value in times.items()},
        "rate": gflop / (times["int8"] / 1e3),
        "mean_iou": mean_iou,
    }


def _gflop(network: Path) -> float:
    """Arithmetic of one picture: two operations a multiplication."""
    import onnx

    return 2 * sum(node.macs for node in work(onnx.load(network))) / 1e9


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where one network does 1.5 times the arithmetic of another per second."""
    slow, fast = (pick(rows, key=lambda row: row["rate"]) for pick in (min, max))
    ratio = fast["rate"] / slow["rate"]
    seen = (
        f"INT8 does {fast['rate']:.0f} GFLOP/s with {fast['key']} and {slow['rate']:.0f} with "
        f"{slow['key']}, {ratio:.1f} times less."
    )
    remark = (
        "Milliseconds are CPU time of the one thread that ONNX Runtime computes in, of FP32 and "
        "INT8 in turns. Accuracies are those of trained runs where there are any."
    )
    return Outcome(seen, None if scale == "smoke" else ratio > 1.5, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Time over arithmetic, FP32 and INT8."""
    axes = figure.subplots()
    for name, colour, marker in (("fp32", "#0072b2", "o"), ("int8", "#d55e00", "^")):
        points = sorted((row["gflop"], row[f"{name}_ms"]) for row in rows)
        axes.plot(*zip(*points, strict=True), marker, color=colour, label=name.upper())
    for row in rows:
        axes.annotate(row["key"], (row["gflop"], row["int8_ms"]), fontsize=6)
    axes.set(xlabel="GFLOP", ylabel="p50, ms", xscale="log", yscale="log")
    axes.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
