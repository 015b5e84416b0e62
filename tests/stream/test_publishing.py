"""Overlays published to servers that take them for real, and as HLS for players."""

import base64
import contextlib
import functools
import http.server
import logging
import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, still_result, written

from edgeseg.cli.outputs import Live
from edgeseg.cli.sinks import destinations, publishing_sinks
from edgeseg.engines.base import Engine
from edgeseg.errors import OutputError, RuntimeMissing, UsageError
from edgeseg.stream import Background, Stream, StreamOptions, VideoPublisher, run
from edgeseg.stream.sinks import publisher
from edgeseg.stream.sinks.base import SinkContext
from edgeseg.stream.sinks.destination import has_secret, parse_destination
from edgeseg.stream.sinks.playlist import LISTED

SECRET = "hunter2-QXZ"
CAMERA = StillSource()
FILE = StillSource("a.mkv", realtime=False, live=False)
PATIENT = SinkContext(patient=True)
WIDTH, HEIGHT = 64, 48
MOST_WRITES = 1500
"""Frames after which a test gives up, a minute's at least."""


def result(number: int, at: float | None = None, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
    """A frame of one colour, greener with each number, whose right half is of class 1."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, WIDTH // 2 :] = 1
    frame = np.full((*size, 3), (200, 20 + 2 * (number % 100), 60), np.uint8)
    return still_result(labels, index=number, frame=frame, captured_at=number / 25, media_time=at)


def difference(shown: NDArray[np.uint8], meant: NDArray[np.uint8]) -> float:
    return float(np.abs(shown.astype(int) - meant.astype(int)).mean())


class Receiver:
    """GStreamer's RTSP server, which decodes what it is sent."""

    def __init__(self, *login: str, port: int = 0) -> None:
        self.frames: queue.Queue[NDArray[np.uint8]] = queue.Queue()
        script = Path(__file__).with_name("record_server.py")
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(script), str(port), *login],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            self.end()
            pytest.skip("no GStreamer RTSP server (apt install gir1.2-gst-rtsp-server-1.0 …)")
        self.port = int(line)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):  # The server was killed while it wrote.
                return
            width, height, pixels = line.split()
            shape = int(height), int(width), 3
            self.frames.put(np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(shape))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if hasattr(self, "_reading"):
            self._reading.join()
        self.process.stdin.close()
        self.process.stdout.close()


Serve = Callable[..., Receiver]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Receiver] = []

    def start(*login: str, port: int = 0) -> Receiver:
        started.append(Receiver(*login, port=port))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture(autouse=True)
