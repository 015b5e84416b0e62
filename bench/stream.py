"""Compare the camera loop with hand-written loops around the same engine: files and a live camera.

    python bench/stream.py --part file                 # frames per second, CPU time per frame
    python bench/stream.py --part live                 # age of a frame at the sink, 25 fps RTSP
    python bench/stream.py --part page                 # the committed page from both documents

``unet-lite`` at 512×256 on a 720p H.264 clip, overlay drawn and thrown away. All cases of a
part run in turns, in an order that the seed fixes; figures are medians over the rounds.

CPU time per frame is that of the whole process, including decoding, minus what the engine alone
takes in the same round. ``stream_live.py`` describes how ages are measured.
"""

import argparse
import contextlib
import functools
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import stream_peers as peers
from handwritten import Picture
from harness import command_line, cpu_seconds, turns
from stream_live import FPS, live_rows, rtsp_server
from stream_page import FileRow, Measured, measured, page
from stream_scene import make_clip, make_engines, workshop

from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import write_atomic
from edgeseg.cli.allocator import keep_freed_memory
from edgeseg.cli.opencv import use_one_thread
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.machine import physical_cores
from edgeseg.stream import Mode, Sink, Stream, StreamOptions, StreamResult, run

RESULTS = Path(__file__).with_name("results") / "stream"

logger = logging.getLogger("edgeseg.bench.stream")


class Discard(Sink):
    """Asks for the overlay and keeps nothing."""

    shows_overlay = True

    def write(self, result: StreamResult) -> None:
        """Nothing."""


@dataclass
class Sample:
    """Seconds and CPU seconds of one run over so many frames."""

    frames: int
    seconds: float
    cpu: float


@dataclass
class Case:
    """A way to run an engine, and what it took in each round."""

    engine: str
    loop: str
    go: Callable[[], int]
    samples: list[Sample] = field(default_factory=list)

    def measure(self) -> None:
        """Run once."""
        cpu, start = cpu_seconds(), time.perf_counter()
        frames = self.go()
        self.samples.append(Sample(frames, time.perf_counter() - start, cpu_seconds() - cpu))


def file_part(options: argparse.Namespace) -> Measured:
    """Frames a second of a 720p file, each loop with the same engine."""
    with workshop() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        clip = make_clip(work / "clip.mp4", options.frames, video=options.video)
        engines = make_engines(
            work, options.runtimes, options.precisions, options.run, options.size
        )
        cases: list[Case] = []
        for (runtime, precision), path in engines.items():
            cases += _file_cases(f"{runtime} {precision}", path, clip, stack)
        for number, case in turns(cases, options.rounds):
            logger.info("round %d of %d: %s", number + 1, options.rounds, case.loop)
            case.measure()
        return measured("file", _rows(cases), clip, options)


def _file_cases(name: str, path: Path, clip: Path, stack: contextlib.ExitStack) -> Iterator[Case]:
    cores = physical_cores()
    whole = stack.enter_context(open_engine(path, threads=cores))
    free = stack.enter_context(open_engine(path))
    lanes = [stack.enter_context(engine) for engine in free.split(cores, 1)]
    for engine in (whole, free, *lanes):
        engine.warm_up(5)
    case = functools.partial(Case, name)
    yield case("engine alone", functools.partial(_alone, whole))
    yield case("engines alone, one per core", functools.partial(_alone_on_each, lanes))
    yield case("edgeseg, default", functools.partial(_streamed, [free], clip))
    yield case("edgeseg, one engine", functools.partial(_streamed, [whole], clip))
    yield case("edgeseg, one engine per core", functools.partial(_streamed, lanes, clip))
    yield case("edgeseg, latency", functools.partial(_streamed, [whole], clip, "latency"))
    yield case(
        "as people write it", functools.partial(_by_hand, peers.as_people_write_it, whole, clip)
    )
    yield case("by hand, with care", functools.partial(_by_hand, peers.with_care, whole, clip))


