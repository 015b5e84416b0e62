"""Accuracy in INT8 against time on a CPU: networks of ``camvid.py`` at several sizes of picture.

python bench/papers/pareto.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

Run ``camvid.py`` of the same scale first, whose networks are measured here: nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from common import CAMVID_CLASSES, Column, Experiment, Lab, Outcome, Row

from edgeseg.artifacts.files import sha256_file
from edgeseg.benchmark.budget import recommend
from edgeseg.benchmark.cases import Case
from edgeseg.benchmark.document import BenchReport
from edgeseg.benchmark.measure import bench
from edgeseg.building import BuildConfig, build
from edgeseg.data.folders import Split, read_split
from edgeseg.engines import open_engine
from edgeseg.errors import UsageError
from edgeseg.export.network import export_module
from edgeseg.options.benchmark import BenchConfig
from edgeseg.options.training import Recipe, TrainConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.graph import work
from edgeseg.precision.ranges import measure_ranges
from edgeseg.runs import CHECKPOINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="pareto",
    title="Accuracy against time in INT8",
    paper="Ma et al. 2018 (ShuffleNet V2), section 1",
    claim="Arithmetic is an indirect measure of speed: networks of similar FLOPs differ in speed.",
    columns=(
        Column("parameters", "Parameters", "M", 2),
        Column("gflop", "Arithmetic", "GFLOP", 2),
        Column("p50_ms", "INT8, p50", "ms", 1),
        Column("p95_ms", "INT8, p95", "ms", 1),
        Column("rate", "INT8", "GFLOP/s", 0),
        Column("fp32_mean_iou", "Mean IoU, val"),
        Column("mean_iou", "INT8, val"),
    ),
    data="camvid",
)
BUDGETS = ("5ms", "10ms", "20ms", "50ms", "100ms", "200ms")
"""Times a frame for which ``edgeseg bench --budget`` recommends one of the engines."""

Size = tuple[int, int]
"""Height and width of a picture as the network takes it."""


@dataclass(frozen=True)
class Settings:
    """One scale.

    Attributes:
        networks: Network of the experiment camvid → sizes that it is measured at.
        seconds: Time for which each engine is measured, on one thread.
        rounds: Blocks into which that time is divided.
        calibration: Pictures that INT8 is calibrated on, at each size.
        steps: Every n-th picture is taken.
    """

    networks: Mapping[str, tuple[Size, ...]]
    seconds: float = 5.0
    rounds: int = 12
    calibration: int = 32
    steps: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "val": 1})


SMALL = ((192, 256), (256, 320), (256, 352), (320, 416), (352, 480), (480, 640))
CPU = Settings(
    {
        "width 16, stem 2": SMALL,
        "width 16, stem 2, taught": SMALL,
        "FCN-8s, fc 512": ((192, 256), (256, 352), (320, 416), (352, 480)),
    }
)
SCALES = {
    "smoke": Settings(
        {"width 8": ((32, 32),)},
        seconds=0.3,
        rounds=3,
        calibration=2,
        steps={"train": 12, "val": 7},
    ),
    "cpu": CPU,
    "gpu": CPU,
}


@dataclass(frozen=True)
class Candidate:
    """A trained network at one size."""

    key: str
    checkpoint: Path
    size: Size
    folder: Path


def body(lab: Lab) -> Outcome:
    """Build all engines, then measure them in turns."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    names = None if lab.scale == "smoke" else CAMVID_CLASSES
    data = common.link_subset(lab.data, lab.folder / "data", settings.steps, names)
    candidates = [
        Candidate(key, checkpoint(lab, name), size, lab.run_folder(key))
        for name, sizes in settings.networks.items()
        for size in sizes
        for key in (f"{name}, {size[1]}x{size[0]}",)
    ]

    @cache
    def measured() -> tuple[BenchReport, dict[str, dict[str, Any]]]:
        built = {one.key: prepare(one, data, settings.calibration) for one in candidates}
        config = BenchConfig(settings.seconds, settings.rounds, warm_up_seconds=1, cold_starts=0)
        return timed(candidates, read_split(data, "val"), config), built

    for place, one in enumerate(candidates):

        def figures(place: int = place, key: str = one.key) -> dict[str, Any]:
            report, built = measured()
            run = report.runs[place]
            latency = run.latency_ms or {}
            return {
                **built[key],
                "p50_ms": latency["p50"],
                "p95_ms": latency["p95"],
                "rate": built[key]["gflop"] / (latency["p50"] / 1e3),
                "mean_iou": run.mean_iou,
                "budgets": [b for b in BUDGETS if recommended(report, b) == run.engine],
            }

        decides = {"checkpoint": sha256_file(one.checkpoint), "size": one.size}
        lab.row(one.key, decides | asdict(settings), figures)
    return judge(lab.scale, lab.rows)


