"""Measure the age of frames at the sink, with a live 25 fps RTSP camera on loopback.

A frame's age is how much later it reached the sink than it left the camera, which plays at an
even rate; the number in its picture identifies the frame. The camera's clock is unknown, so ages
are relative to the earliest arrival of a frame in the run.
"""

import contextlib
import functools
import logging
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import stream_peers as peers
from frame_numbers import number_of
from handwritten import Picture
from stream_page import LiveRow

from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.stream import Sink, Stream, StreamOptions, StreamResult, run
from edgeseg.stream.latency import percentiles

FPS = 25

logger = logging.getLogger("edgeseg.bench.stream")


class Lateness:
    """When each frame came, by the number in its picture."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.times: list[float] = []

    def note(self, frame: Picture) -> None:
        """Now."""
        self.times.append(time.monotonic())
        self.numbers.append(number_of(frame))

    def ages_ms(self, earliest: float) -> list[float]:
        """How much later than at the camera, ``earliest`` being frame 0's departure."""
        pairs = zip(self.times, self.numbers, strict=True)
        return [(at - earliest - number / FPS) * 1000 for at, number in pairs]

    def departure(self) -> float:
        """When frame 0 left at the latest, as far as these arrivals tell."""
        return min(at - number / FPS for at, number in zip(self.times, self.numbers, strict=True))


def live_rows(name: str, path: Path, url: str, seconds: float) -> list[LiveRow]:
    """Each loop in turn with the same engine."""
    rows = []
    with open_engine(path) as engine:
        engine.warm_up(20)
        for loop, go in LIVE_LOOPS.items():
            logger.info("%s: %s", name, loop)
            rows.append(_live_row((name, loop), go, engine, url, seconds))
    return rows


def _live_row(
    name: tuple[str, str], go: Callable[..., None], engine: Engine, url: str, seconds: float
) -> LiveRow:
    infer_ms = _median_infer(engine)
    read, shown = Lateness(), Lateness()
    go(url, engine, read, shown, seconds)
    # The earliest that a frame was read tells when it left; for a loop that falls behind at
    # once that is in its first frames.
    ages = shown.ages_ms(min(read.departure(), shown.departure()))
    settled = ages[FPS // 2 :]
    return LiveRow(
        engine=name[0],
        loop=name[1],
        infer_ms=infer_ms,
        age_ms=percentiles(settled, (50, 95, 99)),
        late_ms=statistics.median(ages[-10:]),
        shown=len(ages),
        sent=max(shown.numbers) - min(shown.numbers) + 1,
    )


def _median_infer(engine: Engine) -> float:
    tensor = np.zeros((1, *engine.card.input.shape), np.float32)
    took = []
    for _ in range(30):
        start = time.perf_counter()
        engine.infer(tensor)
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def _live_edgeseg(
    url: str, engine: Engine, read: Lateness, shown: Lateness, seconds: float
) -> None:
    class Note(Sink):
        shows_overlay = True

        def write(self, result: StreamResult) -> None:
            shown.note(result.frame)
            read.numbers.append(shown.numbers[-1])
            read.times.append(result.captured_at)

    run(Stream(url, engine, StreamOptions(duration=seconds)), [Note()])


def _live_by_hand(
    loop: Callable[..., None],
    url: str,
    engine: Engine,
    read: Lateness,
    shown: Lateness,
    seconds: float,
) -> None:
    until = time.monotonic() + seconds

    def note(frame: Picture, _overlay: Picture) -> bool:
        shown.note(frame)
        read.numbers.append(shown.numbers[-1])
        read.times.append(shown.times[-1])
        return time.monotonic() < until

    loop(url, engine, note)


LIVE_LOOPS: dict[str, Callable[..., None]] = {
    "edgeseg": _live_edgeseg,
    "as people write it": functools.partial(_live_by_hand, peers.as_people_write_it),
    "by hand, with care": functools.partial(_live_by_hand, peers.with_care),
}


@contextlib.contextmanager
def rtsp_server(media: Path) -> Iterator[str]:
    """``rtsp://127.0.0.1:PORT`` that serves the files of a folder, each client from the start."""
    ports = [_free_port() for _ in range(2)]
    program = Path(sys.executable).with_name("rtsp-server")
    if not program.exists():
        raise SystemExit("needs an RTSP server: pip install 'aio-rtsp-toolkit[server]'")
    server = subprocess.Popen(
        [
            *(str(program), "--dir", str(media), "--host", "127.0.0.1"),
            *("--port", str(ports[0]), "--control-port", str(ports[1])),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(ports[0])
        yield f"rtsp://127.0.0.1:{ports[0]}"
    finally:
        server.terminate()
        server.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
