"""Network cameras that refuse, stay silent, freeze, die and come back."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.engines.base import Engine
from edgeseg.errors import AuthFailed, EdgesegError, OpenFailed
from edgeseg.stream import SourceLimits, SourceSpec, Stream, StreamOptions, parse_source

pytestmark = pytest.mark.usefixtures("no_password_anywhere", "through")

ROOT = Path(__file__).parents[2]
PATIENT = SourceLimits(open_s=20, read_s=30, stalled_s=30, backoff_s=(0.05,))
URL = "{scheme}://user:hunter2-QXZ@127.0.0.1:{port}/live"


def spec_of(url: str, **limits: Any) -> SourceSpec:
    return replace(parse_source(url), limits=replace(PATIENT, **limits))


class Moves(logging.Handler):
    """Remembers the states a source logs, and acts on one of them."""

    def __init__(self, act_on: str = "", act: Callable[[], None] = lambda: None) -> None:
        super().__init__(logging.INFO)
        self.states: list[str] = []
        self._act_on, self._act = act_on, act

    def emit(self, record: logging.LogRecord) -> None:
        state = record.getMessage().split("/mjpeg: ")[-1].split(" (")[0]
        self.states.append(state)
        if state == self._act_on:
            threading.Thread(target=self._act).start()


@pytest.fixture
def listen() -> Iterator[Callable[[Moves], Moves]]:
    logger = logging.getLogger("edgeseg.stream.reader")
    added: list[Moves] = []

    def add(moves: Moves) -> Moves:
        logger.addHandler(moves)
        added.append(moves)
        return moves

    yield add
    for moves in added:
        logger.removeHandler(moves)


def failure(spec: SourceSpec, engine: Engine) -> EdgesegError:
    with pytest.raises(EdgesegError) as failed:
        list(Stream(spec, engine))
    error = failed.value
    assert error.exit_code == 5
    assert error.hint
    assert "hunter2" not in f"{error!r}{error.hint}{error.__cause__!r}{error.__context__!r}"
    return error


def test_a_camera_streams(camera: Any, grey_engine: Engine) -> None:
    stream = Stream(spec_of(camera.url), grey_engine, StreamOptions(max_frames=10))
    with stream:
        shades = [int(result.frame.mean().round()) for result in stream]
    assert shades == sorted(set(shades))
    assert stream.sources[0].state == "ok"
    assert stream.sources[0].realtime


def test_a_camera_with_a_password_streams(locked_camera: Any, grey_engine: Engine) -> None:
    stream = Stream(spec_of(locked_camera.url), grey_engine, StreamOptions(max_frames=3))
    assert len(list(stream)) == 3
    assert stream.sources[0].label == f"http://user:***@127.0.0.1:{locked_camera.port}/mjpeg"


def test_a_camera_with_another_password_refuses(locked_camera: Any, grey_engine: Engine) -> None:
    url = locked_camera.url.replace("hunter2-QXZ", "hunter2")
    error = failure(spec_of(url), grey_engine)
    assert isinstance(error, AuthFailed)
    assert "401" in error.message


def test_a_camera_that_dies_and_comes_back(
    camera: Any, grey_engine: Engine, listen: Callable[[Moves], Moves]
) -> None:
    moves = listen(Moves("reconnecting", camera.switch_on))
    with Stream(spec_of(camera.url), grey_engine) as stream:
        before: list[int] = []
        after: list[int] = []
        for result in stream:
            shade = int(result.frame.mean().round())
            (after if stream.sources[0].reconnects else before).append(shade)
            if len(before) == 5 and not after and "reconnecting" not in moves.states:
                last = camera.sent
                camera.switch_off()
            if len(after) == 5:
                stream.stop()
    assert moves.states == ["ok", "reconnecting", "ok"]
    assert stream.sources[0].reconnects == 1
    assert min(after) >= last - 1, "no frame from before the loss is shown after it"


def test_a_camera_that_freezes_is_stalled_then_lost_then_back(
    camera: Any, grey_engine: Engine, listen: Callable[[Moves], Moves]
) -> None:
    moves = listen(Moves("reconnecting", camera.frozen.clear))
    spec = spec_of(camera.url, stalled_s=0.3, read_s=1.5)
    with Stream(spec, grey_engine) as stream:
        for shown, _ in enumerate(stream):
            if shown == 3:
                camera.frozen.set()
            if stream.sources[0].reconnects:
                stream.stop()
    first_four = [state for state in moves.states if state != "starting"][:4]
    assert first_four == ["ok", "stalled", "reconnecting", "ok"]


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_port_that_refuses(scheme: str, grey_engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = failure(spec_of(URL.format(scheme=scheme, port=port)), grey_engine)
    assert isinstance(error, OpenFailed)
    assert f"127.0.0.1:{port} refused the connection" in error.message


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_by_ipv6_is_named_as_a_url_names_it(scheme: str, grey_engine: Engine) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
            port = taken.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 on loopback")
    error = failure(spec_of(f"{scheme}://[::1]:{port}/live"), grey_engine)
    assert f"[::1]:{port} refused the connection" in error.message


@pytest.mark.parametrize(("scheme", "timer"), [("rtsp", True), ("http", True), ("http", False)])
def test_a_server_that_never_answers(
    scheme: str, timer: bool, grey_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not timer:  # FFmpeg gives up by itself, a moment before the relay
        monkeypatch.setattr("edgeseg.sources.relay.Relay._expire", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        spec = spec_of(URL.format(scheme=scheme, port=port), open_s=0.5)
        error = failure(spec, grey_engine)
    assert isinstance(error, OpenFailed)
    assert "did not answer in time" in error.message


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (401, AuthFailed, "401"),
        (403, AuthFailed, "403"),
        (404, OpenFailed, "nothing at that path"),
        (500, OpenFailed, "status 500"),
        (200, OpenFailed, "no video that OpenCV can decode"),
    ],
)
def test_answers_are_told_apart(
    scheme: str,
    code: int,
    kind: type[EdgesegError],
    said: str,
    responder: Callable[..., Any],
    answers: Any,
    grey_engine: Engine,
) -> None:
    server = responder(lambda request: answers.status(request, code))
    error = failure(spec_of(URL.format(scheme=scheme, port=server.port)), grey_engine)
    assert type(error) is kind
    assert said in error.message


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    ("theirs", "kind", "said"), [("hunter2-QXZ", OpenFailed, "404"), ("another", AuthFailed, "401")]
)
def test_behind_a_digest_the_true_cause_is_found(
    scheme: str,
    theirs: str,
    kind: type[EdgesegError],
    said: str,
    responder: Callable[..., Any],
    answers: Any,
    grey_engine: Engine,
) -> None:
    server = responder(lambda request: answers.digest_guard(request, theirs, 404))
    error = failure(spec_of(URL.format(scheme=scheme, port=server.port)), grey_engine)
    assert type(error) is kind
    assert said in error.message


def test_a_url_without_user_is_told_that_one_is_wanted(
    responder: Callable[..., Any], answers: Any, grey_engine: Engine
) -> None:
    server = responder(lambda request: answers.status(request, 401))
    error = failure(spec_of(f"rtsp://127.0.0.1:{server.port}/live"), grey_engine)
    assert "a URL without user" in error.message
    assert "USER:PASSWORD" in str(error.hint)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtsps", "https"])
def test_another_protocol_is_said(
    scheme: str, responder: Callable[..., Any], grey_engine: Engine
) -> None:
    server = responder(lambda request: "SSH-2.0-OpenSSH_9.6\r\n\r\n")
    error = failure(spec_of(URL.format(scheme=scheme, port=server.port)), grey_engine)
    assert f"does not speak {scheme}" in error.message


OPEN_EACH = """
import logging, os, sys
if os.environ["THROUGH"] == "opencv":
    sys.modules["av"] = None
