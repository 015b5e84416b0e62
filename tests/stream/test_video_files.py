"""Recordings in H.264 and HEVC, read back by PyAV and OpenCV, whole and after SIGKILL."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, still_result, written

from edgeseg.errors import RuntimeMissing
from edgeseg.stream import Recording
from edgeseg.stream.sinks import encoded, matroska
from edgeseg.stream.sinks.encoded import VideoEncoder, find_encoder

FILE = StillSource("a.mkv", fps=25.0, realtime=False, live=False)
CAMERA = StillSource("camera:0", fps=25.0)
KINDS = [("h264", ".mp4"), ("h264", ".mkv"), ("hevc", ".mp4")]
TICK = {".mp4": 1 / 90_000, ".mkv": 1 / 1000}


def picture(number: int, size: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """A bar over a slope of colours, which moves with the number."""
    rows, columns = np.indices(size)
    frame = np.stack([rows * 2, columns, np.full(size, 60)], axis=2) % 256
    frame[:, (number * 8) % size[1] :][:, :24] = (30, 60, 220)
    return frame.astype(np.uint8)


def record(
    path: Path,
    times: Sequence[float],
    source: StillSource = FILE,
    sizes: Sequence[tuple[int, int]] = ((96, 128),),
    **options: Any,
) -> Recording:
    """Record pictures of such sizes in turn at these times."""
    results = []
    for number, at in enumerate(times):
        frame = picture(number, sizes[number % len(sizes)])
        labels = np.zeros(frame.shape[:2], np.uint8)
        moment = {"captured_at": 1000 + at, "media_time": None if source.live else at}
        results.append(still_result(labels, index=number, frame=frame, **moment))
    return written(Recording(path, overlay=False, **options), *results, source=source)


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_each_frame_is_shown_at_its_time(
    codec: Any, suffix: str, tmp_path: Path, play: Callable[[Path], Any]
) -> None:
    steps = np.random.default_rng(0).choice([0.0123, 0.04, 0.2, 0.7], 30)
    times = [0.0, *np.cumsum(steps).tolist()]
    path = record(tmp_path / f"a{suffix}", times, codec=codec).path
    frames = decoded(path)
    shown = [frame.pts * frame.time_base for frame in frames]
    assert [float(at) for at in shown] == pytest.approx(times, abs=TICK[suffix])
    # A player can start within a second, or at the first frame after one without any.
    keys = [float(at) for at, frame in zip(shown, frames, strict=True) if frame.key_frame]
    assert keys[0] == 0
    assert all(b - a <= 1 + 0.7 for a, b in pairwise([*keys, times[-1]]))
    pictures = play(path)
    assert len(pictures) == len(times)
    for number, shown_picture in enumerate(pictures):
        assert np.abs(shown_picture.astype(int) - picture(number)).mean() < 6


@pytest.mark.parametrize("hybrid", [True, False])
def test_a_closed_mp4_is_an_ordinary_one_where_ffmpeg_can_write_it(
    hybrid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hybrid:  # like FFmpeg before 7.1
        monkeypatch.setattr(encoded, "_HYBRID", (999, 0, 0))
    elif av.library_versions["libavformat"] < encoded._HYBRID:
        pytest.skip("this FFmpeg cannot")
    path = record(tmp_path / "a.mp4", [number / 25 for number in range(40)]).path
    assert (b"moof" in boxes(path)) is not hybrid
    assert len(decoded(path)) == 40


def boxes(path: Path) -> list[bytes]:
    """Types of the outermost boxes (ISO/IEC 14496-12, 4.2)."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found.append(kind)
        at += struct.unpack_from(">Q", data, at + 8)[0] if size == 1 else size
    return found


def test_frames_of_a_camera_keep_their_times_and_a_long_gap_is_a_second(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.21, 0.25, 3600.0, 3600.04]
    sink = record(tmp_path / "a.mp4", times, CAMERA)
    shown = [float(frame.time) for frame in decoded(sink.path)]
    assert shown[:4] == pytest.approx(times[:4], abs=0.0001)
    assert shown[4] - shown[3] == pytest.approx(1, abs=0.05)
    assert shown[5] - shown[4] == pytest.approx(0.04, abs=0.0001)
    assert sink.frames == 6


