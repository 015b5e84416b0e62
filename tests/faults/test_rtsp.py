"""A real RTSP camera with H.264 that dies, comes back, freezes, refuses."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.engines.base import Engine
from edgeseg.errors import AuthFailed
from edgeseg.stream import SourceLimits, Stream, StreamOptions, parse_source

pytestmark = pytest.mark.usefixtures("no_password_anywhere", "through")

SYSTEM = "/usr/bin/python3"

SERVER = Path(__file__).parents[1] / "stream" / "rtsp_server.py"

QUICK = SourceLimits(open_s=20, read_s=20, stalled_s=20, backoff_s=(0.05,))
SLACK_S = 4.0
"""What a busy machine may add to a bound; what delays really are, bench/faults.py measures."""


class Moves(logging.Handler):
    """The states that are logged, and when; calls what belongs to one, in another thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.states: list[str] = []
        self.at: dict[str, float] = {}
        self.then: dict[str, Callable[[], None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        state = record.getMessage().rpartition(": ")[2].split(" (")[0]
        self.states.append(state)
        self.at.setdefault(state, time.monotonic())
        if state in self.then:
            threading.Thread(target=self.then.pop(state)).start()


@pytest.fixture
def moves() -> Iterator[Moves]:
    logger = logging.getLogger("edgeseg.stream.reader")
    handler = Moves()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def follow(stream: Stream, number: Callable[..., int], at_60: Callable[[], None]) -> list[int]:
    """Numbers seen after a loss that ``at_60`` causes when frame 60 of the first play is seen."""
    after: list[int] = []
    caused = False
    for result in stream:
        seen = number(result.frame)
        if stream.sources[0].reconnects:
            after.append(seen)
        elif seen >= 60 and not caused:
            caused = True
            at_60()
        if len(after) == 10:
            stream.stop()
    return after


def test_a_server_that_is_killed_and_comes_back(
    rtsp_camera: Any, number: Callable[..., int], grey_engine: Engine, moves: Moves
) -> None:
    moves.then["reconnecting"] = rtsp_camera.switch_on
    spec = replace(parse_source(rtsp_camera.url), limits=QUICK)
    with Stream(spec, grey_engine) as stream:
        after = follow(stream, number, rtsp_camera.kill)
    assert moves.states == ["ok", "reconnecting", "ok"]
    # A new play starts at 0; its first second passes while it is opened. 60 and more is old.
    assert after == sorted(set(after))
    assert after[0] < 60


def test_a_server_that_freezes_is_stalled_at_2_s_and_lost_by_5_s(
    rtsp_camera: Any, number: Callable[..., int], grey_engine: Engine, moves: Moves
) -> None:
    moves.then["reconnecting"] = rtsp_camera.thaw
    spec = parse_source(rtsp_camera.url)  # the limits are the claim
    frozen: list[float] = []

    def freeze() -> None:
        rtsp_camera.freeze()
        frozen.append(time.monotonic())

    with Stream(spec, grey_engine) as stream:
        after = follow(stream, number, freeze)
    assert moves.states == ["ok", "stalled", "reconnecting", "ok"]
    stalled, lost = (moves.at[each] - frozen[0] for each in ("stalled", "reconnecting"))
    assert 1.5 < stalled < 2 + SLACK_S
    assert stalled < lost < 5 + SLACK_S
    assert after == sorted(set(after))
    assert after[0] < 60, "no frame of the connection that froze"


@pytest.fixture
def guarded(password: str) -> Iterator[int]:
    """The port of GStreamer's RTSP server, which wants a password by digest."""
    try:
        server = subprocess.Popen(
            [SYSTEM, str(SERVER), "user", password],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip(f"no {SYSTEM}")
    with server:
        assert server.stdout is not None
        first = server.stdout.readline()
        if not first:
            pytest.skip("GStreamer's RTSP server is not here (gir1.2-gst-rtsp-server-1.0)")
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield int(first)
        server.kill()


@pytest.mark.parametrize("given", ["", "user:wrong@"])
def test_a_server_that_wants_another_password(
    given: str, guarded: int, grey_engine: Engine
) -> None:
    with pytest.raises(AuthFailed, match="401") as failed:
        list(Stream(f"rtsp://{given}127.0.0.1:{guarded}/live", grey_engine))
    assert failed.value.exit_code == 5
    assert "wrong" not in f"{failed.value!r}{failed.value.hint}"


def test_the_right_password_opens_it(guarded: int, grey_engine: Engine, password: str) -> None:
    url = f"rtsp://user:{password}@127.0.0.1:{guarded}/live"
    assert len(list(Stream(url, grey_engine, StreamOptions(max_frames=3)))) == 3