def _alone(engine: Engine, calls: int = 60) -> int:
    tensor = np.zeros((1, *engine.card.input.shape), np.float32)
    for _ in range(calls):
        engine.infer(tensor)
    return calls


def _alone_on_each(engines: Sequence[Engine]) -> int:
    threads = [threading.Thread(target=_alone, args=(engine, 30)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 30 * len(engines)


def _streamed(engines: Sequence[Engine], clip: Path, mode: Mode | None = None) -> int:
    return run(Stream(clip, engines, StreamOptions(mode=mode)), [Discard()]).frames


def _by_hand(loop: Callable[..., None], engine: Engine, clip: Path) -> int:
    count = 0

    def shown(_frame: Picture, _overlay: Picture) -> bool:
        nonlocal count
        count += 1
        return True

    loop(str(clip), engine, shown)
    return count


def _rows(cases: Sequence[Case]) -> list[FileRow]:
    """Each case against the engine alone in the same round."""
    rows = []
    for name in dict.fromkeys(case.engine for case in cases):
        its = sorted((case for case in cases if case.engine == name), key=lambda case: case.loop)
        alone = next(case for case in its if case.loop == "engine alone")
        each = next(case for case in its if case.loop == "engines alone, one per core")
        for case in its:
            base = each if case.loop == "edgeseg, one engine per core" else alone
            shares = [
                (mine.frames / mine.seconds) / (its.frames / its.seconds)
                for mine, its in zip(case.samples, alone.samples, strict=True)
            ]
            outside = [
                (mine.cpu / mine.frames - its.cpu / its.frames) * 1000
                for mine, its in zip(case.samples, base.samples, strict=True)
            ]
            rows.append(
                FileRow(
                    engine=name,
                    loop=case.loop,
                    fps=statistics.median(one.frames / one.seconds for one in case.samples),
                    of_inference=statistics.median(shares),
                    outside_ms=None if "alone" in case.loop else statistics.median(outside),
                    rounds=len(case.samples),
                )
            )
    return rows


def live_part(options: argparse.Namespace) -> Measured:
    """Age of frames of a 25 fps RTSP camera at the sink."""
    with workshop() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        media = work / "media"
        media.mkdir()
        frames = round((options.seconds + 15) * FPS)
        clip = make_clip(media / "clip.mp4", frames, fps=FPS, video=options.video)
        engines = make_engines(
            work, options.runtimes, options.precisions, options.run, options.size
        )
        url = stack.enter_context(rtsp_server(media)) + "/clip.mp4"
        rows = [
            row
            for (runtime, precision), path in engines.items()
            for row in live_rows(f"{runtime} {precision}", path, url, options.seconds)
        ]
        return measured("live", rows, clip, options)


def main() -> None:
    """Measure one part, or write the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _options()
    # As `edgeseg stream` does; here hand-written loops benefit as well.
    keep_freed_memory()
    use_one_thread()
    if options.part != "page":
        document = (file_part if options.part == "file" else live_part)(options)
        document.save(options.out / f"loops-{options.part}.json")
    paths = [options.out / f"loops-{part}.json" for part in ("file", "live")]
    text = page([load(Measured, path) for path in paths if path.exists()])
    write_atomic(options.out / "loops.md", text)
    print(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(height), int(width)


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--part", choices=("file", "live", "page"), default="file")
    parser.add_argument("--run", type=Path, help="run folder with the weights to use")
    parser.add_argument("--video", type=Path, help="video used as the content of the clip")
    parser.add_argument(
        "--frames", type=int, default=100, help="number of frames in the file (default 100)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default 9)")
    parser.add_argument(
        "--seconds", type=float, default=20, help="seconds per loop in the live part (default 20)"
    )
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument(
        "--size", type=_size, default=(256, 512), help="network input size, WIDTHxHEIGHT"
    )
    parser.add_argument("--precisions", nargs="+", default=["int8", "fp32"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