logging.basicConfig(level=logging.DEBUG)
from edgeseg.stream import parse_source
from edgeseg.sources.capture import open_frames
for url in sys.argv[1:]:
    try:
        open_frames(parse_source(url)).close()
        print("opened")
    except Exception:
        logging.exception("%s", parse_source(url))
"""


def open_in_fresh_process(
    through: str, *urls: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since FFmpeg reads its log level once."""
    return subprocess.run(
        [sys.executable, "-c", OPEN_EACH, *urls],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "THROUGH": through} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_libraries_keep_the_password_off_stderr(
    through: str, camera: Any, responder: Callable[..., Any], answers: Any, password: str
) -> None:
    server = responder(lambda request: answers.status(request, 401))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = taken.getsockname()[1]
    urls = [URL.format(scheme=s, port=p) for s in ("rtsp", "http") for p in (server.port, refused)]
    done = open_in_fresh_process(through, *urls, camera.url)
    assert done.stdout == "opened\n"
    assert done.stderr.count("Traceback") == 4
    assert password not in done.stderr
    assert "VIDEOIO" not in done.stderr, "OpenCV's own words"


def test_whoever_asks_opencv_for_its_log_gets_it(
    through: str, responder: Callable[..., Any], answers: Any
) -> None:
    if through == "pyav":
        pytest.skip("PyAV has no such variables")
    server = responder(lambda request: answers.status(request, 404))
    url = URL.format(scheme="rtsp", port=server.port)
    loud = open_in_fresh_process(
        through, url, OPENCV_LOG_LEVEL="WARNING", OPENCV_FFMPEG_LOGLEVEL="16"
    )
    assert "VIDEOIO" in loud.stderr
