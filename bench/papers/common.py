"""What the experiments share: the command line, rows that outlive an interruption, the document.

An experiment is an :class:`Experiment`, a body that trains and measures, and a picture::

    def body(lab: Lab) -> Outcome:
        row = lab.train("width-16", config, lambda engine: {"mean_iou": ...})
        return Outcome(seen="...", held=row["mean_iou"] > 0.5, remark="...")

    def main(arguments: Sequence[str] | None = None) -> None:
        run(EXPERIMENT, body, draw, arguments)

A finished row is written at once and kept by later runs as long as its settings are the same,
so that what is interrupted goes on where it was and loses one epoch at most.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from harness import errors_as_exit_codes, now, say

from edgeseg import machine
from edgeseg.artifacts.files import atomic_path, write_atomic
from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.data.folders import SPLITS, bundled_sample, read_split
from edgeseg.errors import MismatchedArtifact, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseg.options.training import TrainConfig
    from edgeseg.training.loop import EpochStats, TrainResult
    from edgeseg.training.predictor import TorchEngine

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
SHARED = REPOSITORY.parent / "shared"
SCHEMA = "edgeseg.paper/1"
VGG16 = SHARED / "weights" / "vgg16-imagenet-conv.fp16.safetensors"
"""Where ImageNet weights of VGG16 are looked for; ``--weights`` names another file."""

Row = dict[str, Any]
"""One trained network or one measurement: ``key settings seconds finished commit`` and figures."""

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
"""The eleven classes of Badrinarayanan, Kendall and Cipolla, "SegNet" (2015), in mask order."""


@dataclass(frozen=True)
class Column:
    """A figure of the rows as the report shows it; those in ``%`` are fractions of 1 in a row."""

    key: str
    name: str
    unit: str = "%"
    digits: int = 1

    def text(self, row: Row) -> str:
        """The cell, ``–`` where the row has no such figure."""
        value = row.get(self.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, str):
            return value
        return f"{100 * value if self.unit == '%' else value:.{self.digits}f}"


@dataclass(frozen=True)
class Experiment:
    """What is tried, and what the paper says about it.

    Attributes:
        name: Of the script, the document and the picture.
        title: A heading.
        paper: Authors, year and the place in the paper.
        claim: What the paper found, in a sentence.
        columns: What the table shows of each row, after its key.
        data: Folder below ``../shared/data`` that ``cpu`` and ``gpu`` take; None: no pictures.
    """

    name: str
    title: str
    paper: str
    claim: str
    columns: tuple[Column, ...]
    data: str | None


@dataclass(frozen=True)
class Outcome:
    """What was seen, whether the claim held (None: the scale is too small to say), and a remark."""

    seen: str
    held: bool | None
    remark: str


class Lab:
    """One run of an experiment.

    Attributes:
        experiment: What is tried.
        scale: ``smoke``, ``cpu`` or ``gpu``.
        data: Root of the pictures.
        folder: Place for runs and prepared pictures, ``runs/papers/SCALE/NAME``.
        rows: What is finished, in the order of this run.
        settings: What the scale stands for; the body sets it, the document shows it.
    """

    def __init__(self, experiment: Experiment, options: argparse.Namespace) -> None:
        self.experiment = experiment
        self.scale: str = options.scale
        self.data = _data(experiment, options)
        self.folder: Path = options.runs.absolute() / options.scale / experiment.name
        self.rows: list[Row] = []
        self.settings: Mapping[str, Any] = {}
        self._weights: Path = options.weights
        # Those of the code that runs: what is edited meanwhile belongs to the next run.
        self._commit, self._machine = commit(), machine.describe().to_dict()
        self._path = options.out / f"{experiment.name}.json"
        self._earlier = _earlier_rows(self._path, options.scale)

    def row(
        self,
        key: str,
        settings: Mapping[str, Any],
        make: Callable[[], Mapping[str, Any]],
        after: Row | None = None,
    ) -> Row:
        """The row ``key`` of an earlier run, or the one that ``make`` measures now.

        Args:
            key: Name of the row, its first cell in the table.
            settings: All that decides the figures; a row of other settings is made again.
            make: Measures; called where there is no such row.
            after: The row this one builds on; one made before it is made again.
        """
        plain = json.loads(json.dumps(settings, default=str))
        row = self._earlier.get(key)
        stale = after is not None and row is not None and row["finished"] < after["finished"]
        if row is None or row["settings"] != plain or stale:
            say(f"{self.experiment.name}: {key}")
            began = time.perf_counter()
            figures = dict(make())
            row = {"key": key, **figures, "seconds": round(time.perf_counter() - began, 2)}
            row |= {"finished": now(), "commit": self._commit, "settings": plain}
        else:
            say(f"{self.experiment.name}: {key} is kept from {row['finished']}")
        self.rows.append(row)
        self._earlier[key] = row
        self._write(None, list(self._earlier.values()))
        return row

    def train(
        self,
        key: str,
        config: TrainConfig,
        measure: Callable[[TorchEngine], Mapping[str, Any]],
        after: Row | None = None,
    ) -> Row:
        """A row of a network: trained by ``config``, opened from its checkpoint and measured."""

        def make() -> dict[str, Any]:
            from edgeseg.training.predictor import open_torch

            result = train_to_the_end(config, after)
            engine = open_torch(result.checkpoint)
            return {
                "parameters": parameters(config, len(result.card.classes)) / 1e6,
                "epochs": len(result.history),
                "train_seconds": round(sum(epoch.seconds for epoch in result.history), 2),
                **measure(engine),
            }

        return self.row(key, settings_of(config), make, after)

    def run_folder(self, key: str) -> Path:
        """Where the network of a row is trained."""
        return self.folder / key.replace(",", "").replace(" ", "-")

    @property
    def vgg16(self) -> Path:
        """ImageNet weights of VGG16; raises UsageError where the file is missing."""
        if not self._weights.is_file():
            raise UsageError(
                f"{self._weights}: no such file, and the scale {self.scale} starts from ImageNet",
                hint="name VGG16 weights with torchvision's names: --weights FILE",
            )
        return self._weights

    def finish(self, outcome: Outcome) -> None:
        """Write the document with its outcome, without rows that this run had no use for."""
        self._write(outcome, self.rows)

    def _write(self, outcome: Outcome | None, rows: list[Row]) -> None:
        document = {
            "schema": SCHEMA,
            "name": self.experiment.name,
            "title": self.experiment.title,
            "paper": self.experiment.paper,
            "claim": self.experiment.claim,
            "scale": self.scale,
            "created": now(),
            "commit": self._commit,
            "machine": self._machine,
            "device": device(),
            "settings": self.settings,
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "seeds": sorted({row["settings"].get("seed", 0) for row in rows}),
            "outcome": None if outcome is None else asdict(outcome),
            "columns": [asdict(column) for column in self.experiment.columns],
            "rows": rows,
        }
        write_atomic(self._path, json.dumps(document, indent=2, default=_plain) + "\n")


def run(
    experiment: Experiment,
    body: Callable[[Lab], Outcome],
    draw: Callable[[Figure, Sequence[Row]], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run an experiment from the command line: NAME.json after each row, NAME.png at the end."""
    options = _options(experiment, arguments)
    try:
        with errors_as_exit_codes():
            lab = Lab(experiment, options)
            outcome = body(lab)
            lab.finish(outcome)
            save_figure(options.out / f"{experiment.name}.png", draw, lab.rows)
    except KeyboardInterrupt:
        say("stopped; the finished rows are kept, the same command goes on from there")
        raise SystemExit(130) from None
    verdict = {True: "held", False: "did not hold", None: "open at this scale"}[outcome.held]
    say(f"{experiment.name}: {outcome.seen} The claim: {verdict}.")


