"""Frames of other formats and sizes, and a picture that stands still."""

from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.errors import SourceError
from edgeseg.sources.frames import Standstill, Video, as_bgr
from edgeseg.sources.spec import parse_source


def test_grey_and_four_channels_become_bgr() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(4, 3)
    for frame in (grey, grey[..., None]):
        assert np.array_equal(as_bgr(frame, 4, "x"), np.stack([grey] * 3, -1))
    four = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
    assert np.array_equal(as_bgr(four, 4, "x"), four[..., :3])
    three = four[..., :3]
    assert as_bgr(three, 4, "x") is three


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 3), np.uint16),
        np.zeros((4, 3, 2), np.uint8),
        np.zeros((6, 4), np.uint8),  # NV12 or I420 of 4 rows: which of them, nothing tells
    ],
)
def test_other_formats_are_errors_with_a_way_on(frame: Any) -> None:
    with pytest.raises(SourceError, match="not 8-bit BGR") as failed:
        as_bgr(frame, 4, "gst:x")
    assert "videoconvert" in str(failed.value.hint)


class Capture:
    """Gives these, then raises as OpenCV may."""

    def __init__(self, *frames: Any) -> None:
        self._frames = iter(frames)

    def read(self) -> Any:
        frame = next(self._frames, None)
        if frame is None:
            raise cv2.error("rtsp://me:QXZ@cam")
        return True, frame

    def get(self, _: int) -> float:
        return 0.0


def test_a_new_size_is_said_once_and_what_opencv_raises_is_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    small, large = np.zeros((4, 6, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)
    capture: Any = Capture(small, small, large, large, small)
    video = Video(capture, parse_source("gst:x"))
    read = []
    while (frame := video.read()) is not None:
        read.append(frame.shape[0])
    assert read == [4, 4, 8, 8, 4]
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert said == ["gst:x: frames of 12x8 from here on", "gst:x: frames of 6x4 from here on"]
    assert "QXZ" not in caplog.text


@pytest.mark.parametrize(
    ("shades", "ends_at"),
    [
        ([0, 1, 2, 2, 2, 2, 2], 5),  # three seconds after the first 2
        ([0, 0, 0, 0, 0, 0, 0], None),  # a test card
        ([0, 1, 1, 1, 2, 2, 2], None),
        ([0, 1, 2, 3, 4, 5, 6], None),
    ],
)
def test_a_picture_that_moved_and_stands_still(shades: list[int], ends_at: int | None) -> None:
    standstill = Standstill(3.0)
    ended = [
        standstill.seen(np.full((32, 4, 3), shade, np.uint8), float(second))
        for second, shade in enumerate(shades)
    ]
    assert (ended.index(True) if True in ended else None) == ends_at
