"""Measure what tiles cost against one pass over the shrunk frame.

    python bench/stream_tiles.py

Streams of pictures in memory through the bundled network in INT8, on one thread of ONNX Runtime;
the label map is taken at frame size. CPU time a frame and frames a second, without opening and
warming up. Cases take turns in one run.
"""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import circumstances, command_line, turns, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import bundled_sample, list_images, load_image
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.runs import located
from edgeseg.stream import Stream, StreamOptions, from_frames

RESULTS = Path(__file__).with_name("results") / "stream"
SIZES = ((720, 1280), (1080, 1920))


@dataclass(frozen=True)
class Case:
    """Frames of a size, (height, width), shrunk or in tiles."""

    size: tuple[int, int]
    tiles: bool

    def __str__(self) -> str:
        return f"{self.size[1]}x{self.size[0]}, {'in tiles' if self.tiles else 'shrunk'}"


CASES = tuple(Case(size, tiles) for size in SIZES for tiles in (False, True))


def frames_of(size: tuple[int, int], count: int) -> list[NDArray[np.uint8]]:
    """Pictures of the bundled sample at this size."""
    pictures = list_images(bundled_sample() / "train" / "images")[:count]
    return [np.asarray(cv2.resize(load_image(path), size[::-1]), np.uint8) for path in pictures]


def measure(
    case: Case, engine: Engine, frames: Sequence[NDArray[np.uint8]]
) -> tuple[float, float, int]:
    """CPU milliseconds a frame, frames a second, and calls of the engine a frame."""
    options = StreamOptions(realtime=False, mode="latency", tiles=case.tiles)
    infer, calls = engine.infer, 0

    def counted(batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        return infer(batch)

    with Stream(from_frames(frames, live=False), engine, options) as stream:
        engine.infer = counted  # type: ignore[method-assign]
        cpu, begin = time.process_time(), time.perf_counter()
        for result in stream:
            result.mask()
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - begin
        engine.infer = infer  # type: ignore[method-assign]
    return cpu * 1000 / len(frames), len(frames) / seconds, calls // len(frames)


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=2, help="frames per case and round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    samples: dict[Case, list[tuple[float, float, int]]] = {case: [] for case in CASES}
    frames = {size: frames_of(size, options.frames) for size in SIZES}
    with open_engine(located(Path("bundled:nuclei")) / "model.int8.onnx", threads=1) as engine:
        spec = engine.card.input
        for _, case in turns(CASES, options.rounds):
            samples[case].append(measure(case, engine, frames[case.size]))
    rows: list[dict[str, Any]] = []
    for case, found in samples.items():
        cpu, fps, calls = (statistics.median(each) for each in zip(*found, strict=True))
        shrunk = rows[-1]["cpu_ms"] if case.tiles else cpu
        rows.append(
            {
                "frames": str(case),
                "calls": calls,
                "cpu_ms": round(cpu, 1),
                "times": round(cpu / shrunk, 1),
                "fps": round(fps, 2),
            }
        )
    document = {
        "schema": "edgeseg.tiles/1",
        **circumstances(),
        "network": f"{engine.card.name} INT8, {spec.width}x{spec.height}",
        "rounds": options.rounds,
        "frames": options.frames,
        "rows": rows,
    }
    write_json(options.out / "tiles.json", document)
    columns = (
        *words("Frames"),
        Column("Calls of the engine a frame"),
        Column("CPU a frame", "ms"),
        Column("Times the CPU of shrunk ones"),
        Column("Frames a second"),
    )
    table = Table(columns, tuple(tuple(map(str, row.values())) for row in rows))
    text = (
        "# Tiles\n\n"
        f"`python bench/stream_tiles.py`: {document['network']}, in ONNX Runtime on one thread, "
        "label maps at frame size,\nthe default margin. Medians; cases take turns.\n\n"
        f"{document['machine']['cpu']}, {document['created']}, {options.rounds} rounds of "
        f"{options.frames} frames,\nload average {document['load_1min']:.1f} after the run.\n\n"
    )
    write_atomic(options.out / "tiles.md", text + render_markdown(table) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