def train_to_the_end(config: TrainConfig, after: Row | None = None) -> TrainResult:
    """Train, or go on where an interrupted training with the same settings stopped.

    Args:
        config: What to train.
        after: The row whose network it starts from; a training begun before that is thrown away.

    Raises:
        KeyboardInterrupt: Ctrl-C. Training itself would end well with the best epoch so far,
            and half a training must not become a row.
    """
    from edgeseg.training.loop import train

    def tell(stats: EpochStats) -> None:
        say(
            f"  epoch {stats.epoch}/{config.recipe.epochs}  loss {stats.loss:.4f}  "
            f"mean IoU {stats.mean_iou:.4f}  {stats.seconds:.1f} s"
        )

    touched = datetime.fromtimestamp(config.run.stat().st_mtime if config.run.exists() else 0)
    if after is not None and touched.astimezone() < datetime.fromisoformat(after["finished"]):
        shutil.rmtree(config.run, ignore_errors=True)
    try:
        result = train(replace(config, resume=True), on_epoch=tell)
    except MismatchedArtifact:
        shutil.rmtree(config.run)
        result = train(config, on_epoch=tell)
    if len(result.history) < config.recipe.epochs:
        raise KeyboardInterrupt
    return result


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the figures of a trained network: no folders, but how many pictures."""
    settings = asdict(config)
    for name in ("data", "run", "resume", "tensorboard", "threads"):
        del settings[name]
    if config.weights is not None:
        settings["weights"] = f"{config.weights.parent.name}/{config.weights.name}"
    for name in ("teacher", "unlabelled"):
        path = settings["teaching"][name]
        settings["teaching"][name] = path and path.name
    settings["pictures"] = {
        split: len(read_split(config.data, split)) for split in ("train", "val")
    }
    return settings


def parameters(config: TrainConfig, num_classes: int) -> int:
    """How many parameters the network of a configuration has."""
    import torch

    from edgeseg.models import build

    channels = 1 if config.color == "gray" else 3
    with torch.device("meta"):
        model = build(config.arch, num_classes, channels, **config.options)
    return sum(parameter.numel() for parameter in model.parameters())


def link_subset(
    source: Path, out: Path, steps: Mapping[str, int], names: Sequence[str] | None = None
) -> Path:
    """A data set of links to some pictures of another: reproducible, and no copy of any.

    Args:
        source: Root with ``train``, ``val`` and perhaps ``test``.
        out: Root to be made; one that is there is replaced.
        steps: Split → n, to take each n-th picture by name; splits not named are left out.
        names: Classes for ``classes.json``; None takes the source's, if it has one.

    Raises:
        DatasetError: As :func:`edgeseg.data.folders.read_split`.
    """
    shutil.rmtree(out, ignore_errors=True)
    for split, step in steps.items():
        for part in ("images", "masks", "instances"):
            folder = source / split / part
            if not folder.is_dir():
                continue
            target = out / split / part
            target.mkdir(parents=True)
            files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
            for file in files[::step]:
                (target / file.name).symlink_to(file.resolve())
    if names is not None:
        write_atomic(out / "classes.json", json.dumps({"names": list(names)}) + "\n")
    elif (source / "classes.json").exists():
        (out / "classes.json").symlink_to((source / "classes.json").resolve())
    return out


def average(rows: Iterable[Row], key: str, figure: str) -> float:
    """Mean of a figure over the rows whose key starts with ``key``: those of all seeds."""
    return mean(float(row[figure]) for row in rows if row["key"].startswith(key))


def save_figure(
    path: Path, draw: Callable[[Figure, Sequence[Row]], None], rows: Sequence[Row]
) -> None:
    """Let ``draw`` fill a figure and write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, rows)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def device() -> str:
    """What networks run on here: the GPU's name, or the CPU with its threads."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU, {torch.get_num_threads()} thread(s)"


def commit() -> str | None:
    """The commit of this checkout, with ``+`` where tracked files differ from it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return found.stdout.strip() or None
    return None


