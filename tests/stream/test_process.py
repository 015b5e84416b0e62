"""What the operating system does to a stream: signals, full disks; each in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ALIVE_S = 60.0
ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, logging, sys
from pathlib import Path
{before}
logging.basicConfig(level=logging.INFO, format="%(message)s")
from edgeseg.engines import open_engine
from edgeseg.errors import EdgesegError
from edgeseg.stream import JsonLines, Recording, Stream, StreamOptions, run
network, source, *out = sys.argv[1:]
sinks = [Recording(Path(p)) if p.endswith(".mkv") else JsonLines(Path(p)) for p in out]
try:
    with open_engine(Path(network), threads=1) as engine:
        report = run(Stream(source, engine, StreamOptions({options})), sinks)
except EdgesegError as error:
    sys.exit(error.exit_code)
print(json.dumps(report.to_dict()))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(bright_network: Path) -> Iterator[Start]:
    """``start(source, *outputs, before="", options="") -> Popen``; killed at the end."""
    running: list[subprocess.Popen[str]] = []

    def launch(
        source: str, *outputs: Path, before: str = "", options: str = ""
    ) -> subprocess.Popen[str]:
        program = PROGRAM.format(before=before, options=options)
        arguments = [str(bright_network), source, *map(str, outputs)]
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait for what the process does, as long as it runs."""
    deadline = time.monotonic() + ALIVE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(path: Path) -> int:
    """Frames in a file of JSON lines."""
    return path.read_text().count('{"frame"') if path.exists() else 0


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=ALIVE_S)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_running_stream_and_its_recording_plays(
    number: int,
    start: Start,
    tmp_path: Path,
    play: Callable[..., list[object]],
    not_under_nohup: None,
) -> None:
    process = start("test:320x240@50", tmp_path / "a.mkv", tmp_path / "a.jsonl")
    until(process, lambda: lines(tmp_path / "a.jsonl") >= 5)
    process.send_signal(number)
    report = report_of(process)
    assert report["frames"] == lines(tmp_path / "a.jsonl") >= 5
    assert len(play(tmp_path / "a.mkv")) >= report["frames"]


def test_a_hang_up_that_is_ignored_ends_nothing(start: Start, tmp_path: Path) -> None:
    """As below ``nohup``: SIGHUP is followed by frames, and by the end that SIGTERM asks for."""
    process = start(
        *("test:64x48@50", tmp_path / "a.jsonl"),
        before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    )
    until(process, lambda: lines(tmp_path / "a.jsonl") >= 5)
    process.send_signal(signal.SIGHUP)
    before = lines(tmp_path / "a.jsonl")
    until(process, lambda: lines(tmp_path / "a.jsonl") >= before + 5)
    process.send_signal(signal.SIGTERM)
    assert report_of(process)["frames"] >= before + 5


def test_a_signal_ends_the_opening_of_a_silent_camera(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start(f"rtsp://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/live")
        silent.settimeout(ALIVE_S)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            report = report_of(process)
    assert report["frames"] == 0
    assert report["sources"][0]["label"].startswith("rtsp://user:***@")


def test_a_killed_process_leaves_a_readable_recording(
    start: Start, tmp_path: Path, play: Callable[..., list[object]]
) -> None:
    process = start(
        "test:640x480@25", tmp_path / "a.mkv", tmp_path / "a.jsonl", options="realtime=False"
    )
    until(process, lambda: lines(tmp_path / "a.jsonl") >= 150)
    process.kill()
    process.wait(ALIVE_S)
    written = lines(tmp_path / "a.jsonl")
    # All but the last two seconds, at the 25 frames a second of the file.
    assert len(play(tmp_path / "a.mkv")) >= 0.95 * (written - 50)
