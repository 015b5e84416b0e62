"""The trainings to convergence, on an NVIDIA GPU: FCN and unet-lite on CamVid, nuclei.

    python bench/gpu/train.py [--data DIR] [--weights FILE] [--out DIR]

This has not been run yet: there was no GPU to run it on. Epochs and learning rates of the scale
``gpu`` are chosen, not tuned; the goals are what the networks should reach.

Each experiment is a process of its own and keeps the rows that are finished, so the same command
goes on after an interruption. ``OUT/train.json`` holds device, date and goals; ``OUT/NAME.json``
and ``OUT/NAME.png`` the experiments.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from harness import circumstances, command_line, write_json

from edgeseg import machine

PAPERS = Path(__file__).parents[1] / "papers"
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Goal:
    """What the best row of an experiment should reach: ``figure``, a fraction of 1."""

    experiment: str
    network: str
    rows: str
    figure: str
    at_least: float


GOALS = (
    Goal("fcn", "FCN-8s, mean IoU on CamVid val", "fcn8s", "mean_iou", 0.60),
    Goal("camvid", "unet-lite, mean IoU on CamVid val", "width", "mean_iou", 0.59),
    Goal("borders", "unet-lite, F1 of nuclei at IoU 0.5", "with map", "f1", 0.88),
)
DATA = {"fcn": "camvid", "camvid": "camvid", "borders": "dsb2018"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all, then write which goals were reached; exit 1 if one was not."""
    options = _options(arguments)
    if not machine.gpus():
        sys.exit("bench/gpu/train.py needs an NVIDIA GPU; nvidia-smi lists none")
    documents = {name: experiment(name, options) for name in DATA}
    outcomes = [judge(goal, documents[goal.experiment]) for goal in GOALS]
    document = {
        "schema": "edgeseg.gpu-training/1",
        **circumstances(),
        "device": [asdict(gpu) for gpu in machine.gpus()],
        "seconds": sum(found["seconds"] for found in documents.values()),
        "goals": outcomes,
    }
    write_json(options.out / "train.json", document)
    for outcome in outcomes:
        verdict = "reached" if outcome["reached"] else "missed"
        print(f"{outcome['network']}: {outcome['best']:.3f}, goal {outcome['at_least']} {verdict}")
    if not all(outcome["reached"] for outcome in outcomes):
        sys.exit(1)


def experiment(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one experiment at the scale ``gpu`` and read its document."""
    command = [sys.executable, str(PAPERS / f"{name}.py"), "--scale", "gpu"]
    command += ["--out", str(options.out)]
    if options.data is not None:
        command += ["--data", str(options.data / DATA[name])]
    if options.weights is not None:
        command += ["--weights", str(options.weights)]
    ended = subprocess.run(command, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)
    document: dict[str, Any] = json.loads((options.out / f"{name}.json").read_text("utf-8"))
    return document


def judge(goal: Goal, document: Mapping[str, Any]) -> dict[str, Any]:
    """The goal, the best figure among its rows, and whether that reaches it."""
    rows = [row for row in document["rows"] if row["key"].startswith(goal.rows)]
    best = max(float(row[goal.figure]) for row in rows)
    return asdict(goal) | {"best": best, "reached": best >= goal.at_least}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds camvid and dsb2018")
    parser.add_argument("--weights", type=Path, help="VGG16 of ImageNet")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and PNG")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
