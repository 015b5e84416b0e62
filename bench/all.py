"""Renew the committed tables of speed in one run, which takes hours on an idle machine.

    python bench/all.py [STEP…] --run RUN --data DIR --videos VIDEO…

RUN is a trained run for DIR. Steps run one after the other, each as its own process; one that
fails does not stop the others. ``results/README.md`` lists when and on what each table was
measured, and what makes its figures doubtful: other load, a processor without INT8 instructions,
steps of different processors. Name steps to renew them alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import circumstances, command_line, say, words, write_json

from edgeseg.artifacts.files import write_atomic
from edgeseg.benchmark.conditions import OtherLoad
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.runs import BUNDLED

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCHEMA = "edgeseg.all/1"
INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""Flags of processors that multiply INT8 in one instruction; the last is ARM's."""
BUSY = 0.12
"""Cores kept busy by others above which a step's figures are doubted."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "startup": ("startup.py", "{engine}"),
    "kernels": ("kernels.py", "--all", "{results}/kernels"),
    "runtimes": ("runtimes.py", "{run}", "--data", "{data}"),
    "file": (
        *("stream.py", "--part", "file", "--video", "{video}"),
        *("--precisions", "int8", "--frames", "250", "--rounds", "4"),
    ),
    "live": ("stream.py", "--part", "live", "--video", "{video}"),
    "stages": ("stream_kernels.py",),
    "cameras": ("scale.py", "--measure", "--video", "{video}"),
    "options": ("stream_options.py", "cost"),
    "tiles": ("stream_tiles.py",),
    "privacy": ("privacy.py",),
    "publishing": ("publishing.py", "{videos}"),
    "recording": ("recording.py", "{videos}"),
    "clips": ("clips.py", "{videos}"),
    "archive": ("archive.py", "{engine}", "{results}/archive", "{data}/train/images"),
    "allocator": ("allocator.py",),
    "encoders": ("encoders.py",),
    "same": ("same.py", "{engine}"),
}
"""Step → script and its arguments; the result's place is the script's own."""


def main() -> None:
    """Run the steps, then write the page."""
    options = _options()
    steps = options.steps or list(STEPS)
    listed = RESULTS / "all.json"
    earlier = json.loads(listed.read_text("utf-8"))["steps"] if listed.exists() else {}
    for name in steps:
        say(f"{name} …")
        earlier[name] = run(name, options)
        write_json(listed, {"schema": SCHEMA, "steps": earlier})
        write_atomic(RESULTS / "README.md", page(earlier))
    failed = [name for name in steps if earlier[name]["status"] != 0]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One step: its circumstances, minutes, cores that others kept busy, and exit status."""
    before = circumstances()
    began, spent, watch = time.monotonic(), _children_seconds(), OtherLoad()
    script, *arguments = STEPS[name]
    filled = [text for argument in arguments for text in fill(argument, options)]
    status = subprocess.run([sys.executable, str(HERE / script), *filled], check=False).returncode
    seconds = time.monotonic() - began
    others = max(0.0, watch.cores() - (_children_seconds() - spent) / seconds)
    return {
        **before,
        "minutes": round(seconds / 60, 1),
        "other_cores": round(others, 2),
        "status": status,
    }


def fill(argument: str, options: argparse.Namespace) -> list[str]:
    """An argument of a step with the paths of this run: several for ``{videos}``."""
    videos = [str(video) for video in options.videos]
    if argument == "{videos}":
        return videos
    return [
        argument.format(
            engine=BUNDLED / "nuclei" / "model.int8.onnx",
            results=RESULTS,
            run=options.run,
            data=options.data,
            video=videos[0],
        )
    ]


def page(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """When and on what each step ran, and the doubts, as Markdown."""
    columns = (
        *words("Step", "Script", "Begun", "Processor"),
        Column("Other cores"),
        Column("Minutes"),
    )
    known = [(name, steps[name]) for name in STEPS if name in steps]
    rows = tuple(
        (
            name,
            STEPS[name][0],
            step["created"][:16].replace("T", " "),
            step["machine"]["cpu"] or "unknown",
            f"{step['other_cores']:.2f}",
            f"{step['minutes']:.1f}",
        )
        for name, step in known
    )
    doubtful = "\n".join(f"- {line}" for line in doubts(dict(known))) or "None."
    return (
        "# When and on what the tables were measured\n\n"
        "Written by `python bench/all.py`; do not edit. *Other cores* is how many cores other "
        "processes kept busy during a step.\n\n"
        f"{render_markdown(Table(columns, rows))}\n\n## Doubts\n\n{doubtful}\n"
    )


def doubts(steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes figures of these steps doubtful, a sentence each."""
    found = []
    busy = [name for name, step in steps.items() if step["other_cores"] > BUSY]
    if busy:
        found.append(f"Other work ran beside {_listed(busy)}: read ratios, not milliseconds.")
    slow = [n for n, step in steps.items() if not INT8 & set(step["machine"]["cpu_flags"])]
    if slow:
        found.append(f"The processor of {_listed(slow)} has no INT8 instructions.")
    if len({step["machine"]["cpu"] for step in steps.values()}) > 1:
        found.append("Steps ran on different processors: do not compare their tables.")
    failed = [name for name, step in steps.items() if step["status"] != 0]
    if failed:
        found.append(f"Failed, so that older results stand: {_listed(failed)}.")
    return found


def _children_seconds() -> float:
    """CPU time of the processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--run", type=Path, required=True, help="trained run for DIR")
    parser.add_argument("--data", type=Path, required=True, help="labelled pictures")
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="camera-like clips")
    options = parser.parse_args()
    unknown = sorted(set(options.steps) - set(STEPS))
    if unknown:
        parser.error(f"unknown step {unknown[0]!r}; expected one of {', '.join(STEPS)}")
    options.run, options.data = options.run.absolute(), options.data.absolute()
    options.videos = [video.absolute() for video in options.videos]
    return options


if __name__ == "__main__":
    main()