def no_secret_anywhere(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert SECRET not in out + err + caplog.text


def publish_until(
    sink: Background, numbers: Iterator[int], frames: queue.Queue[NDArray[np.uint8]], count: int = 1
) -> None:
    """Publish frames until the server has shown so many overlays, and no frame under one.

    A server may lose the first packets, and a decoder then shows something else at first.
    """
    meant = [result(number) for number in range(100)]
    overlays, plain = [each.overlay() for each in meant], [each.frame for each in meant]
    seen = 0
    for _ in range(MOST_WRITES):
        sink.write(result(next(numbers)))
        with contextlib.suppress(queue.Empty):
            shown = frames.get(timeout=0.04)
            assert min(difference(shown, each) for each in plain) > 12
            seen += min(difference(shown, each) for each in overlays) < 6
        if seen == count:
            return
    raise AssertionError(sink.reports())


def test_a_server_that_comes_goes_and_comes_back(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    destination = f"rtsp://127.0.0.1:{port}/live"
    with pytest.raises(OutputError, match="connection refused"):
        VideoPublisher(destination).open([CAMERA])
    sink = Background(VideoPublisher(destination), may_skip=True)
    sink.prepare(PATIENT)
    sink.open([CAMERA])
    numbers = iter(range(100_000))
    while not sink.reports()[0].errors:
        sink.write(result(next(numbers)))
    for _ in range(2):
        server = serve(port=port)
        publish_until(sink, numbers, server.frames, 3)
        server.end()
        errors = sink.reports()[0].errors
        for _ in range(MOST_WRITES):
            sink.write(result(next(numbers)))
            if sink.reports()[0].errors > errors:
                break
    sink.close()
    (report,) = sink.reports()
    assert (report.kind, report.state) == ("VideoPublisher", "failed")
    assert report.written >= 6
    assert report.lost
    assert caplog.text.count("works again") == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_passwords_and_certificates(serve: Serve, tmp_path: Path) -> None:
    key, own, both = (tmp_path / name for name in ("key.pem", "own.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(own), "-days", "2", "-subj", "/CN=x"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    both.write_text(own.read_text() + key.read_text())
    server = serve("me", SECRET, str(both))
    url = f"rtsps://me:{SECRET}@127.0.0.1:{server.port}/live"
    with pytest.raises(OutputError, match="certificate is not trusted"):
        VideoPublisher(url).open([CAMERA])
    wrong = VideoPublisher(url.replace(SECRET, "wrong"), ca=own)
    wrong.open([CAMERA])
    with pytest.raises(OutputError, match="refuses the user and password"):
        wrong.write(result(0))
    wrong.close()
    sink = Background(VideoPublisher(url, ca=own), may_skip=True)
    sink.open([CAMERA])
    publish_until(sink, iter(range(100_000)), server.frames)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    sink.close()
    publishing = [each for each in commands if b"remux.py" in each]
    assert publishing
    assert not any(SECRET.encode() in each for each in publishing)


def test_a_server_that_answers_nothing_holds_neither_the_stream_nor_its_end(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        live = Live(publish=f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")
        (sink,) = publishing_sinks(destinations(live, 1), live, overwrite=False)
        options = StreamOptions(realtime=False)
        report = run(Stream("test:64x48?frames=60", engine, options), [sink])
        (thread,) = [each for each in threading.enumerate() if each.name == str(sink)]
        held = thread.is_alive()
    thread.join(30)
    assert report.frames == 60
    assert held, "the server still let it wait"
    assert "is stuck and is abandoned" in caplog.text
    assert [each.state for each in report.failed] == ["failed"]
    assert report.sinks[0].skipped > 50
    assert not thread.is_alive()


def test_rtmp_is_received() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/app/key"
    frames: queue.Queue[NDArray[np.uint8]] = queue.Queue()

    def receive() -> None:
        options = {"listen": "1", "analyzeduration": "0"}
        ended = contextlib.suppress(av.FFmpegError)  # how RTMP ends
        with ended, av.open(url, options=options, timeout=60) as container:
            for frame in container.decode(video=0):
                frames.put(frame.to_ndarray(format="bgr24"))

    listening = threading.Thread(target=receive, daemon=True)
    listening.start()
    sink = Background(VideoPublisher(url), may_skip=True)
    sink.prepare(PATIENT)  # a connection to try would be the only one that is accepted
    sink.open([CAMERA])
    publish_until(sink, iter(range(100_000)), frames, 3)
    sink.close()
    listening.join(60)
    assert sink.reports()[0].state == "ok"
    assert "key" not in str(sink)


def publish_file(path: Path, times: list[float], **options: Any) -> None:
    sizes = [(60, 80) if number == 3 else (HEIGHT, WIDTH) for number in range(len(times))]
    frames = map(result, range(len(times)), times, sizes)
    written(VideoPublisher(str(path), **options), *frames, source=FILE)


def test_a_playlist_is_bounded_and_stays_playable(tmp_path: Path) -> None:
    playlist = tmp_path / "new" / "live.m3u8"
    steps = np.random.default_rng(0).choice([0.04, 0.11, 0.2], 300)
    times = np.cumsum(steps).tolist()
    publish_file(playlist, times)
    with av.open(str(playlist)) as container:
        frames = [(float(each.time), each.key_frame) for each in container.decode(video=0)]
    shown = np.array([at for at, _ in frames])
    last = np.array(times[-len(shown) :])
    assert np.diff(shown) == pytest.approx(np.diff(last), abs=1e-4)
    assert frames[0][1]
    assert all(np.diff([at for at, key in frames if key]) < 2)
    listed = [line for line in playlist.read_text().splitlines() if not line.startswith("#")]
    assert len(listed) == LISTED
    assert len(times) > 2 * len(shown), "there was something to delete"
    assert {*listed} <= {each.name for each in playlist.parent.iterdir()}
    assert len(list(playlist.parent.iterdir())) <= 2 * LISTED
    # The next run goes on with higher numbers, and leaves nothing of this one.
    publish_file(playlist, times[:10])
    again = [line for line in playlist.read_text().splitlines() if not line.startswith("#")]
    assert min(again) > max(listed)
    assert len(list(playlist.parent.iterdir())) == len(again) + 2


def test_what_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    foreign = "#EXTM3U\n#EXTINF:1,\nholiday.ts\n"
    playlist.write_text(foreign)
    (tmp_path / "live-0001.mp4").write_text("a recording")
    with pytest.raises(UsageError, match="not a playlist of a stream") as refused:
        publish_file(playlist, [0.0])
    assert "--overwrite" in str(refused.value.hint)
    assert playlist.read_text() == foreign
    publish_file(playlist, [0.0, 0.04], overwrite=True)
    assert "live-hls-" in playlist.read_text()
    assert (tmp_path / "live-0001.mp4").read_text() == "a recording"
    writing = VideoPublisher(str(playlist))
    writing.open([FILE])
    with pytest.raises(OutputError, match="being written by another stream"):
        publish_file(playlist, [0.0])
    writing.close()
    with pytest.raises(UsageError, match="contains no '%'"):
        publish_file(tmp_path / "100%" / "a.m3u8", [0.0])
    link = tmp_path / "link.m3u8"
    link.symlink_to(playlist)
    with pytest.raises(UsageError, match="is not a file"):
        publish_file(link, [0.0], overwrite=True)


def test_chromium_plays_a_playlist(tmp_path: Path, browser: Any) -> None:
    if int(browser.version.split(".")[0]) < 142:
        pytest.skip("Chromium plays HLS from version 142 on")
    publish_file(tmp_path / "live.m3u8", [number / 25 for number in range(100)])
    (tmp_path / "index.html").write_text("<video muted src=live.m3u8></video>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    serving = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=serving.serve_forever, args=(0.02,)).start()
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{serving.server_port}/")
        page.evaluate("document.querySelector('video').play()")
        page.wait_for_function("document.querySelector('video').currentTime > 1")
        video = "document.querySelector('video')"
        found = page.evaluate(f"[{video}.videoWidth, {video}.videoHeight, {video}.error]")
        page.close()
    finally:
        serving.shutdown()
        serving.server_close()
    assert found == [WIDTH, HEIGHT, None]


def test_several_sources_have_a_playlist_each(tmp_path: Path, engine: Engine) -> None:
    live = Live(publish=str(tmp_path / "live.m3u8"))
    sinks = publishing_sinks(destinations(live, 2), live, overwrite=False)
    sources = ["test:64x48?frames=30", "test:32x32?frames=20"]
    report = run(Stream(sources, engine, StreamOptions(realtime=False)), sinks)
    assert [(each.written, each.lost) for each in report.sinks] == [(30, 0), (20, 0)]
    for number, size in enumerate([(64, 48), (32, 32)]):
        with av.open(str(tmp_path / f"live-{number}.m3u8")) as container:
            context = container.streams.video[0].codec_context
            assert (context.width, context.height) == size


@pytest.mark.parametrize(
    ("text", "label", "second"),
    [
        ("rtsp://h:8554/live", "rtsp://h:8554/live", "rtsp://h:8554/live-1"),
        ("RTSPS://u:p%40@h/a/b?x=pq", "rtsps://u:***@h/a/b?x=***", "rtsps://u:p%40@h/a/b-1?x=pq"),
        ("rtmp://u:p@h/app/key/k?t=p", "rtmp://u:***@h/app/***", "rtmp://u:p@h/app/key/k-1?t=p"),
        ("srt://h:9?streamid=publish:a:p", "srt://h:9", None),
        ("out/live.m3u8", "out/live.m3u8", "out/live-1.m3u8"),
    ],
)
def test_destinations(text: str, label: str, second: str | None) -> None:
    parsed = parse_destination(text)
    assert str(parsed) == label
    assert "p%40" not in repr(parsed)
    assert has_secret(text) == (label != text)
    if second is None:
        with pytest.raises(UsageError, match="several sources"):
            parsed.numbered(1)
    else:
        assert second in (parsed.numbered(1).target, parsed.numbered(1).label)


@pytest.mark.parametrize(
    "text",
    ["out.mp4", f"http://u:{SECRET}@h/x", f"rtmp://u:{SECRET}@h/app", f"rtsp://u:{SECRET}@/x", ""],
)
def test_other_destinations_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_destination(text)
    assert refused.value.hint
    assert SECRET not in f"{refused.value}{refused.value.hint}"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--publish-ca needs a server over TLS"):
        Live(publish="rtsp://h/live", publish_ca=Path("ca.pem")).check()
    if not publisher._has_srt():
        with pytest.raises(RuntimeMissing, match="no SRT") as missing:
            VideoPublisher("srt://127.0.0.1:9").open([CAMERA])
        assert "rtsp://" in str(missing.value.hint)
    monkeypatch.setattr(publisher, "have_pyav", lambda: False)
    with pytest.raises(RuntimeMissing, match="needs PyAV") as missing:
        VideoPublisher("rtsp://127.0.0.1:9/live").open([CAMERA])
    assert missing.value.hint == "pip install 'edgeseg[av]'"
