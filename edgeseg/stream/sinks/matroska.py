"""Video files without an encoder: JPEG in Matroska, and packets of a camera as they are."""

from __future__ import annotations

import io
import logging
import math
from fractions import Fraction
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.sources.packets import Packet, PacketStream
from edgeseg.sources.pyav import have_pyav
from edgeseg.stream.sinks.encoded import file_muxer

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


_JUMP_S = 10.0
"""A time stamp this much later than the packet's arrival explains is wrong."""


class PacketWriter:
    """Writes packets of one connection into a file, which begins at 0 s.

    H.264 and HEVC keep the camera's time stamps. Where these are missing, do not increase or jump,
    the file goes on at the time of arrival. MJPEG, which cameras send without time stamps, is
    written at the times of arrival.

    Args:
        name: Name of the file; its suffix names the container.
        stream: The connection.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, name: str, stream: PacketStream) -> None:
        import av

        self._failure: type[Exception] = av.FFmpegError
        self._failed = False
        self._stamped = stream.codec != "mjpeg"
        self._base = stream.time_base
        self._last: tuple[float, int | None, int] | None = None
        muxer = file_muxer(name)
        probe = {"analyzeduration": "0", "probesize": "32"}
        try:
            with av.open(io.BytesIO(stream.header), format="nut", options=probe) as given:
                self._container: Any = av.open(
                    f"file:{name}", "w", format=muxer.form, container_options=dict(muxer.options)
                )
                template = given.streams.video[0]
                self._stream = self._container.add_stream_from_template(template, opaque=True)
            if stream.codec == "hevc" and muxer.form == "mp4":
                self._stream.codec_context.codec_tag = "hvc1"  # Apple's players know no other
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"cannot write video ({type(error).__name__})") from error

    def write(self, packet: Packet) -> bool:
        """Write a packet; False: failed."""
        import av

        copy: Any = av.Packet(packet.data)
        copy.stream, copy.time_base = self._stream, self._base
        copy.dts = self._ticks(packet)
        copy.pts = copy.dts
        if self._stamped and packet.pts is not None and packet.dts is not None:
            copy.pts += max(0, packet.pts - packet.dts)
        copy.is_keyframe = packet.key
        try:
            self._container.mux_one(copy)
        except self._failure as error:
            logger.debug("a write failed: %s", type(error).__name__)
            self._failed = True
        return not self._failed

    def release(self) -> None:
        """Close the file; raises OSError unless a write has failed."""
        try:
            self._container.close()
        except self._failure as error:
            if not self._failed:
                raise OSError(f"cannot end the video ({type(error).__name__})") from error

    def _ticks(self, packet: Packet) -> int:
        """When to decode a packet, in ticks since the first; it increases."""
        stamp = (packet.pts if packet.dts is None else packet.dts) if self._stamped else None
        ticks = 0
        if self._last is not None:
            at, before, ticks = self._last
            step = waited = round((packet.at - at) / self._base)
            if stamp is not None and before is not None:
                step = stamp - before
            if not 0 < step <= waited + _JUMP_S / self._base:
                step = max(1, waited)
            ticks += step
        self._last = packet.at, stamp, ticks
        return ticks