def checkpoint(lab: Lab, name: str) -> Path:
    """The weights of a network of the experiment camvid; raises UsageError where it is missing."""
    folder = lab.folder.with_name("camvid") / lab.run_folder(name).name
    if lab.scale == "smoke":
        from edgeseg.training.loop import train

        recipe = Recipe(epochs=1, batch_size=2)
        options: dict[str, bool | int | float | str] = {"width": 8, "depth": 1}
        train(TrainConfig(lab.data, folder, options=options, size=(64, 64), recipe=recipe))
    if not (folder / CHECKPOINT).exists():
        raise UsageError(
            f"{folder / CHECKPOINT}: no such file, and nothing is trained here",
            hint=f"run python bench/papers/camvid.py --scale {lab.scale} first",
        )
    return folder / CHECKPOINT


def prepare(one: Candidate, data: Path, calibration: int) -> dict[str, Any]:
    """Export and quantise a network at one size; returns its figures apart from times.

    They are kept in the folder, so that times can be measured again in minutes.
    """
    import onnx

    from edgeseg.training.checkpoint import load_checkpoint

    kept, origin = one.folder / "figures.json", sha256_file(one.checkpoint)
    if kept.exists() and (found := json.loads(kept.read_text("utf-8")))["origin"] == origin:
        return dict(found["figures"])
    model, card = load_checkpoint(one.checkpoint)
    height, width = one.size
    spec = card.input.model_copy(update={"height": height, "width": width})
    network = one.folder / "model.onnx"
    one.folder.mkdir(parents=True, exist_ok=True)
    export_module(model, card.model_copy(update={"input": spec}), network)
    manifest = one.folder / "calibration.json"
    collect(data / "train" / "images", manifest, count=calibration)
    measure_ranges(network, manifest).save(one.folder / "model.ranges.json")
    # What INT8 loses is measured here, so no loss is too large.
    made = build(
        BuildConfig(network, "int8", "onnxruntime", data=data, max_drop=1, max_class_drop=1)
    )
    assert made.sidecar.gate is not None
    figures = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        # Two operations a multiplication.
        "gflop": 2 * sum(node.macs for node in work(onnx.load(network))) / 1e9,
        "fp32_mean_iou": made.sidecar.gate.reference,
    }
    kept.write_text(json.dumps({"origin": origin, "figures": figures}), "utf-8")
    return figures


def timed(candidates: Sequence[Candidate], val: Split, config: BenchConfig) -> BenchReport:
    """What ``edgeseg bench --threads 1`` measures of the engines."""
    with ExitStack() as stack:
        paths = [one.folder / "model.int8.onnx" for one in candidates]
        engines = [stack.enter_context(open_engine(path, threads=1)) for path in paths]
        return bench([Case.of(engine, 1) for engine in engines], data=val, config=config)


def recommended(report: BenchReport, budget: str) -> str | None:
    """The engine that ``edgeseg bench --budget`` recommends, if one is fast enough."""
    chosen = recommend(report, budget).chosen
    return None if chosen is None else chosen.engine


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where one network does 1.5 times the arithmetic of another per second."""
    slow, fast = (pick(rows, key=lambda row: row["rate"]) for pick in (min, max))
    ratio = fast["rate"] / slow["rate"]
    seen = (
        f"INT8 does {fast['rate']:.0f} GFLOP/s with {fast['key']} and {slow['rate']:.0f} with "
        f"{slow['key']}, {ratio:.1f} times less."
    )
    advice = "; ".join(f"{b}: {row['key']}" for b in BUDGETS for row in rows if b in row["budgets"])
    remark = (
        "One thread, end to end, in turns; the sizes are those at which the network computes, its "
        "labels are compared at the pictures' own. Each network was trained once, at 480x352. For "
        f"a time per frame `edgeseg bench --budget` recommends {advice}."
    )
    return Outcome(seen, None if scale == "smoke" else ratio > 1.5, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Mean IoU over time, a line a network."""
    axes = figure.subplots()
    names = dict.fromkeys(row["key"].rsplit(", ", 1)[0] for row in rows)
    # The sizes of the first network are those of the second, at almost the same places.
    looks = (("#3b82c4", None), ("#d9822b", (-4, 5)), ("#2a9d78", (-4, 5)))
    for name, (colour, place) in zip(names, looks, strict=False):
        mine = sorted((row for row in rows if row["key"].rsplit(", ", 1)[0] == name), key=_time)
        heights = [100 * row["mean_iou"] for row in mine]
        axes.plot([_time(row) for row in mine], heights, "o-", color=colour, label=name)
        for row, height in zip(mine, heights, strict=True) if place else ():
            size = row["key"].rsplit(", ", 1)[1]
            axes.annotate(
                size, (_time(row), height), place, textcoords="offset points", size=7, ha="right"
            )
    axes.set(xlabel="INT8, one thread, p50, ms", ylabel="mean IoU, val, %", xscale="log")
    axes.grid(alpha=0.25)
    axes.margins(x=0.15)
    axes.legend(frameon=False)


def _time(row: Row) -> float:
    return float(row["p50_ms"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
