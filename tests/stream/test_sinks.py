"""Each sink on real results, read back; and what happens when it cannot go on."""

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from streaming import StillSource, written

from edgeseg.data.decode import load_ids
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.stream import JsonLines, Masks, Recording, Stream, StreamOptions, StreamResult, Window

LIVE = StillSource("camera:0", 25.0, realtime=True)
FILE = StillSource("drive.mkv", 25.0, realtime=False)


@pytest.fixture
def result_at(engine: Engine) -> Callable[..., StreamResult]:
    """``result_at(seconds, size=(320, 240), index=0) -> StreamResult`` of the test pattern."""

    def make(seconds: float, size: tuple[int, int] = (320, 240), index: int = 0) -> StreamResult:
        source = f"test:{size[0]}x{size[1]}?frames={index + 1}"
        *_, result = Stream(source, engine, StreamOptions(realtime=False))
        return StreamResult(**(_fields(result) | {"captured_at": 1000.0 + seconds}))

    return make


def _fields(result: StreamResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__dataclass_fields__}


def record(path: Path, source: StillSource, results: list[StreamResult]) -> Recording:
    return written(Recording(path, codec="mjpeg"), *results, source=source)


def test_recording_shows_the_overlays(
    tmp_path: Path, result_at: Callable[..., StreamResult], play: Callable[..., Any]
) -> None:
    results = [result_at(0, index=index) for index in range(5)]
    record(tmp_path / "out" / "a.mkv", FILE, results)
    frames = play(tmp_path / "out" / "a.mkv")
    assert len(frames) == 5
    for frame, result in zip(frames, results, strict=True):
        assert np.abs(frame.astype(int) - result.overlay()).mean() < 4
    assert cv2.PSNR(frames[0], results[0].overlay()) > cv2.PSNR(frames[0], results[0].frame)


def test_recording_of_a_live_source_keeps_the_time_of_the_scene(
    tmp_path: Path, result_at: Callable[..., StreamResult], play: Callable[..., Any]
) -> None:
    seconds = [0, 0.04, 0.2, 0.24]  # three frames were dropped before the third
    results = [result_at(at, index=index * 8) for index, at in enumerate(seconds)]
    frames = play(record(tmp_path / "a.mkv", LIVE, results).path)
    assert len(frames) == 7
    shown = [_closest(frame, results) for frame in frames]
    assert shown == [0, 1, 1, 1, 1, 2, 3]


def _closest(frame: NDArray[np.uint8], results: list[StreamResult]) -> int:
    return int(np.argmax([cv2.PSNR(frame, result.overlay()) for result in results]))


def test_recording_shortens_a_stall_to_a_second(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    results = [result_at(at) for at in (0, 3600, 3600.04)]
    assert record(tmp_path / "a.mkv", LIVE, results).frames == 1 + 25 + 1 + 1


def test_recording_never_leaves_out_a_frame(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    results = [result_at(index * 0.01) for index in range(10)]  # four times the stated rate
    assert record(tmp_path / "a.mkv", LIVE, results).frames == 10


def test_recording_scales_frames_of_another_size_and_says_so_once(
    tmp_path: Path,
    result_at: Callable[..., StreamResult],
    play: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = [result_at(0), result_at(0, (640, 480)), result_at(0, (160, 120))]
    frames = play(record(tmp_path / "a.mkv", FILE, results).path)
    assert [frame.shape for frame in frames] == [(240, 320, 3)] * 3
    (record_of_log,) = caplog.records
    assert "640x480" in record_of_log.getMessage()


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "auto"), ("a.mp4", "mjpeg")])
def test_recording_wants_a_container_that_survives_a_crash(
    name: str, codec: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        Recording(tmp_path / name, codec=codec)
    assert (refused.value.hint or "").startswith(f"name it {tmp_path / 'a.mkv'}")


def test_recording_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="already exists"):
        Recording(path).open([FILE])
    assert path.read_bytes() == b"precious"


def test_recording_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    assert not record(tmp_path / "a.mkv", FILE, []).path.exists()


