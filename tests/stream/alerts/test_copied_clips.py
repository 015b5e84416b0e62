"""Clips of a camera's own packets: the same bytes, from a key frame on, at the camera's times."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from cameras import MjpegCamera
from numbered_videos import OPTIONS, make_numbered, number_of, numbered_frame
from streaming import StillSource, still_result

from edgeseg.engines.base import Engine
from edgeseg.sources import packets
from edgeseg.sources.packets import Packet, PacketStream, PacketTap
from edgeseg.stream import Stream, StreamOptions, run
from edgeseg.stream.alerts import AlertOutputs, Alerts, ClipOptions, Clips, parse_rule
from edgeseg.stream.sinks import health
from edgeseg.stream.sinks.matroska import PacketWriter
from edgeseg.stream.sinks.ring import Ring

FPS = 25
BEGUN = 1000.0
RULE = parse_rule("road > 50%")
LABELS = np.zeros((64, 128), np.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that packets arrive by."""
    now = SimpleNamespace(now=BEGUN)
    monkeypatch.setattr(packets, "time", SimpleNamespace(monotonic=lambda: now.now))
    return now


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key frames every 12 frames, and two B-frames between others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "h", {"g": "12", "x264-params": "bframes=2:b-adapt=0:scenecut=0"})
        return make_numbered(tmp_path_factory.mktemp("camera") / "h264.mp4")


@pytest.fixture(scope="module")
def mjpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbered(tmp_path_factory.mktemp("camera") / "mjpeg.mkv", "j")


