"""``--decode``: devices that are missing, and what is decoded without them, with the real PyAV."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import pytest
from numbered_videos import make_numbered

from edgeseg.engines.base import Engine
from edgeseg.errors import RuntimeMissing
from edgeseg.sources import decoding, recorded
from edgeseg.sources.spec import parse_source
from edgeseg.stream import Stream, StreamOptions, run


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    decoding.device_for.cache_clear()
    yield
    decoding.device_for.cache_clear()


@pytest.mark.parametrize("device", ["cuda", "quantum"])
def test_a_device_that_is_missing_is_refused_with_those_that_are_offered(
    device: str, engine: Engine
) -> None:
    if decoding.device_for("auto") == device:
        pytest.skip("this machine decodes on the device")
    with pytest.raises(RuntimeMissing, match=f"--decode {device}: ") as caught:
        Stream("test:", engine, StreamOptions(decode=device))
    offered = ", ".join(decoding._offered()) or "none"
    assert f"offers: {offered};" in (caught.value.hint or "")
    assert ("PyAV does not offer it" in caught.value.message) == (device not in offered)


def test_without_pyav_only_an_explicit_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av.logging", None)
    assert [decoding.device_for(each) for each in ("auto", "cpu")] == [None, None]
    with pytest.raises(RuntimeMissing, match="PyAV is not installed"):
        decoding.device_for("cuda")


@pytest.mark.parametrize(
    ("decode", "level"), [("auto", logging.INFO), ("qsv", logging.WARNING), ("cpu", None)]
)
def test_a_video_that_the_device_cannot_decode_is_decoded_by_the_cpu_and_says_so(
    decode: str,
    level: int | None,
    make_video: Callable[..., Path],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # As if the device opened: FFmpeg's decoders have no QSV method that PyAV uses.
    monkeypatch.setattr(decoding, "_offered", lambda: {"qsv": av.Codec("h264", "r")})
    monkeypatch.setattr(decoding, "_trouble", lambda *_: None)
    caplog.set_level(logging.INFO)
    report = run(Stream(make_video(20), engine, StreamOptions(decode=decode)))
    assert report.frames == 20
    assert [source.decoder for source in report.sources] == ["cpu"]
    said = [each for each in caplog.records if "decoded by" in each.getMessage()]
    assert [each.levelno for each in said] == ([] if level is None else [level])
    assert all("decoded by the CPU: qsv cannot decode it" in each.getMessage() for each in said)


def test_a_source_that_pyav_does_not_read_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoding, "_offered", lambda: {"qsv": av.Codec("h264", "r")})
    monkeypatch.setattr(decoding, "_trouble", lambda *_: None)
    report = run(Stream("test:?frames=3", engine, StreamOptions(decode="qsv")))
    assert report.sources[0].decoder is None
    assert "not decoded by qsv: not read by PyAV" in caplog.text


class _OnDevice:
    """A stream whose decoder chose the device's format."""

    def __init__(self, chosen: str) -> None:
        self.codec_context = self
        self.codec = av.Codec("h264", "r")
        self.pix_fmt = chosen


def test_the_decoder_is_the_device_only_if_its_frames_have_the_format_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = getattr(av.Codec("h264", "r"), "hardware_configs", ())
    formats = [each.format.name for each in configs if each.format]
    if not formats:
        pytest.skip("this build of PyAV has no device for H.264")
    monkeypatch.setattr(decoding, "device_for", lambda _: "cuda")
    assert decoding.decoder_of(_OnDevice(formats[0]), "auto") == "cuda"
    assert decoding.decoder_of(_OnDevice("yuv420p"), "auto") == "cpu"


FREED = """
import sys, av.logging
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import parse_source

av.logging.set_level(av.logging.ERROR)  # as torchvision.io does
for number in range(60):
    frames = open_frames(parse_source(sys.argv[1]))
    for _ in range(number % 12 + 1):
        frames.read()
    frames.close()
print(frames.decoder)
"""


def test_a_damaged_video_can_be_left_at_any_frame(tmp_path: Path) -> None:
    """FFmpeg's threads report damage while the decoder is freed; neither may wait for the other."""
    path = tmp_path / "damaged.mp4"
    whole = make_numbered(tmp_path / "whole.mp4", "h", 60)
    data = bytearray(whole.read_bytes())
    for place in range(len(data) // 10, len(data) * 8 // 10, 199):
        data[place] ^= 0xFF
    path.write_bytes(data)
    command = [sys.executable, "-c", FREED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("cpu\n", 0), done.stderr


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 4)])
def test_half_the_cores_decode_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(recorded, "physical_cores", lambda: cores)
    video = make_numbered(tmp_path / "video.mp4", count=3)
    opened = recorded.RecordedVideo(parse_source(str(video)))
    assert opened.read() is not None
    assert opened._stream.codec_context.thread_count == threads
    opened.close()


def test_opencv_leaves_the_cores_to_the_network(edgeseg: Any) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        assert edgeseg("stream", "--source", "test:64x48?frames=1", "--no-window").code == 0
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)
