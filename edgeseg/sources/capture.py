"""Open sources, which return one frame per call until their end and write nothing to stderr.

An opened source belongs to the thread that opened it: OpenCV crashes when a capture is released
while another thread reads it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.files import LFS_HINT, LFS_POINTER
from edgeseg.data.decode import load_image
from edgeseg.data.folders import list_images
from edgeseg.errors import DatasetError, OpenFailed, UsageError
from edgeseg.sources.frames import Bounded, Frames, Video, VideoFile
from edgeseg.sources.gstreamer import open_gstreamer
from edgeseg.sources.network import open_url
from edgeseg.sources.own import OwnFrames
from edgeseg.sources.places import FramePosition
from edgeseg.sources.pyav import NetworkVideo, have_pyav
from edgeseg.sources.recorded import RecordedVideo
from edgeseg.sources.spec import EXAMPLES, SourceLimits, SourceSpec
from edgeseg.sources.webcam import open_camera

__all__ = ["Frames", "TestPattern", "open_frames", "quieten_opencv"]

logger = logging.getLogger(__name__)

_SILENT = 0


def open_frames(spec: SourceSpec) -> Frames:
    """Open a source within its ``limits.open_s``.

    Raises:
        OpenFailed: The source does not exist, is not readable, does not respond, or has no video.
        AuthFailed: The server rejects the credentials.
    """
    quieten_opencv()
    if spec.kind == "test":
        return TestPattern(spec.size or (640, 480), spec.fps or 25.0, spec.frames)
    if spec.kind == "pictures":
        try:
            return _Pictures(list_images(Path(spec.target)))
        except UsageError as error:
            raise OpenFailed(error.message, hint=error.hint) from error
    return cast(Frames, Bounded(_open_video(spec), spec))


def _open_video(spec: SourceSpec) -> Frames:
    if spec.kind == "own":
        return OwnFrames(spec)
    if spec.kind == "camera":
        return open_camera(spec)
    if spec.kind in ("csi", "gst"):
        return open_gstreamer(spec)
    if spec.kind == "file":
        return _open_file(spec)
    return open_url(spec, _open_network)


def quieten_opencv() -> None:
    """Keep FFmpeg's and OpenCV's own words off fd 2: they may hold a URL with its password.

    ``OPENCV_FFMPEG_LOGLEVEL`` and ``OPENCV_LOG_LEVEL``, where the user set them, stay.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "4")
    # TLS is ours: a playlist that names https:// would be read without a look at certificates.
    blocked = "rtsp_flags;prefer_tcp|protocol_blacklist;tls,https"
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", blocked)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        _set_opencv_log_level(_SILENT)


def _set_opencv_log_level(level: int) -> None:
    # OpenCV 4 and OpenCV 5 have it in different places.
    setter: Callable[[int], int] | None = getattr(cv2, "setLogLevel", None)
    if setter is None:
        setter = cv2.utils.logging.setLogLevel
    setter(level)


class _Pictures:
    """Picture files, one a frame; those that cannot be decoded are named and counted."""

    fps: float | None = None
    name: str | None = None
    decoder: str | None = None
    place: FramePosition | None = None
    captured_at: float | None = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = iter(paths)
        self.declared: int | None = len(paths)
        self.unreadable = 0

    def read(self) -> NDArray[np.uint8] | None:
        for path in self._paths:
            self.name = path.name
            try:
                return load_image(path)
            except DatasetError as error:
                self.unreadable += 1
                logger.warning("%s; it is left out", error.message)
        return None

    def close(self) -> None:
        self._paths = iter(())


class TestPattern:
    """Bright discs that wander over a dark gradient; frame n is the same in every run.

    Args:
        size: (width, height), pixels.
        fps: Declared frames per second.
        frames: Number of frames; None for an endless pattern.
    """

    __test__ = False  # not a test class, whatever pytest thinks
    name: str | None = None
    decoder: str | None = None
    captured_at: float | None = None

    def __init__(self, size: tuple[int, int], fps: float, frames: int | None) -> None:
        width, height = size
        ramp = np.linspace(10, 70, width, dtype=np.float32)
        self._ground = np.repeat(ramp.astype(np.uint8)[None, :, None], height, 0).repeat(3, 2)
        self._size = size
        self.fps: float | None = fps
        self.declared = frames
        self.unreadable = 0
        self.place: FramePosition | None = None
        self._rate = fps
        self._next = 0

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, uint8 (height, width, 3) BGR; None past the last."""
        if self._next == self.declared:
            return None
        frame = self._ground.copy()
        width, height = self._size
        for disc in range(5):
            turn = self._next / 40 * (1 + disc / 3) + disc
            x = round(width * (0.5 + 0.4 * math.cos(turn)))
            y = round(height * (0.5 + 0.4 * math.sin(turn * 1.3)))
            radius = max(2, min(width, height) * (disc + 3) // 60)
            cv2.circle(frame, (x, y), radius, (150 + 20 * disc, 230, 240), cv2.FILLED)
        self.place = FramePosition(self._next, self._next / self._rate)
        self._next += 1
        return frame

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


def _open_file(spec: SourceSpec) -> Frames:
    path = Path(spec.target)
    if not path.is_file():
        raise OpenFailed(f"{spec.label}: no such file", hint=f"check the path, or {EXAMPLES}")
    if not os.access(path, os.R_OK):
        raise OpenFailed(f"{spec.label}: permission denied", hint=f"chmod u+r {spec.label}")
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise OpenFailed(f"{spec.label} is a pointer of Git LFS", hint=LFS_HINT)
    if have_pyav():
        with contextlib.suppress(OSError):
            return RecordedVideo(spec)
    elif capture := _open_capture(str(path.absolute()), spec.limits):
        return VideoFile(capture, spec)
    raise OpenFailed(
        f"{spec.label} ({path.stat().st_size} bytes): expected a video that can be decoded",
        hint="check that it plays elsewhere; copy it again, or convert it to Matroska",
    )


def _open_network(spec: SourceSpec) -> Frames | None:
    """Through PyAV where it is installed and the source is live, else through OpenCV."""
    if spec.live and have_pyav():
        with contextlib.suppress(OSError):
            return NetworkVideo(spec)
        return None
    capture = _open_capture(spec.target, spec.limits)
    if capture is None:
        return None
    if spec.live and cv2.__version__.startswith("5."):
        logger.info(
            "%s: read through OpenCV 5: frames of another size would be stretched to the first; "
            "pip install 'edgeseg[av]' follows them",
            spec.label,
        )
    return Video(capture, spec)


def _open_capture(target: str, limits: SourceLimits) -> cv2.VideoCapture | None:
    capture = cv2.VideoCapture()
    options = (
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(limits.open_s * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(limits.read_s * 1000)),
    )
    try:
        opened = capture.open(target, cv2.CAP_FFMPEG, options)
    except cv2.error as error:
        logger.debug("open failed with code %s", error.code)
        opened = False
    return capture if opened else None