def test_frames_of_other_and_of_odd_sizes_are_recorded(
    tmp_path: Path, play: Callable[[Path], Any]
) -> None:
    sizes = ((97, 129), (48, 64), (200, 300))
    sink = record(tmp_path / "a.mp4", [0.0, 0.04, 0.08], sizes=sizes)
    frames = play(sink.path)
    assert [frame.shape for frame in frames] == [(98, 130, 3)] * 3
    assert np.abs(frames[0][:97, :129].astype(int) - picture(0, sizes[0])).mean() < 6


def test_each_part_can_be_played_alone_and_the_newest_are_kept(
    tmp_path: Path, play: Callable[[Path], Any]
) -> None:
    (tmp_path / "a-0003.mp4").write_bytes(b"of an earlier run")
    (tmp_path / "a-0003.mkv").write_bytes(b"precious")
    times = [number / 25 for number in range(70)]
    sink = record(tmp_path / "a.mp4", times, CAMERA, minutes=20 / 25 / 60, keep=2)
    assert [path.name for path in sink.files()] == ["a-0006.mp4", "a-0007.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"a-0003.mkv", "a-0006.mp4", "a-0007.mp4"}
    parts = [play(path) for path in sink.files()]
    assert [len(part) for part in parts] == [20, 10]
    first = decoded(sink.files()[0])[0]
    assert (first.time, first.key_frame) == (0, True)
    assert np.abs(parts[0][0].astype(int) - picture(40)).mean() < 6


SERVICE = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from streaming import StillSource, still_result
from edgeseg.stream import Recording
sinks = [Recording(Path(path), overlay=False, codec=path[:4]) for path in sys.argv[1:]]
for sink in sinks:
    sink.open([StillSource()])
random, labels = np.random.default_rng(0), np.zeros((96, 128), np.uint8)
for index in count():
    frame = np.full((96, 128, 3), 128, np.uint8) if index % 2 else labels[..., None].repeat(3, 2)
    for sink in sinks:
        sink.write(still_result(labels, frame=frame, index=index, captured_at=index / 25))
    print(index, flush=True)
"""


def test_a_killed_process_loses_less_than_a_second(
    tmp_path: Path, play: Callable[[Path], Any]
) -> None:
    names = [f"{codec}{suffix}" for codec, suffix in KINDS]
    child = subprocess.Popen(
        [sys.executable, "-c", SERVICE, *names],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert child.stdout is not None
    last = next(index for line in child.stdout if (index := int(line)) >= 110)
    child.kill()
    child.wait(60)
    child.stdout.close()
    for name in names:
        frames = decoded(tmp_path / name)
        assert len(frames) > last - 25, name
        assert [frame.time for frame in frames] == pytest.approx(np.arange(len(frames)) / 25)
        assert len(play(tmp_path / name)) == len(frames), name


def test_without_pyav_auto_is_mjpeg_and_what_needs_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encoded, matroska):
        monkeypatch.setattr(module, "have_pyav", lambda: False)
    path = record(tmp_path / "a.mkv", [0.0, 0.04]).path
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    for name, codec in (("b.mp4", "auto"), ("b.mkv", "hevc")):
        with pytest.raises(RuntimeMissing, match="needs PyAV") as refused:
            record(tmp_path / name, [0.0], codec=codec)
        assert "pip install 'edgeseg[av]'" in (refused.value.hint or "")
        assert not (tmp_path / name).exists()


def test_encoders_that_do_not_work_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (VideoEncoder("h264_of_no_one"), VideoEncoder("libx264", {"preset": "none"}))
    works = VideoEncoder("libx264", {"preset": "ultrafast"})
    monkeypatch.setattr(encoded, "_ENCODERS", {"h264": (*broken, works), "hevc": broken})
    assert find_encoder("h264") == works
    assert find_encoder("hevc") is None
    with pytest.raises(RuntimeMissing, match="HEVC has no encoder that works here"):
        record(tmp_path / "a.mkv", [0.0], codec="hevc")
    monkeypatch.setattr(encoded, "_ENCODERS", {"h264": broken, "hevc": broken})
    with av.open(str(record(tmp_path / "a.mkv", [0.0]).path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
