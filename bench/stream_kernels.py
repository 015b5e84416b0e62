"""Compare the camera loop with C++ kernels, without them, and hand-written, on the same engine.

    python bench/stream_kernels.py

A 720p H.264 file → overlay → discard in the mode ``latency``, where all stages follow each other,
through a ``unet-lite`` in ONNX Runtime. NumPy and OpenCV compute the same bits where
``EDGESEG_NATIVE=0`` leaves the kernels out. Each measurement is a process of its own, in turns and
in random order; figures are medians over the rounds. Under three minutes where nothing else runs.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stream_peers as peers
from harness import circumstances, command_line, cpu_seconds, medians, turns, words, write_json
from stream_scene import make_clip, make_engines, workshop

from edgeseg.artifacts.files import write_atomic
from edgeseg.engines import open_engine
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.stream import Sink, Stream, StreamOptions, StreamResult, run

CASES = ("edgeseg, C++ kernels", "edgeseg, NumPy and OpenCV", "as people write it")
RESULTS = Path(__file__).parent / "results" / "stream"


class Discard(Sink):
    """Has the overlay drawn, and keeps nothing."""

    shows_overlay = True

    def write(self, result: StreamResult) -> None:
        """Which is drawn by now."""
        result.overlay()


def play(case: str, clip: Path, path: Path) -> dict[str, float | None]:
    """One measurement, in this process; stages where the loop tells them."""
    stages: dict[str, Any] = {}
    with open_engine(path, threads=os.cpu_count()) as engine:
        engine.warm_up(5)
        cpu, start = cpu_seconds(), time.perf_counter()
        if case == CASES[2]:
            counter = itertools.count(1)
            peers.as_people_write_it(str(clip), engine, lambda *_: bool(next(counter)))
            frames = next(counter) - 1
        else:
            report = run(Stream(clip, engine, StreamOptions(mode="latency")), [Discard()])
            frames, stages = report.frames, report.stages_ms
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    times = {
        f"{stage}_ms": stages.get(stage, {}).get("p50")
        for stage in ("preprocess", "infer", "postprocess")
    }
    return {"fps": frames / seconds, "cpu_ms": cpu / frames * 1000, **times}


def in_a_process(case: str, clip: Path, path: Path) -> dict[str, float | None]:
    """:func:`play` in a fresh process, with or without the kernels."""
    environment = {**os.environ, "EDGESEG_NATIVE": "0" if case == CASES[1] else "1"}
    command = [sys.executable, __file__, "--case", case, "--clip", str(clip), "--engine", str(path)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each size of the network and case."""
    with workshop() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", options.frames)
        engines = {}
        for size in options.sizes:
            work = Path(folder) / size
            work.mkdir()
            width, height = map(int, size.split("x"))
            made = make_engines(work, ["onnxruntime"], ["int8"], size=(height, width))
            (engines[size],) = made.values()
        pairs = [(size, case) for size in options.sizes for case in CASES]
        samples: dict[tuple[str, str], list[dict[str, float | None]]] = {pair: [] for pair in pairs}
        for _, (size, case) in turns(pairs, options.rounds):
            samples[size, case].append(in_a_process(case, clip, engines[size]))
    return [
        {"network": size, "loop": case, **_rounded(samples[size, case])} for size, case in pairs
    ]


def _rounded(samples: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    return {
        key: None if value is None else round(value, 2) for key, value in medians(samples).items()
    }


def page(document: dict[str, Any]) -> str:
    """The table, and what it is of."""
    heads = (
        *words("INT8 network", "Loop"),
        Column("Rate", "fps"),
        *(Column(name, "ms") for name in ("CPU a frame", "Preprocess", "Infer", "Postprocess")),
    )
    lines = [
        tuple("–" if value is None else str(value) for value in row.values())
        for row in document["rows"]
    ]
    return (
        "# The camera loop with and without the C++ kernels\n\n"
        "`python bench/stream_kernels.py`: a 720p H.264 file, each overlay drawn and thrown away, "
        "in the mode `latency`;\n`unet-lite` in ONNX Runtime, the same engine for all. Medians.\n\n"
        f"{document['machine']['cpu']}, {document['created']}, {document['rounds']} rounds of "
        f"{document['frames']} frames, load average {document['load_1min']:.1f} after the run.\n\n"
        + render_markdown(Table(heads, tuple(lines)))
        + "\n"
    )


def main() -> None:
    """Measure and write, or be one of the processes that are measured."""
    parser = command_line(__doc__)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["512x256", "256x128"],
        help="network input sizes, WIDTHxHEIGHT",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    for inner in ("--case", "--clip", "--engine"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(play(options.case, Path(options.clip), Path(options.engine))))
        return
    document = {
        "schema": "edgeseg.stream-kernels/1",
        **circumstances(),
        "frames": options.frames,
        "rounds": options.rounds,
        "rows": measure(options),
    }
    write_json(options.out / "kernels.json", document)
    write_atomic(options.out / "kernels.md", text := page(document))
    print(text)


if __name__ == "__main__":
    main()
