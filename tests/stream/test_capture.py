"""Opened sources: every frame, an end, and errors that say what to do."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.errors import OpenFailed
from edgeseg.sources import webcam
from edgeseg.sources.capture import Frames, TestPattern, open_frames
from edgeseg.sources.spec import parse_source
from edgeseg.sources.v4l2 import Camera


def drain(frames: Frames) -> list[Any]:
    read = []
    while (frame := frames.read()) is not None:
        read.append(frame)
    frames.close()
    return read


def test_pattern_is_the_same_in_every_run_moves_and_ends() -> None:
    first, second = (drain(open_frames(parse_source("test:64x48?frames=4"))) for _ in range(2))
    assert len(first) == 4
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in first)
    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_frames_of_the_pattern_are_the_callers_own() -> None:
    pattern = TestPattern((64, 48), 25.0, None)
    first = pattern.read()
    assert first is not None
    first[:] = 0
    second = pattern.read()
    assert second is not None
    assert second.any()


def test_video_gives_all_frames_in_order(
    make_video: Callable[..., Path], step: Callable[..., Any]
) -> None:
    frames = open_frames(parse_source(make_video(30)))
    assert (frames.fps, frames.declared) == (25.0, 30)
    read = drain(frames)
    assert len(read) == 30
    worst = max(np.abs(frame.astype(int) - step(i)).mean() for i, frame in enumerate(read))
    assert worst < 8, "JPEG of a hard edge strays by less; a neighbouring frame is 8 away"


def test_pictures_come_by_name_and_unreadable_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index, shade in (("10", 100), ("02", 20), ("01", 10)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((8, 8, 3), shade, np.uint8))
    good = (tmp_path / "10.png").read_bytes()
    (tmp_path / "03.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "notes.txt").write_text("no picture")
    frames = open_frames(parse_source(tmp_path))
    assert frames.declared == 4
    assert [int(frame[0, 0, 0]) for frame in drain(frames)] == [10, 20, 100]
    assert frames.unreadable == 1
    assert "03.png" in caplog.text


@pytest.mark.parametrize("source", ["gone.mkv", "gone/*.png"])
def test_what_is_not_there_is_said(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpenFailed) as failed:
        open_frames(parse_source(source))
    assert source in failed.value.message
    assert failed.value.hint
    assert failed.value.exit_code == 5


@pytest.mark.parametrize("content", [b"", b"this is no video\n", os.urandom(4096)])
def test_what_is_no_video_is_said(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(content)
    with pytest.raises(OpenFailed, match=rf"{path} \({len(content)} bytes\): expected a video"):
        open_frames(parse_source(path))


def test_a_missing_camera_names_the_devices_and_three_ways_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = (Camera("/dev/video2", "Brio 100", True), Camera("/dev/video4", "HDMI grabber", True))
    monkeypatch.setattr(webcam, "cameras", lambda: there)
    with pytest.raises(OpenFailed) as failed:
        open_frames(parse_source("camera:77"))
    assert "/dev/video77" in failed.value.message
    assert "/dev/video2 (Brio 100), /dev/video4 (HDMI grabber)" in failed.value.message
    assert failed.value.hint
    assert failed.value.hint.count("edgeseg stream --source") == 3
    assert "test:" in failed.value.hint


def test_a_machine_without_cameras_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcam, "cameras", lambda: ())
    with pytest.raises(OpenFailed, match=r"no /dev/video\* devices"):
        open_frames(parse_source("camera:77"))


def test_a_device_that_is_no_camera_is_said() -> None:
    with pytest.raises(OpenFailed, match="it is not a camera"):
        open_frames(parse_source("/dev/null"))
