"""Files that are whole, damaged or oddly stamped: each frame has its number and its time."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numbered_videos import FPS, damage, make_numbered, number_of
from streaming import next_frame

from edgeseg.errors import SourceLost
from edgeseg.sources import capture
from edgeseg.sources.capture import open_frames
from edgeseg.sources.frames import Frames
from edgeseg.sources.places import FramePosition
from edgeseg.sources.recorded import open_video
from edgeseg.sources.spec import parse_source
from edgeseg.stream.reader import Reader

COUNT = 60
JPEG = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
WHOLE = ["h.mp4", "h.mkv", "h.avi", "h.ts", "h.flv", "m.mp4", "m.avi", "j.mkv", "j.avi", "v.webm"]
DAMAGED = [
    *((name, how) for name in ("h.mp4", "m.mp4", "j.mp4") for how in ("zero", "noise")),
    *((name, how) for name in ("h.mkv", "j.mkv", "v.webm", "h.ts") for how in ("zero", "cut")),
]
AVI = [(name, how) for name in ("m.avi", "j.avi") for how in ("zero", "noise", "cut")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``whole("h.mp4")``: the video of that codec and container."""
    folder = tmp_path_factory.mktemp("whole")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else make_numbered(path, name[0], COUNT)

    return make


@pytest.fixture(params=["PyAV", "OpenCV"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "OpenCV":
        monkeypatch.setattr(capture, "have_pyav", lambda: False)
    return str(request.param)


def read(path: Path) -> tuple[list[tuple[int, FramePosition]], Frames]:
    """What each frame shows and where it is said to stand, and the source at its end."""
    frames = open_frames(parse_source(path))
    found = []
    while (frame := frames.read()) is not None:
        assert frames.place is not None
        found.append((number_of(frame), frames.place))
    frames.close()
    return found, frames


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_counted(
    name: str, whole: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    found, frames = read(whole(name))
    assert [shown for shown, _ in found] == list(range(COUNT))
    assert [place.index for _, place in found] == list(range(COUNT))
    times = [place.media_time for _, place in found]
    assert times == pytest.approx([number / FPS for number in range(COUNT)], abs=0.002)
    assert not any(place.damaged for _, place in found)
    assert (frames.unreadable, frames.declared) == (0, COUNT)
    assert not caplog.records


def check_places(found: list[tuple[int, FramePosition]], frames: Frames) -> None:
    """Frames from the second key frame behind the damage on stand where they belong."""
    assert found[-1][0] == COUNT - 1, "the file is read to its end"
    assert len(found) + frames.unreadable == COUNT
    assert 0 < frames.unreadable < 24
    places = [place.index for _, place in found]
    assert places == sorted(set(places))
    for shown, place in found:
        if place.index < 20 or place.index >= 48:
            assert shown == place.index
        assert place.media_time == pytest.approx(place.index / FPS, abs=0.002)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("name", "how"), DAMAGED)
def test_frames_behind_damage_keep_their_numbers_and_times(
    name: str, how: str, whole: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    found, frames = read(damage(whole(name), how))
    check_places(found, frames)
    missing = sorted(set(range(COUNT)) - {place.index for _, place in found})
    assert f"frames {missing[0]} to " in caplog.text or f"frame {missing[0]} " in caplog.text


@pytest.mark.parametrize(("name", "how"), AVI)
def test_so_do_those_of_a_file_without_times(
    name: str, how: str, whole: Callable[[str], Path]
) -> None:
    """By its index, or by how many frames are missing in all; OpenCV tells neither."""
    check_places(*read(damage(whole(name), how)))


def test_a_key_frame_tells_what_was_lost_before_it(
    whole: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """AVI has no times, and the decoder drops without a word what follows a lost first picture."""
    data = bytearray(whole("h.avi").read_bytes())
    at = data.index(b"movi") + 20
    data[at : at + 3000] = bytes(3000)
    (tmp_path / "h.avi").write_bytes(data)
    found, frames = read(tmp_path / "h.avi")
    assert len(found) + frames.unreadable == COUNT
    assert 5 < frames.unreadable < 15
    assert "frame 0 cannot be read" in caplog.text
    assert all(shown == place.index for shown, place in found)
    assert all(p.media_time == pytest.approx(p.index / FPS, abs=0.002) for _, p in found)


# In MPEG-TS, some breaks behind that place are not seen: FFmpeg reports none.
@pytest.mark.parametrize(
    ("name", "until"), [("h.mp4", 70), ("h.flv", 70), ("h.mkv", 70), ("h.ts", 60)]
)
def test_no_frame_comes_out_of_turn_behind_damage(
    name: str, until: int, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """The decoder may hand out a frame from ahead of the damage among those behind it."""
    data = whole(name).read_bytes()
    for place in range(30, until, 3):
        at, length = len(data) * place // 100, len(data) // 16
        path = tmp_path / name
        path.write_bytes(data[:at] + bytes(length) + data[at + length :])
        found, frames = read(path)
        places = [place.index for _, place in found]
        assert places == sorted(set(places))
        assert [shown for shown, _ in found[-3:]] == places[-3:] == [57, 58, 59]
        assert len(found) + frames.unreadable == COUNT


@pytest.mark.usefixtures("reader")
def test_the_video_may_be_any_stream_of_the_file(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "sound-first.mkv"
    with av.open(str(whole("h.mkv"))) as source, av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        video = container.add_stream_from_template(source.streams.video[0])
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        silence.rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
    found, frames = read(path)
    assert [shown for shown, _ in found] == list(range(COUNT))
    assert frames.unreadable == 0


@pytest.mark.usefixtures("reader")
def test_a_name_with_a_colon_is_no_protocol(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(whole("h.mkv"), tmp_path / "file:30.mkv")
    monkeypatch.chdir(tmp_path)
    found, _ = read(Path("file:30.mkv"))
    assert len(found) == COUNT


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mka"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.add_attachment("cover.jpg", "image/jpeg", JPEG)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        silence.rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(OSError, match="no video"):
        open_video(path)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", ["h.mkv", "j.avi", "v.webm"])
def test_a_file_that_ends_early_is_compared_with_what_it_states(
    name: str, whole: Callable[[str], Path]
) -> None:
    found, frames = read(damage(whole(name), "truncated"))
    assert 15 < len(found) < 40
    assert [place.index for _, place in found] == list(range(len(found)))
    assert len(found) + frames.unreadable == frames.declared == COUNT


def test_frames_decoded_with_errors_are_flagged(whole: Callable[[str], Path]) -> None:
    data = bytearray(whole("m.mkv").read_bytes())
    for at in range(len(data) * 4 // 10, len(data) * 7 // 10, 997):
        data[at] ^= 0x55
    path = whole("m.mkv").with_name("flipped-m.mkv")
    path.write_bytes(data)
    found, _ = read(path)
    damaged = [place.index for _, place in found if place.damaged]
    assert damaged
    assert 15 < min(damaged) <= max(damaged) < 50


def take_all(path: Path, *, strict: bool) -> Reader:
    reader = Reader(parse_source(path), realtime=False, strict=strict)
    reader.start()
    while not reader.over or not reader.slot.empty:
        next_frame(reader.slot, 0.05)
    assert reader.close(5)
    return reader


@pytest.mark.usefixtures("reader")
def test_a_reader_counts_what_was_left_out(
    whole: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = damage(whole("h.mp4"), "zero")
    done = take_all(path, strict=False)
    assert done.state == "ended"
    assert done.bad_frames > 0
    assert f"{COUNT - done.bad_frames} of {COUNT} frames could be read" in caplog.text
    lost = take_all(path, strict=True)
    assert isinstance(lost.error, SourceLost)
    assert f"of {COUNT} frames could be read" in lost.error.message
    assert take_all(whole("h.mp4"), strict=True).error is None


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_at_odd_intervals_are_counted_and_kept(suffix: str, tmp_path: Path) -> None:
    times = [*np.arange(20) / 25, *range(2, 22), *(21.5 + np.arange(10) / 25)]
    path = make_numbered(tmp_path / f"odd.{suffix}", "m", 50, times)
    found, frames = read(path)
    assert [(shown, place.index) for shown, place in found] == [(n, n) for n in range(50)]
    assert [place.media_time for _, place in found] == pytest.approx(times, abs=0.002)
    assert frames.unreadable == 0


def shifted(seconds: float) -> Callable[[int, av.Packet], None]:
    def restamp(_: int, packet: av.Packet) -> None:
        ticks = round(seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    return restamp


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_begins_with_its_first_frame(suffix: str, tmp_path: Path) -> None:
    path = make_numbered(tmp_path / f"late.{suffix}", "h", 30, restamp=shifted(7))
    found, frames = read(path)
    assert [place.index for _, place in found] == list(range(30))
    times = [place.media_time for _, place in found]
    assert times == pytest.approx([number / FPS for number in range(30)], abs=0.002)
    assert frames.unreadable == 0


@pytest.mark.usefixtures("reader")
def test_times_never_step_backwards(tmp_path: Path) -> None:
    """Two recordings, one behind the other: the clock of the second begins anew."""
    part = make_numbered(tmp_path / "part.ts", "m", 20)
    both = tmp_path / "both.ts"
    both.write_bytes(part.read_bytes() * 2)
    found, frames = read(both)
    assert [place.index for _, place in found] == list(range(40))
    times = [place.media_time for _, place in found]
    assert times == pytest.approx([number / FPS for number in range(40)], abs=0.002)
    assert frames.unreadable == 0


@pytest.mark.usefixtures("reader")
def test_frames_of_one_time_are_different_frames(tmp_path: Path) -> None:
    times = [(number + 1) // 2 * 2 / FPS for number in range(30)]

    def restamp(number: int, packet: av.Packet) -> None:
        packet.pts = packet.dts = round(times[number] / packet.time_base)

    path = make_numbered(tmp_path / "twins.mkv", "j", 30, restamp=restamp)
    found, frames = read(path)
    assert [(shown, place.index) for shown, place in found] == [(n, n) for n in range(30)]
    assert [place.media_time for _, place in found] == pytest.approx(times, abs=0.002)
    assert frames.unreadable == 0


@pytest.mark.usefixtures("reader")
def test_a_file_without_time_stamps_is_counted_at_its_rate(tmp_path: Path) -> None:
    found, frames = read(make_numbered(tmp_path / "raw.h264", "h", 30))
    assert [(shown, place.index) for shown, place in found] == [(n, n) for n in range(30)]
    times = [place.media_time for _, place in found]
    assert times == pytest.approx([number / FPS for number in range(30)], abs=0.002)
    assert frames.unreadable == 0


@pytest.mark.parametrize("name", ["h.mp4", "j.avi", "v.webm", "odd", "deep", "90", "180", "270"])
def test_both_readers_give_the_same_bits(
    name: str, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = whole(name) if "." in name else changed(whole("h.mp4"), name, tmp_path)
    frames = capture._open_video(parse_source(path))
    assert type(frames).__name__ == "RecordedVideo"
    monkeypatch.setattr(capture, "have_pyav", lambda: False)
    others = capture._open_video(parse_source(path))
    assert type(others).__name__ == "VideoFile"
    for _ in range(10):
        one, other = frames.read(), others.read()
        assert one is not None
        assert other is not None
        if cv2.__version__ >= "5":
            assert np.array_equal(one, other)
        else:
            assert one.shape == other.shape
            assert np.abs(one.astype(int) - other).mean() < 3
    frames.close()
    others.close()


def changed(path: Path, how: str, folder: Path) -> Path:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    options = {
        "odd": ["-vf", "scale=131:67", "-c:v", "mpeg4"],
        "deep": ["-pix_fmt", "yuv420p10le", "-c:v", "libx264"],
    }.get(how, ["-c", "copy", "-metadata:s:v", f"rotate={how}"])
    out = folder / f"{how}.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), *options, str(out)], check=True)
    return out
