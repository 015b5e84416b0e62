"""V4L2 cameras: each cause of a failure is said, and what a camera gives instead."""

import errno
import os
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeseg.errors import OpenFailed
from edgeseg.sources import webcam
from edgeseg.sources.spec import SourceSpec, parse_source, with_format
from edgeseg.sources.v4l2 import Mode
from edgeseg.sources.webcam import open_camera

OFFERED = (Mode("MJPG", (1280, 720), 30.0), Mode("YUYV", (640, 480), 30.0))


class Capture:
    """OpenCV's side of a camera that gives 640x480 at 30 a second whatever it is asked."""

    opens = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def open(self, device: str, backend: int) -> bool:
        assert backend == cv2.CAP_V4L2
        return self.opens

    def set(self, key: int, value: float) -> bool:
        self.asked.append((key, value))
        return False

    def get(self, key: int) -> float:
        given = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480}
        return {**given, cv2.CAP_PROP_FPS: 30.0}.get(key, -1.0)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceSpec:
    """A device file behind which the two doubles stand: no camera can exist on a build machine."""
    device = tmp_path / "video0"
    device.touch()
    monkeypatch.setattr(webcam, "modes", lambda _: OFFERED)
    monkeypatch.setattr(webcam, "captures_video", lambda _: True)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return SourceSpec("camera", str(device), "camera:0", live=True)


def refused(spec: SourceSpec) -> OpenFailed:
    with pytest.raises(OpenFailed) as failed:
        open_camera(spec)
    assert failed.value.hint
    return failed.value


def test_what_is_asked_for_is_asked_in_the_order_that_drivers_want(
    spec: SourceSpec, caplog: pytest.LogCaptureFixture
) -> None:
    frames: Any = open_camera(with_format(spec, (640, 480), 30))
    assert frames.fps == 30
    assert frames._capture.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 640),
        (cv2.CAP_PROP_FRAME_HEIGHT, 480),
        (cv2.CAP_PROP_FPS, 30),
    ]
    assert not caplog.records


@pytest.mark.parametrize(
    ("size", "fps", "asked"),
    [((1920, 1080), None, "1920x1080"), ((640, 480), 60, "640x480@60"), (None, 60, "@60")],
)
def test_another_format_is_said_once_with_what_there_is(
    size: Any, fps: float | None, asked: str, spec: SourceSpec, caplog: pytest.LogCaptureFixture
) -> None:
    open_camera(with_format(spec, size, fps))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        f"camera:0: asked for {asked}, the camera gives 640x480@30; "
        "it offers 1280x720@30 MJPG, 640x480@30 YUYV"
    )


def test_a_camera_in_use(spec: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "opens", False)
    error = refused(spec)
    assert "another program may use it" in error.message
    assert f"fuser -v {spec.target}" in str(error.hint)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENODEV, "no such device"),
        (errno.EIO, "input/output error"),
        (errno.ENOTTY, "not a camera"),
    ],
)
def test_a_device_that_fails_says_why(
    code: int, said: str, spec: SourceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(webcam, "modes", fail)
    assert said in refused(spec).message


def test_a_metadata_node(spec: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcam, "captures_video", lambda _: False)
    assert "gives no video (metadata" in refused(spec).message


def test_without_permission(spec: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do all
    error = refused(spec)
    assert "permission denied" in error.message
    assert "usermod -aG video" in str(error.hint)


def test_real_devices_that_are_none() -> None:
    assert "there is no such device" in refused(parse_source("camera:999")).message
    assert "it is not a camera" in refused(parse_source("/dev/null")).message