def _options(experiment: Experiment, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{experiment.name}.py", description=f"{experiment.title}. {experiment.paper}"
    )
    parser.add_argument(
        "--scale", choices=("smoke", "cpu", "gpu"), default="cpu", help="how large (default cpu)"
    )
    parser.add_argument("--data", type=Path, help="root of the pictures")
    parser.add_argument("--weights", type=Path, default=VGG16, help="VGG16 of ImageNet")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and PNG")
    parser.add_argument(
        "--runs", type=Path, default=REPOSITORY / "runs" / "papers", help="folder for the networks"
    )
    return parser.parse_args(arguments)


def _data(experiment: Experiment, options: argparse.Namespace) -> Path:
    if options.data is None and (options.scale == "smoke" or experiment.data is None):
        return bundled_sample()
    folder: Path = options.data or SHARED / "data" / str(experiment.data)
    if not any((folder / split).is_dir() for split in SPLITS):
        raise UsageError(
            f"{folder}: no pictures there, and the scale {options.scale} needs {experiment.data}",
            hint=f"python bench/papers/{experiment.name}.py --data DIR, or --scale smoke",
        )
    return folder


def _earlier_rows(path: Path, scale: str) -> dict[str, Row]:
    """Finished rows by key; another scale's results are never replaced."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text("utf-8"))
    if document["scale"] != scale:
        raise UsageError(
            f"{path} holds results of the scale {document['scale']}, not {scale}",
            hint="choose another --out, or delete that file",
        )
    return {row["key"]: row for row in document["rows"]}


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
