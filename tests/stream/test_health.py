"""``docs/deploy/health.py``, which says for a container whether frames leave its stream."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from cameras import MjpegCamera

from edgeseg.engines.base import Engine
from edgeseg.stream import Sink, SourceStatus, Stream, StreamOptions, StreamResult, run
from edgeseg.stream.sinks.metrics import Metrics

HEALTH = Path(__file__).parents[2] / "docs" / "deploy" / "health.py"


class Holding(Sink):
    """Stands still at a result until it is let go."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.opened, self.there, self.go = (threading.Event() for _ in range(3))

    def open(self, sources: Sequence[SourceStatus]) -> None:
        self.opened.set()

    def write(self, result: StreamResult) -> None:
        if result.index >= self.at:
            self.there.set()
            assert self.go.wait(60)


def health(port: int, seconds: float) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{port}/metrics"
    return subprocess.run(
        [sys.executable, HEALTH, url, str(seconds)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_stream_is_healthy_while_frames_leave_it(engine: Engine) -> None:
    metrics, holding = Metrics("127.0.0.1", 0), Holding(at=1)
    stream = Stream("test:64x48@50", engine)
    thread = threading.Thread(target=run, args=(stream, [metrics, holding]))
    thread.start()
    try:
        assert holding.there.wait(60)
        hangs = health(metrics.port, 0.0)
        assert hangs.returncode == 1
        assert hangs.stdout == "no frame in 0.0 s, though a source sends\n"
        holding.at = sys.maxsize
        holding.go.set()
        assert health(metrics.port, 2.0).returncode == 0
    finally:
        holding.go.set()
        stream.stop()
        thread.join(60)
    assert health(metrics.port, 0.0).returncode == 1  # nobody answers


def test_a_stream_is_healthy_while_its_camera_is_off(engine: Engine) -> None:
    metrics, opened = Metrics("127.0.0.1", 0), Holding(at=0)
    with MjpegCamera() as camera:
        camera.switch_off()
        stream = Stream(camera.url, engine, StreamOptions(keep_trying=True))
        thread = threading.Thread(target=run, args=(stream, [metrics, opened]))
        thread.start()
        try:
            assert opened.opened.wait(60)
            assert health(metrics.port, 0.0).returncode == 0
        finally:
            stream.stop()
            thread.join(60)