class Camera:
    """A camera that sends the packets of a file at 25 a second, and the clips of its alerts."""

    def __init__(self, video: Path, folder: Path, clock: Any, **options: Any) -> None:
        self.clips = Clips(folder, ClipOptions(**options), overlay=False)
        self.tap = PacketTap()
        self._source = StillSource(realtime=False, packets=self.tap)
        self._clock = clock
        self._container = av.open(str(video))
        self._packets = [each for each in self._container.demux(video=0) if each.size]
        self._sent = 0
        self.connect()
        self.clips.open([self._source])

    def connect(self) -> None:
        """Begin a connection."""
        self.tap.connect(self._container.streams.video[0])

    def send(
        self, *numbers: int, alert: int = -1, restamp: Callable[[Any], None] = lambda packet: None
    ) -> None:
        """Send packets, numbered in the order of decoding, each followed by a result."""
        for number in numbers:
            self._clock.now = BEGUN + self._sent / FPS
            self._sent += 1
            packet = self._packets[number]
            restamp(packet)
            self.tap.push(packet)
            at = self._clock.now + 0.01
            result = still_result(LABELS, frame=numbered_frame(number), captured_at=at)
            if number == alert:
                self.clips.begin(RULE, result)
            self.clips.write(result)


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def shown(path: Path) -> list[tuple[int, float]]:
    """Numbers of the frames by PyAV, and their times; OpenCV sees the same."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    found = [number_of(each.to_ndarray(format="bgr24")) for each in frames]
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    again = []
    while (read := capture.read())[0]:
        again.append(number_of(np.asarray(read[1], np.uint8)))
    assert found == again
    return [(number, float(each.time)) for number, each in zip(found, frames, strict=True)]


def numbers(path: Path) -> list[int]:
    return [number for number, _ in shown(path)]


@pytest.mark.parametrize(
    ("codec", "first", "suffix"), [("h264", 12, ".mp4"), ("mjpeg", 18, ".mkv")]
)
def test_a_clip_has_the_packets_around_the_alert_as_they_are(
    codec: str, first: int, suffix: str, request: Any, tmp_path: Path, clock: Any
) -> None:
    video = request.getfixturevalue(codec)
    camera = Camera(video, tmp_path, clock, clip_before=0.5, clip_after=0.4)
    camera.send(*range(60), alert=30)
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(f"-0-road{suffix}")
    copied = packets_of(path)
    assert copied == packets_of(video)[first:41]
    found = shown(path)
    # Of three B-frames at the end two are missing, because they come later.
    expected = [*range(first, 40), 42 if codec == "h264" else 40]
    assert [number for number, _ in found] == expected
    offset = found[0][1] - first / FPS
    assert [at - offset for _, at in found] == pytest.approx(np.array(expected) / FPS, abs=2e-3)
    (report,) = camera.clips.reports()
    assert (report.written, report.lost, report.errors) == (len(copied), 0, 0)
    camera.clips.close()


def test_a_connection_that_begins_again_begins_the_next_file(
    h264: Path, tmp_path: Path, clock: Any
) -> None:
    camera = Camera(h264, tmp_path, clock, clip_before=0.5, clip_after=1)
    camera.send(*range(36), alert=30)
    camera.connect()
    camera.send(*range(3, 23))  # up to the key frame, nothing can be decoded
    camera.clips.close()
    rest, first = sorted(tmp_path.iterdir())
    assert rest.stem == f"{first.stem}-0001"
    assert numbers(first) == list(range(12, 36))
    assert numbers(rest) == [*range(12, 22), 23]


def test_frames_before_the_first_key_frame_are_those_of_results(
    h264: Path, tmp_path: Path, clock: Any
) -> None:
    camera = Camera(h264, tmp_path, clock, clip_before=1, clip_after=1)
    camera.send(*range(5, 36), alert=20)
    camera.clips.close()
    rest, first = sorted(tmp_path.iterdir())
    assert numbers(first) == list(range(5, 12))
    assert numbers(rest) == list(range(12, 36))
    assert packets_of(rest) == packets_of(h264)[12:36]


def _jump(by: int) -> Callable[[Any], None]:
    def restamp(packet: Any) -> None:
        if packet.dts > 512 * 20:
            packet.dts, packet.pts = packet.dts + by, packet.pts + by

    return restamp


def _same(packet: Any) -> None:
    packet.dts = packet.pts = 7


def _none(packet: Any) -> None:
    packet.dts = packet.pts = None


@pytest.mark.parametrize("restamp", [_jump(10**9), _jump(-(10**9)), _same, _none])
def test_wrong_time_stamps_cost_no_frame(
    restamp: Callable[[Any], None], h264: Path, tmp_path: Path, clock: Any
) -> None:
    camera = Camera(h264, tmp_path, clock, clip_before=0.7, clip_after=10)
    camera.send(*range(36), alert=30, restamp=restamp)
    camera.clips.close()
    (path,) = tmp_path.iterdir()
    found = shown(path)
    assert [number for number, _ in found] == list(range(12, 36))
    assert np.ptp([at for _, at in found]) == pytest.approx(23 / FPS, abs=0.1)


def test_a_disk_that_was_full_gets_the_rest_from_a_key_frame_on(
    h264: Path, tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_BACKOFF_S", (0.0,))
    count, write = iter(range(1000)), PacketWriter.write
    monkeypatch.setattr(
        PacketWriter, "write", lambda self, packet: next(count) != 17 and write(self, packet)
    )
    camera = Camera(h264, tmp_path, clock, clip_before=0.5, clip_after=10)
    camera.send(*range(48), alert=30)
    camera.clips.close()
    rest, first = sorted(tmp_path.iterdir())
    whole, again = numbers(first), numbers(rest)
    assert (whole[0], again[0], again[-1]) == (12, 24, 47)
    assert set(whole) | set(again) == set(range(12, 48))
    (report,) = camera.clips.reports()
    assert (report.errors, report.lost, report.state) == (1, 0, "ok")


def test_memory_is_bounded_in_seconds_and_in_bytes(h264: Path, tmp_path: Path, clock: Any) -> None:
    sizes = [len(packet) for packet in packets_of(h264)]
    camera = Camera(h264, tmp_path, clock, clip_before=0.2)
    camera.send(*range(60))
    assert camera.clips.memory == sum(sizes[48:60])
    random = np.random.default_rng(0)
    stream = PacketStream("h264", b"", packets.Fraction(1, 90_000))
    ring = Ring(5000)
    for number in range(300):
        data, key = bytes(int(random.integers(1, 900))), number % 7 == 0
        ring.push(Packet(number, data, key, None, None, stream))
        kept = list(ring)
        assert ring.used == sum(len(each.data) for each in kept) <= 5000
        assert not kept or (kept[0].key and kept[-1].at <= number)
        assert [each.at for each in kept] == [kept[0].at + n for n in range(len(kept))]
    assert ring.used > 2000


def test_a_tap_keeps_nothing_until_it_is_opened_and_never_more_than_it_may(
    h264: Path, clock: Any
) -> None:
    tap = PacketTap()
    with av.open(str(h264)) as container:
        tap.connect(container.streams.video[0])
        sent = [packet for packet in container.demux(video=0) if packet.size]
        tap.push(sent[0])
        assert tap.codec is None
        assert not tap.take(BEGUN)
        limit = sum(packet.size for packet in sent[12:20])
        assert tap.open(limit)
        assert not tap.open(limit), "it serves one output"
        for packet in sent[1:24]:
            tap.push(packet)
        taken = tap.take(BEGUN)
        assert [each.data for each in taken] == [bytes(packet) for packet in sent[12:20]]
        tap.push(sent[24])
        tap.connect(SimpleNamespace(codec_context=SimpleNamespace(name="vp8", extradata=b"1")))
        assert tap.codec is None
        assert [each.data for each in tap.take(BEGUN)] == [bytes(sent[24])]
        tap.close()
        tap.connect(container.streams.video[0])
        tap.push(sent[0])
        assert not tap.take(BEGUN)


@pytest.mark.parametrize(
    ("options", "clips", "copies"),
    [
        ({}, {"overlay": False}, True),
        ({"blur": ("bright",)}, {"overlay": False}, False),
        ({"cover": ("zone.json",)}, {"overlay": False}, False),
        ({}, {"overlay": True}, False),
        ({}, {"overlay": False, "codec": "h264"}, False),
    ],
    ids=["plain", "blur", "cover", "overlay", "codec"],
)
def test_only_clips_of_frames_that_hide_nothing_have_the_cameras_packets(
    options: dict[str, Any],
    clips: dict[str, Any],
    copies: bool,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zone.json").write_text('{"polygons": [[[0, 0], [1, 0], [1, 1]]]}')
    grey = [np.full((48, 64, 3), shade, np.uint8) for shade in range(250)]
    sent = {cv2.imencode(".jpg", picture)[1].tobytes() for picture in grey}
    writer = Clips(tmp_path / "clips", ClipOptions(), **clips)
    alerts = Alerts(
        [parse_rule("background >= 0%")], engine.card.classes, AlertOutputs(clips=writer)
    )
    with MjpegCamera(fps=60) as camera:
        stream = Stream(camera.url, engine, StreamOptions(max_frames=12, **options))
        assert (stream.sources[0].packets is None) is bool(options)
        assert Stream("test:64x48", engine).sources[0].packets is None
        run(stream, [alerts])
    found = {data for path in (tmp_path / "clips").iterdir() for data in packets_of(path)}
    assert len(found) >= 5
    assert bool(found & sent) is copies
    files = b"".join(path.read_bytes() for path in (tmp_path / "clips").iterdir())
    assert any(data in files for data in sent) is copies
