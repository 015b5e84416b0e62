"""Measure how long a stream takes to detect and recover from camera faults, with default limits.

``python bench/camera_faults.py OUT`` writes OUT/faults.json and OUT/faults.md: each fault is
repeated on loopback, and its delays are shown beside their bounds. Needs
aio-rtsp-toolkit[server].
"""

import json
import logging
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from cameras import MjpegCamera
from faults.conftest import RtspCamera, free_port, numbered_video
from streaming import Grey

from edgeseg.errors import OpenFailed
from edgeseg.options.streaming import Mode
from edgeseg.stream import Stream, StreamOptions

RUNS = 3
SLOW_S = 60.0
Measured = dict[str, list[float]]

BOUNDS_S = {
    "killed: lost": 1.0,
    "killed: frames again after it is back": 7.0,
    "frozen: stalled": 2.0,
    "frozen: reconnecting": 5.0,
    "refused: error": 5.5,
    "never answers: error": 5.5,
    "404: error": 5.5,
    "slow consumer, latency: age at inference, p95": 0.090,
    "slow consumer, latency: age at inference, most": 0.090,
    "slow consumer, throughput: age at inference, p95": 0.090,
    "slow consumer, throughput: age at inference, most": 0.090,
}


class Moves(logging.Handler):
    """When each state was logged last."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note when a state was logged."""
        self.at[record.getMessage().rpartition(": ")[2].split(" (")[0]] = time.monotonic()


def lose_and_return(
    camera: RtspCamera, lose: Callable[[], None], back: Callable[[], None]
) -> tuple[float, float]:
    """When the camera was lost and when it was back; the stream goes on until frames come."""
    times: list[float] = []

    def return_later() -> None:
        time.sleep(1.0)
        back()
        times.append(time.monotonic())

    returning = threading.Thread(target=return_later)
    with Stream(camera.url, Grey()) as stream:
        for result in stream.ticks():
            state = stream.sources[0].state
            if not times and stream.frames == 30 and result is not None:
                times.append(time.monotonic())  # a loss may be noticed before the kill returns
                lose()
            if state == "reconnecting" and returning.ident is None:
                returning.start()
            if stream.sources[0].reconnects:
                stream.stop()
    returning.join()
    return times[0], times[1]


def measure_losses(camera: RtspCamera, moves: Moves, into: Measured) -> None:
    """Kill and freeze."""
    lost, back = lose_and_return(camera, camera.kill, camera.switch_on)
    into["killed: lost"].append(moves.at["reconnecting"] - lost)
    into["killed: frames again after it is back"].append(moves.at["ok"] - back)
    lost, _ = lose_and_return(camera, camera.freeze, camera.thaw)
    into["frozen: stalled"].append(moves.at["stalled"] - lost)
    into["frozen: reconnecting"].append(moves.at["reconnecting"] - lost)


def seconds_to_error(url: str) -> float:
    """How long a stream takes to say that it cannot open ``url``."""
    start = time.monotonic()
    try:
        list(Stream(url, Grey()))
    except OpenFailed:
        return time.monotonic() - start
    raise AssertionError(f"{url} opened")


def measure_errors(camera: RtspCamera, into: Measured) -> None:
    """Refused, silent, not found."""
    into["refused: error"].append(seconds_to_error(f"rtsp://127.0.0.1:{free_port()}/live"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"
        into["never answers: error"].append(seconds_to_error(url))
    into["404: error"].append(seconds_to_error(camera.url.replace("numbered", "gone")))


def measure_slow(mode: Mode, into: Measured) -> None:
    """200 ms a result of a camera of 25 frames a second."""
    ages: list[float] = []
    options = StreamOptions(mode=mode, duration=SLOW_S)
    with MjpegCamera() as camera, Stream(camera.url, Grey(), options) as stream:
        for result in stream:
            took = result.stages_ms["preprocess"] + result.stages_ms["infer"]
            ages.append((result.age_ms - took) / 1000)
            time.sleep(0.2)
    ages.sort()
    name = f"slow consumer, {mode}: age at inference"
    into[f"{name}, p95"].append(ages[int(0.95 * (len(ages) - 1))])
    into[f"{name}, most"].append(ages[-1])


def write(out: Path, measured: Measured) -> None:
    """Both files."""
    rows = {
        name: {"bound_s": BOUNDS_S[name], "measured_s": [round(each, 3) for each in values]}
        for name, values in measured.items()
    }
    (out / "faults.json").write_text(json.dumps(rows, indent=2) + "\n")
    lines = ["| fault | bound, s | measured, s |", "|---|---|---|"]
    for name, row in rows.items():
        values = ", ".join(f"{each:.3f}" for each in row["measured_s"])  # type: ignore[attr-defined]
        lines.append(f"| {name} | {row['bound_s']} | {values} |")
    (out / "faults.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure and write."""
    out = Path(sys.argv[1])
    moves = Moves()
    logger = logging.getLogger("edgeseg.stream.reader")
    logger.setLevel(logging.INFO)
    logger.addHandler(moves)
    measured: Measured = {name: [] for name in BOUNDS_S}
    with tempfile.TemporaryDirectory() as folder:
        with RtspCamera(numbered_video(Path(folder) / "numbered.mp4")) as camera:
            for _ in range(RUNS):
                measure_losses(camera, moves, measured)
                measure_errors(camera, measured)
        for mode in ("latency", "throughput"):
            measure_slow(mode, measured)
    write(out, measured)


if __name__ == "__main__":
    main()
