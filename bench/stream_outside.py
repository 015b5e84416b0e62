"""CPU time of a stream's frame besides the network, thread by thread.

    python bench/stream_outside.py NETWORK CLIP before.json             # on the code of before
    python bench/stream_outside.py NETWORK CLIP --before before.json    # writes the page

NETWORK is an ONNX network, of which only the card is used: its labels are constant here. CLIP has
100 frames or more; the first and the last 20 are not counted. Overlays are drawn and thrown away.
"""

import contextlib
import json
import resource
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import circumstances, command_line, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.files import write_atomic
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.stream import Sink, Stream, StreamResult, run

RESULTS = Path(__file__).with_name("results") / "stream"
EDGE = 20
THREADS = {
    "MainThread": "caller: overlay, names, legend",
    "edgeseg reader": "reader: conversion to BGR, decoding",
    "edgeseg lane": "lane: preprocessing",
    "": "threads of FFmpeg (decoding) and OpenCV",
}
ROWS = (*THREADS.values(), "all threads", "of which in the kernel", "page faults", "waits")


class Constant(Engine):
    """A network that takes no time: two rectangles of labels."""

    runtime = "constant"

    def __init__(self, network: Path) -> None:
        with open_engine(network, threads=1) as engine:
            self.card, self.path = engine.card, network
        spec = self.card.input
        self._labels = np.zeros((1, spec.height, spec.width), np.uint8)
        self._labels[:, spec.height // 4 : -spec.height // 4, spec.width // 8 : spec.width // 2] = 3
        self._labels[:, spec.height // 3 : -9, spec.width * 3 // 5 : -9] = 5

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:  # noqa: ARG002
        return self._labels

    def close(self) -> None:
        """Nothing."""


class Meter(Sink):
    """Asks for the overlay, and reads the threads' CPU times at two frames."""

    shows_overlay = True

    def __init__(self, frames: int) -> None:
        self._at = (EDGE, frames - EDGE)
        self.read: list[dict[str, float]] = []

    def write(self, result: StreamResult) -> None:
        """Read them, if it is time."""
        if result.index in self._at:
            self.read.append(_usage())


def _usage() -> dict[str, float]:
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    found: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        spent = int((task / "schedstat").read_text().split()[0]) / 1e6
        name = names.get(task.name, "")
        part = next(part for start, part in THREADS.items() if name.startswith(start))
        found[part] += spent
        found["all threads"] += spent
    used = resource.getrusage(resource.RUSAGE_SELF)
    found["of which in the kernel"] = used.ru_stime * 1e3
    found["page faults"] = used.ru_minflt
    found["waits"] = used.ru_nvcsw
    return found


def measure(network: Path, clip: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds of each row, per frame."""
    engine, frames = Constant(network), _frames(clip)
    rows = []
    for _ in range(rounds):
        meter = Meter(frames)
        run(Stream(clip, engine), [meter])
        first, last = meter.read
        rows.append({name: (last[name] - first[name]) / (frames - 2 * EDGE) for name in ROWS})
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in ROWS}


def _frames(clip: Path) -> int:
    import av

    with av.open(str(clip)) as container:
        return int(container.streams.video[0].frames)


def page(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Markdown of both."""
    heads = (*words("Per frame of 1280×720"), Column("Before"), Column("After"))
    format_of: Callable[[str], str] = lambda name: ".1f" if name in ROWS[-2:] else ".2f"  # noqa: E731
    rows = tuple(
        (name, *(format(each["frame"][name], format_of(name)) for each in (before, after)))
        for name in ROWS
    )
    return (
        "# CPU time of a frame besides the network\n\n`python bench/stream_outside.py`: "
        "milliseconds; page faults and waits are counts.\n\n"
        f"{render_markdown(Table(heads, rows))}\n"
        f"{after['machine']['cpu']}; load average {before['load_1min']:.1f} before, "
        f"{after['load_1min']:.1f} after.\n"
    )


def main() -> None:
    """Measure, and write JSON, or both measurements as a page."""
    parser = command_line(__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS / "outside.json")
    parser.add_argument("--before", type=Path, help="measurement of earlier code")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with contextlib.suppress(ImportError):  # earlier code lacks one or both
        from edgeseg.cli.allocator import keep_freed_memory

        keep_freed_memory()  # as `edgeseg stream` does
        from edgeseg.cli.opencv import use_one_thread

        use_one_thread()
    frame = measure(options.network, options.clip, options.rounds)
    document: dict[str, Any] = {**circumstances(), "frame": frame}
    if options.before is not None:
        document["before"] = json.loads(options.before.read_text("utf-8"))
        write_atomic(options.out.with_suffix(".md"), page(document["before"], document))
    write_json(options.out, document)


if __name__ == "__main__":
    main()