@pytest.mark.parametrize("sink", [Recording, JsonLines, Masks])
def test_a_place_that_cannot_be_written_is_said_at_the_start(sink: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot"):
        sink(tmp_path / "file" / "a.mkv").open([FILE])


def test_recording_notices_that_the_file_no_longer_grows(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    class SilentWriter:
        """OpenCV 4 returns nothing from write, whether or not the disk took it."""

        def write(self, picture: object, at: float | None) -> None: ...
        def release(self) -> None: ...

    sink = Recording(tmp_path / "a.mkv", codec="mjpeg")
    sink.open([FILE])
    result = result_at(0)
    sink.write(result)
    assert sink._part is not None
    sink._part.release()
    sink._part.writer = SilentWriter()  # type: ignore[assignment]
    with pytest.raises(OSError, match="disk full"):
        for _ in range(5000):
            sink.write(result)
    # The size at the first look is the measure; the second finds no growth.
    assert sink.frames <= 2 * (512 * 1024 // 400 + 2)


def test_black_frames_are_not_taken_for_a_full_disk(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    class MuteWriter:
        """The real writer with the return value of OpenCV 4."""

        def __init__(self, writer: cv2.VideoWriter) -> None:
            self._writer = writer

        def write(self, picture: NDArray[np.uint8], at: float | None) -> None:
            self._writer.write(picture)

        def release(self) -> None:
            self._writer.release()

    black = {"frame": np.zeros((480, 640, 3), np.uint8), "labels": np.zeros((48, 64), np.uint8)}
    result = StreamResult(**(_fields(result_at(0)) | black))
    vars(result)["_overlay"] = black["frame"]  # without legend: the smallest JPEG there is
    sink = Recording(tmp_path / "a.mkv", codec="mjpeg")
    sink.open([FILE])
    sink.write(result)
    assert sink._part is not None
    sink._part.writer = MuteWriter(sink._part.writer)  # type: ignore
    for _ in range(850):
        sink.write(result)
    sink.close()
    assert sink.frames == 851


def test_masks_are_the_label_maps(tmp_path: Path, result_at: Callable[..., StreamResult]) -> None:
    results = [result_at(0, index=index) for index in (0, 7)]
    written(Masks(tmp_path / "masks"), *results)
    paths = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in paths] == ["000000.png", "000007.png"]
    for path, result in zip(paths, results, strict=True):
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), result.mask())


def test_a_refused_mask_folder_is_not_left_behind(tmp_path: Path) -> None:
    pictures = [tmp_path / "a.png", tmp_path / "a.jpg"]
    with pytest.raises(UsageError, match="would have the same mask"):
        Masks(tmp_path / "runs" / "masks", pictures=pictures).open([FILE])
    assert not (tmp_path / "runs").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(UsageError):
        Masks(kept, pictures=pictures).open([FILE])
    assert kept.exists()
    # The next output refuses: the stream closes those that are open.
    with closing(Masks(tmp_path / "masks")) as sink:
        sink.open([FILE])
        assert (tmp_path / "masks").exists()
    assert not (tmp_path / "masks").exists()


def test_a_recording_without_a_frame_leaves_no_folder_behind(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    sink = Recording(tmp_path / "runs" / "a" / "drive.mkv")
    sink.open([FILE])
    assert sink.path.exists()
    sink.close()
    assert not (tmp_path / "runs").exists()
    written(sink, result_at(0), source=FILE)  # as one that failed before its first frame
    assert sink.files() == [tmp_path / "runs" / "a" / "drive.mkv"]


def test_masks_of_pictures_keep_their_names(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    named = StreamResult(**(_fields(result_at(0)) | {"name": "cell.07.tif"}))
    written(Masks(tmp_path / "masks"), named, source=FILE)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["cell.07.png"]


def test_coloured_masks_show_the_palette_and_hold_the_ids(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    result = result_at(0)
    written(Masks(tmp_path, coloured=True), result)
    path = tmp_path / "000000.png"
    assert set(np.unique(result.mask())) == {0, 1}
    np.testing.assert_array_equal(load_ids(path), result.mask())
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), result.mask())
        colours = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(colours, np.array(result.classes.palette)[result.mask()])


def parts_of(tmp_path: Path, results: list[StreamResult], keep: int | None) -> Recording:
    minutes = 3 / 25 / 60  # three frames
    sink = Recording(tmp_path / "a.mkv", codec="mjpeg", minutes=minutes, keep=keep)
    return written(sink, *results, source=FILE)


def test_recording_in_parts_loses_no_frame(
    tmp_path: Path, result_at: Callable[..., StreamResult], play: Callable[..., Any]
) -> None:
    results = [result_at(index / 25, index=index) for index in range(7)]
    assert parts_of(tmp_path, results, None).frames == 7
    frames = [play(tmp_path / f"a-000{number}.mkv") for number in (1, 2, 3)]
    assert [len(part) for part in frames] == [3, 3, 1]
    for frame, result in zip(itertools.chain(*frames), results, strict=True):
        assert np.abs(frame.astype(int) - result.overlay()).mean() < 4


def test_recording_deletes_the_oldest_parts_of_all_runs_and_nothing_else(
    tmp_path: Path, result_at: Callable[..., StreamResult]
) -> None:
    others = ["a-0004.avi", "a-12.mkv", "a-notes.mkv", "b-0009.mkv"]
    for name in ("a-0004.mkv", *others):
        (tmp_path / name).write_bytes(b"precious")
    sink = parts_of(tmp_path, [result_at(0)] * 10, 2)
    parts = [tmp_path / "a-0007.mkv", tmp_path / "a-0008.mkv"]
    assert sorted(tmp_path.iterdir()) == sorted([*parts, *(tmp_path / name for name in others)])
    assert sink.files() == parts
    assert parts_of(tmp_path, [result_at(0)], 2).files() == [tmp_path / "a-0009.mkv"]
    assert sorted(tmp_path.glob("a-0*.mkv")) == [parts[1], tmp_path / "a-0009.mkv"]


def test_a_part_of_a_live_source_begins_at_its_own_time(
    tmp_path: Path, result_at: Callable[..., StreamResult], play: Callable[..., Any]
) -> None:
    sink = Recording(tmp_path / "a.mkv", codec="mjpeg", minutes=3 / 25 / 60)
    written(sink, *map(result_at, (0, 0.04, 0.08, 0.2, 0.28)), source=LIVE)
    assert len(play(tmp_path / "a-0001.mkv")) == 3
    assert len(play(tmp_path / "a-0002.mkv")) == 3  # the one left out between is repeated


def test_recording_of_the_frames_alone(
    tmp_path: Path, result_at: Callable[..., StreamResult], play: Callable[..., Any]
) -> None:
    result = result_at(0)
    sink = written(Recording(tmp_path / "a.mkv", overlay=False), result, source=FILE)
    (frame,) = play(tmp_path / "a.mkv")
    assert np.abs(frame.astype(int) - result.frame).mean() < 4
    assert cv2.PSNR(frame, result.frame) > cv2.PSNR(frame, result.overlay())
    assert not sink.shows_overlay  # nobody draws what is not recorded


def test_a_window_without_display_is_said_once_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    result_at: Callable[..., StreamResult],
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    window = Window()
    window.open([LIVE])
    for _ in range(3):
        window.write(result_at(0))
    window.close()
    assert not window.shows_overlay
    (said,) = caplog.records
    assert "neither DISPLAY nor WAYLAND_DISPLAY" in said.getMessage()


def test_a_display_that_is_not_there_does_not_end_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    window = Window()
    window.open([LIVE])
    assert window._trial is not None
    assert window._trial.wait(60) != 0
    window.idle()
    assert len(caplog.records) == 1
    assert not window.shows_overlay


def test_results_can_be_drawn_by_several_threads(result_at: Callable[..., StreamResult]) -> None:
    result = result_at(0)
    pictures: list[NDArray[np.uint8]] = []
    threads = [threading.Thread(target=lambda: pictures.append(result.overlay())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
