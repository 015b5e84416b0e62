"""What a service manager is told, at a real socket, of real streams that run, hang and wait."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cameras import MjpegCamera
from numpy.typing import NDArray
from streaming import StillSource, still_result

from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.options.streaming import Mode
from edgeseg.sources.spec import parse_source
from edgeseg.stream import (
    Sink,
    SourceLimits,
    Stream,
    StreamOptions,
    StreamReport,
    StreamResult,
    run,
)
from edgeseg.stream.result import State
from edgeseg.stream.sinks.watchdog import Notifier, Watchdog

ALIVE_S = 30.0
ROOT = Path(__file__).parents[2]
LABELS = np.zeros((8, 12), np.uint8)


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def heard(self) -> list[str]:
        """The assignments that came since the last call."""
        found: list[str] = []
        while True:
            try:
                found += self.socket.recv(65536, socket.MSG_DONTWAIT).decode().split("\n")
            except BlockingIOError:
                return found

    def until(self, wanted: str) -> list[str]:
        """What comes up to a message with an assignment that holds this text."""
        self.socket.settimeout(ALIVE_S)
        found: list[str] = []
        while not any(wanted in each for each in found):
            found += self.socket.recv(65536).decode().split("\n")
        return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@edgeseg-{secrets.token_hex(8)}"
    made = Manager(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    with made.socket:
        yield made


class Reached(Sink):
    """Calls ``look`` at each result, and counts idle rounds for a test that waits for some."""

    def __init__(self, look: Callable[[StreamResult], None] = lambda _: None) -> None:
        self.look = look
        self._waited_for = threading.Event()
        self._rounds = threading.Semaphore(0)

    def write(self, result: StreamResult) -> None:
        self.look(result)

    def idle(self) -> None:
        if self._waited_for.is_set():
            self._rounds.release()

    def idle_rounds(self, count: int) -> None:
        """Return when the loop has turned so often from now on without a result."""
        self._waited_for.set()
        for _ in range(count):
            assert self._rounds.acquire(timeout=ALIVE_S)


class Hanging(Engine):
    """Passes on to another engine; from call ``at`` on it hangs until ``go`` is set."""

    def __init__(self, engine: Engine, at: int) -> None:
        self.card, self.path, self.runtime = engine.card, engine.path, engine.runtime
        self.capabilities = engine.capabilities
        self._engine, self._left = engine, at
        self.hung, self.go = threading.Event(), threading.Event()

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._left -= 1
        if self._left <= 0 and not self.go.is_set():
            self.hung.set()
            assert self.go.wait(ALIVE_S)
        return self._engine.infer(batch)

    def close(self) -> None: ...


def started(stream: Stream, *sinks: Sink) -> tuple[threading.Thread, list[StreamReport]]:
    """The stream, run in a thread that the test joins."""
    reports: list[StreamReport] = []
    thread = threading.Thread(target=lambda: reports.append(run(stream, sinks)))
    thread.start()
    return thread, reports


def test_ready_comes_with_the_first_result_behind_all_other_sinks(
    manager: Manager, engine: Engine
) -> None:
    heard: list[list[str]] = []
    look = Reached(lambda _: heard.append(manager.heard()))
    source = "test:64x48@100?frames=5"
    run(Stream(source, engine), [look, Watchdog(Notifier(manager.address, 1e-6)), look])
    before, after = heard[0], heard[1]
    assert before == ["STATUS=waiting for the first frame"]
    assert after[0].startswith("STATUS=")
    assert after[1:] == ["WATCHDOG=1", "READY=1"]
    for between in heard[3::2]:
        assert " ms old" in between[0]
        assert between[1:] == ["WATCHDOG=1"]  # ready once only
    assert manager.heard() == ["STOPPING=1"]


def test_without_a_watchdog_there_is_a_status_and_no_ping(manager: Manager, engine: Engine) -> None:
    run(Stream("test:64x48?frames=3", engine), [Watchdog(Notifier(manager.address))])
    heard = manager.heard()
    assert {"READY=1", "STOPPING=1"} <= set(heard)
    assert "WATCHDOG=1" not in heard


def test_pings_are_as_rare_as_the_manager_is_patient(manager: Manager, engine: Engine) -> None:
    source = "test:64x48?frames=200"
    options = StreamOptions(realtime=False)
    run(Stream(source, engine, options), [Watchdog(Notifier(manager.address, 3600.0))])
    assert manager.heard().count("WATCHDOG=1") < 100  # one a second at most, however fast it ran


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_an_engine_that_hangs_is_not_covered_up(
    mode: Mode, manager: Manager, engine: Engine
) -> None:
    hanging, reached = Hanging(engine, at=8), Reached()
    stream = Stream("test:64x48@50", hanging, StreamOptions(realtime=True, mode=mode))
    thread, reports = started(stream, reached, Watchdog(Notifier(manager.address, 1e-6)))
    try:
        assert hanging.hung.wait(ALIVE_S)
        turning = mode == "throughput"  # the loop, beside the lane that hangs
        reached.idle_rounds(1 if turning else 0)  # results of before come out first
        assert "WATCHDOG=1" in manager.heard()
        reached.idle_rounds(5 if turning else 0)
        assert manager.heard() == []
        hanging.go.set()
        assert "WATCHDOG=1" in manager.until("WATCHDOG")
    finally:
        hanging.go.set()
        stream.stop()
        thread.join(ALIVE_S)
    assert reports[0].frames >= 5


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_sink_that_hangs_is_not_covered_up(manager: Manager, engine: Engine) -> None:
    entered, go = threading.Event(), threading.Event()

    def hang(result: StreamResult) -> None:
        if result.index > 3:
            entered.set()
            assert go.wait(ALIVE_S)

    stream = Stream("test:64x48@50?frames=10", engine)
    thread, _ = started(stream, Reached(hang), Watchdog(Notifier(manager.address, 1e-6)))
    assert entered.wait(ALIVE_S)
    assert "WATCHDOG=1" in manager.heard()
    assert stream.sources[0].state == "ok"
    assert manager.heard() == []
    go.set()
    thread.join(ALIVE_S)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_camera_that_goes_and_comes_back_keeps_the_service(
    manager: Manager, engine: Engine
) -> None:
    with MjpegCamera() as camera:
        stream = Stream(camera.url, engine)
        thread, _ = started(stream, Watchdog(Notifier(manager.address, 1e-6)))
        try:
            manager.until("READY")
            camera.switch_off()
            gone = manager.until("/mjpeg: reconnecting")
            assert gone[-1] == "WATCHDOG=1"
            assert "; http://user:***@127.0.0.1" in gone[-2]
            assert manager.until("WATCHDOG").count("WATCHDOG=1") == 1
            camera.switch_on()
            again = manager.until("ms old")
            assert "hunter2" not in "".join([*gone, *again])
        finally:
            stream.stop()
            thread.join(ALIVE_S)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_camera_that_is_off_at_the_start_does_not_keep_the_boot_waiting(
    manager: Manager, engine: Engine
) -> None:
    camera = MjpegCamera()
    with camera:
        url = camera.url  # whose port is free again
    limits = SourceLimits(backoff_s=(0.1,))
    spec = parse_source(url)
    spec = type(spec)(spec.kind, spec.target, spec.label, spec.live, limits=limits)
    stream = Stream(spec, engine, StreamOptions(keep_trying=True))
    thread, reports = started(stream, Watchdog(Notifier(manager.address, 1e-6)))
    try:
        assert "WATCHDOG=1" in manager.until("READY")
        camera.switch_on()
        manager.until("ms old")
    finally:
        stream.stop()
        thread.join(ALIVE_S)
        camera.switch_off()
    assert reports[0].frames > 0


@pytest.mark.parametrize(
    ("states", "pings"),
    [
        (("reconnecting",), True),
        (("stalled",), True),
        (("starting",), True),
        (("reconnecting", "failed"), True),
        (("stalled", "ended"), True),
        (("ok",), False),
        (("ok", "reconnecting"), False),
        (("ended",), False),
        (("failed", "ended"), False),
    ],
)
@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_only_waiting_for_a_source_excuses_silence(
    states: tuple[State, ...], pings: bool, manager: Manager
) -> None:
    watchdog = Watchdog(Notifier(manager.address, 1e-6))
    watchdog.open([StillSource(state=state) for state in states])
    manager.heard()
    watchdog.idle()
    assert ("WATCHDOG=1" in manager.heard()) is pings
    watchdog.write(still_result(LABELS))
    assert "WATCHDOG=1" in manager.heard()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager, engine: Engine) -> None:
    options = StreamOptions(realtime=False)
    watchdog = Watchdog(Notifier(manager.address, 1e-9))
    report = run(Stream("test:64x48?frames=1500", engine, options), [watchdog])
    assert report.frames == 1500  # more than any queue of datagrams holds
    assert len(manager.heard()) < 2 * report.frames


def test_a_manager_that_is_gone_stops_nothing_else(
    manager: Manager, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    look = Reached(lambda result: manager.socket.close() if result.index == 1 else None)
    sinks = [look, Watchdog(Notifier(manager.address, 1e-6))]
    options = StreamOptions(realtime=False)
    assert run(Stream("test:64x48?frames=5", engine, options), sinks).frames == 5
    assert "the service manager's watchdog failed and will be tried again" in caplog.text


def test_a_message_is_one_line_whatever_a_label_holds(manager: Manager) -> None:
    Notifier(manager.address).send("STATUS=gst:a\n! b\x1b[1m\ud800", "WATCHDOG=1")
    status, ping = manager.heard()
    assert status == r"STATUS=gst:a\n! b\x1b[1m\ud800"
    assert ping == "WATCHDOG=1"


def test_the_environment_says_who_is_watched() -> None:
    base = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "30000000"}

    def patience(**changes: str) -> float | None:
        notifier = Notifier.of_environment(base | changes, pid=7)
        assert notifier is not None
        return notifier.watchdog_s

    assert Notifier.of_environment({}) is None
    assert Notifier.of_environment({"NOTIFY_SOCKET": ""}) is None
    assert patience() == 30.0
    assert patience(WATCHDOG_PID="7") == 30.0
    assert patience(WATCHDOG_PID="8") is None  # the watchdog of another process
    assert patience(WATCHDOG_USEC="") is None
    for wrong in ({"WATCHDOG_USEC": "30s"}, {"WATCHDOG_USEC": "0"}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Notifier.of_environment(base | wrong)


def test_the_command_line_tells_its_manager(manager: Manager, bright_network: Path) -> None:
    command = ["stream", str(bright_network), "--source", "test:64x48?frames=3"]
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [sys.executable, "-m", "edgeseg", *command, "--every-frame", "--no-window", "--json"],
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout)["frames"] == 3
    heard = manager.heard()
    assert {"READY=1", "WATCHDOG=1"} <= set(heard)
    assert heard[-1] == "STOPPING=1"
