"""SIGINT and SIGTERM in each state a camera can be in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

ROOT = Path(__file__).parents[2]
ALIVE_S = 60.0

PROGRAM = """
import json, logging, sys
from pathlib import Path
from dataclasses import replace
from streaming import Grey
from edgeseg.stream import SourceLimits, Recording, Stream, StreamOptions, parse_source, run
logging.basicConfig(level=logging.INFO, format="%(message)s")
out, mode, *urls = sys.argv[1:]
limits = SourceLimits(open_s=20, read_s=30, stalled_s=0.3)
specs = [replace(parse_source(url), limits=limits) for url in urls]
stream = Stream(specs, Grey(), StreamOptions(mode=mode))
print(json.dumps(run(stream, [Recording(Path(out))] if len(urls) == 1 else []).to_dict()))
"""


def start(out: Path, mode: str, *urls: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), mode, *urls],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], said: str) -> str:
    """What it logs, up to a line that holds ``said``."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if said in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


@pytest.mark.parametrize(
    ("number", "mode"), [(signal.SIGINT, "latency"), (signal.SIGTERM, "throughput")]
)
def test_a_signal_while_stalled_leaves_a_recording_that_plays(
    number: int, mode: str, camera: Any, tmp_path: Path, password: str
) -> None:
    with start(tmp_path / "a.mkv", mode, camera.url) as process:
        try:
            log = wait_for(process, ": ok")
            sent = camera.sent
            deadline = time.monotonic() + ALIVE_S
            while camera.sent < sent + 25:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            camera.frozen.set()
            log += wait_for(process, ": stalled")
            process.send_signal(number)
            out, rest = process.communicate(timeout=ALIVE_S)
        finally:
            process.kill()
    assert process.returncode == 0, rest
    assert password not in log + out + rest
    report = json.loads(out)
    assert report["sources"][0]["state"] == "stalled"
    capture = cv2.VideoCapture(str(tmp_path / "a.mkv"))
    frames = 0
    while capture.read()[0]:
        frames += 1
    capture.release()
    assert frames >= report["frames"] > 0


def test_a_signal_ends_several_cameras_of_which_one_is_dead(
    more_cameras: Callable[[], Any], tmp_path: Path
) -> None:
    dead, alive = more_cameras(), more_cameras()
    dead.switch_off()
    with start(tmp_path / "a.mkv", "throughput", dead.url, alive.url) as process:
        try:
            wait_for(process, ": ok")
            process.send_signal(signal.SIGTERM)
            out, rest = process.communicate(timeout=ALIVE_S)
        finally:
            process.kill()
    assert process.returncode == 0, rest
    assert [each["state"] for each in json.loads(out)["sources"]] == ["reconnecting", "ok"]
