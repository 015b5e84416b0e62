"""Pictures as JPEG in a Matroska file, each at its own time or at an even rate."""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.sources.pyav import have_pyav

logger = logging.getLogger(__name__)

_TICK = Fraction(1, 1000)
"""Matroska's time stamps are milliseconds."""

_LEAST_FPS = 10.0
_SUBSTITUTE_FPS = 25.0
"""An average below the first says that frames come at odd times; then the file has this rate."""


class Writer(Protocol):
    """Writes pictures of one size into one file."""

    def write(self, picture: NDArray[np.uint8], at: float | None = None) -> bool | None:
        """Write a picture that is shown ``at`` so many seconds; None: an interval after the last.

        Returns:
            False where that failed, None where OpenCV does not say.
        """

    def release(self) -> None:
        """Write the index and close the file."""


def open_writer(name: str, size: tuple[int, int], fps: float, *, timed: bool) -> Writer:
    """Begin a file.

    Args:
        name: Path of the file; what is there is replaced.
        size: (width, height) of the pictures, pixels.
        fps: Frames per second if no times are given.
        timed: Each picture is given its time.

    Raises:
        OSError: It cannot be written.
    """
    if timed and have_pyav():
        return _Timed(name, size, fps)
    return _Even(name, size, fps, timed=timed)


class _Timed:
    """Each picture with its own time stamp, by PyAV."""

    def __init__(self, name: str, size: tuple[int, int], fps: float) -> None:
        import av

        self._failure: type[Exception] = av.FFmpegError
        # A second of video at most is lost to a kill, and what is written is on its way at once.
        options = {"cluster_time_limit": "500", "flush_packets": "1"}
        try:
            self._container: Any = av.open(
                f"file:{name}", "w", format="matroska", container_options=options
            )
            rate = Fraction(fps).limit_denominator(1001)
            self._stream: Any = self._container.add_stream("mjpeg", rate=rate)
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"cannot write video ({type(error).__name__})") from error
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt, self._stream.time_base = "yuvj420p", _TICK
        self._step = max(1, round(1000 / fps))
        self._ticks = -1

    def write(self, picture: NDArray[np.uint8], at: float | None = None) -> bool:
        import av

        packet = av.Packet(cv2.imencode(".jpg", picture)[1].tobytes())
        packet.stream, packet.time_base = self._stream, _TICK
        following = self._ticks + (1 if at is not None else self._step)
        self._ticks = following if at is None else max(following, round(at * 1000))
        packet.pts = packet.dts = self._ticks
        packet.is_keyframe = True
        try:
            self._container.mux(packet)
        except self._failure as error:
            logger.debug("a write failed: %s", type(error).__name__)
            return False
        return True

    def release(self) -> None:
        try:
            self._container.close()
        except self._failure as error:  # the disk is full, which a write has reported
            logger.debug("the end failed: %s", type(error).__name__)


class _Even:
    """Pictures at one rate, by OpenCV.

    Where they have times, a picture is repeated until the next is due, and one that comes before
    the last has had its time is left out.
    """

    def __init__(self, name: str, size: tuple[int, int], fps: float, *, timed: bool) -> None:
        self._fps = _SUBSTITUTE_FPS if timed and fps < _LEAST_FPS else fps
        self._name = name
        self._writer = cv2.VideoWriter()
        self._last: NDArray[np.uint8] | None = None
        self._count = 0
        self._warned = False
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        if not self._writer.open(name, cv2.CAP_FFMPEG, codec, self._fps, size):
            raise OSError("this OpenCV cannot write JPEG video into Matroska")

    def write(self, picture: NDArray[np.uint8], at: float | None = None) -> bool | None:
        if at is None or self._last is None:
            return self._append(picture)
        place = math.floor(at * self._fps + 0.5)
        if place < self._count:
            self._warn()
            return True
        written: bool | None = True
        while self._count < place and written is not False:
            self._warn()
            written = self._append(self._last)
        return written if written is False else self._append(picture)

    def release(self) -> None:
        self._writer.release()

    def _append(self, picture: NDArray[np.uint8]) -> bool | None:
        self._last = picture
        self._count += 1
        written: bool | None = self._writer.write(picture)
        return written

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: frames come at odd times: some are repeated or skipped to keep those times "
                "at %g frames a second; pip install 'edgeseg[av]' writes each at its own",
                *(self._name, self._fps),
            )
