"""Reconnects and frames leave memory, threads and descriptors as they were."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from edgeseg.engines.base import Engine
from edgeseg.stream import SourceLimits, Stream, StreamOptions, parse_source

SERVER = Path(__file__).with_name("hangup_server.py")
LIMITS = SourceLimits(open_s=20, read_s=20, stalled_s=20, backoff_s=(0.0,))
ENDLESS = 1_000_000_000
A_CONNECTION = 10
CLOCK = 16_384
"""Samples that a stage of the clock keeps."""

TRACED_A_RECONNECT = 1024
TRACED_A_FRAME = 11
"""Bytes: 1 MiB per 10⁵ frames."""

RSS_A_RECONNECT = 64 * 1024
RSS_A_FRAME = 1024
"""Bytes; over some dozens of reconnects the allocator's own steps are of this size."""


@dataclass(frozen=True)
class Footprint:
    """What the process holds: bytes that tracemalloc sees, and resident bytes."""

    traced: int
    rss: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        return cls(
            tracemalloc.get_traced_memory()[0],
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        )


@dataclass(frozen=True)
class Growth:
    """Over ``steps`` reconnects or frames: bytes a step, threads and descriptors in all."""

    steps: int
    traced: float
    rss: float
    threads: int
    descriptors: int

    def complaints(self, traced: float, rss: float) -> list[str]:
        """What grew beyond the limits, in bytes a step; one thread or descriptor may come late."""
        bounds = {"traced": traced, "rss": rss, "threads": 1, "descriptors": 1}
        return [name for name, most in bounds.items() if getattr(self, name) > most]


class Fewest:
    """The fewest of something in the first quarter of the steps, and in the last."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._first = self._last = sys.maxsize

    def add(self, step: int, count: int) -> None:
        if step <= self._steps // 4:
            self._first = min(self._first, count)
        if step >= self._steps - self._steps // 4:
            self._last = min(self._last, count)

    @property
    def grown(self) -> int:
        return self._last - self._first


Serve = Callable[[int], str]
Leak = Callable[[], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(frames a connection) -> URL``."""
    with contextlib.ExitStack() as stack:

        def start(frames: int) -> str:
            server = subprocess.Popen(
                [sys.executable, str(SERVER), str(frames)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(server)
            stack.callback(server.kill)
            assert server.stdout is not None
            return f"http://127.0.0.1:{int(server.stdout.readline())}/mjpeg"

        yield start


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Memory is traced; and pytest, which keeps what is logged, hears nothing."""
    logger = logging.getLogger("edgeseg.stream.reader")
    logger.disabled = True
    tracemalloc.start()
    yield
    tracemalloc.stop()
    logger.disabled = False


def growth(
    url: str, engine: Engine, steps: int, *, reconnects: bool, leak: Leak | None = None
) -> Growth:
    """Over ``steps`` reconnects or results, after others to warm up where nothing may grow.

    Threads and descriptors are the fewest of the first quarter and of the last: at any one moment
    a connection may be opening or closing.
    """
    spec = replace(parse_source(url), limits=LIMITS)
    warm = 5 if leak else max(steps // 10, 30 if reconnects else 1500)
    before: Footprint | None = None
    leaked = 0
    threads, descriptors = Fewest(steps), Fewest(steps)
    with Stream(spec, engine, StreamOptions(mode="latency")) as stream:
        (source,) = stream.sources
        for stage in ("capture", "preprocess", "infer"):  # the clock's memory is bounded: fill it
            for _ in range(CLOCK):
                stream.clock.add(stage, 1.0)
        for _ in stream:
            done = source.reconnects if reconnects else stream.frames
            if before is None and done >= warm:
                before, start, leaked = Footprint.now(), done, done
            while before is not None and leaked < done:
                leaked += 1
                if leak:
                    leak()
            if before is not None:  # what has leaked is there: from one result to the next, all
                threads.add(done - start, threading.active_count())
                descriptors.add(done - start, len(os.listdir("/proc/self/fd")))
            if before is not None and done - start >= steps:
                break
        after = Footprint.now()
    assert before is not None
    taken = done - start
    return Growth(
        taken,
        (after.traced - before.traced) / taken,
        (after.rss - before.rss) / taken,
        threads.grown,
        descriptors.grown,
    )


def test_reconnects_leave_nothing(serve: Serve, grey_engine: Engine) -> None:
    grown = growth(serve(A_CONNECTION), grey_engine, 40, reconnects=True)
    assert grown.complaints(TRACED_A_RECONNECT, RSS_A_RECONNECT) == [], grown


def test_frames_leave_nothing(serve: Serve, grey_engine: Engine) -> None:
    grown = growth(serve(ENDLESS), grey_engine, 4000, reconnects=False)
    assert grown.complaints(TRACED_A_FRAME, RSS_A_FRAME) == [], grown


class Planted:
    """Leaks, and what mends them."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self._end = threading.Event()

    def traced(self) -> None:
        self._kept.append(bytes(10_000))

    def rss(self) -> None:
        self._kept.append(os.urandom(500_000))

    def threads(self) -> None:
        threading.Thread(target=self._end.wait, daemon=True).start()

    def descriptors(self) -> None:
        self._sockets.append(socket.socket())

    def everything(self) -> None:
        self.traced()
        self.rss()
        self.threads()
        self.descriptors()

    def mend(self) -> None:
        self._end.set()
        for each in self._sockets:
            each.close()


def test_leaks_a_reconnect_are_found(serve: Serve, grey_engine: Engine) -> None:
    url = serve(A_CONNECTION)
    for _ in range(2):
        planted = Planted()
        try:
            grown = growth(url, grey_engine, 10, reconnects=True, leak=planted.everything)
        finally:
            planted.mend()
        found = grown.complaints(TRACED_A_RECONNECT, RSS_A_RECONNECT)
        if grown.rss > 0:  # else memory of earlier tests was given back meanwhile
            break
    assert found == ["traced", "rss", "threads", "descriptors"], grown


def test_a_leak_a_frame_is_found(serve: Serve, grey_engine: Engine) -> None:
    kept: list[bytes] = []
    grown = growth(
        serve(ENDLESS), grey_engine, 500, reconnects=False, leak=lambda: kept.append(bytes(30_000))
    )
    assert grown.complaints(TRACED_A_FRAME, RSS_A_FRAME)[:2] == ["traced", "rss"], grown


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak(serve: Serve, grey_engine: Engine) -> None:
    """1,000 reconnects and 10⁵ frames; figures go to the file that EDGESEG_SOAK names."""
    grown = {
        "reconnects": growth(serve(A_CONNECTION), grey_engine, 1000, reconnects=True),
        "frames": growth(serve(ENDLESS), grey_engine, 100_000, reconnects=False),
    }
    if out := os.environ.get("EDGESEG_SOAK"):
        figures = {name: asdict(each) for name, each in grown.items()}
        Path(out).write_text(json.dumps(figures, indent=2) + "\n")
    assert grown["reconnects"].complaints(TRACED_A_RECONNECT, RSS_A_RECONNECT) == [], grown
    assert grown["frames"].complaints(TRACED_A_FRAME, RSS_A_FRAME) == [], grown
