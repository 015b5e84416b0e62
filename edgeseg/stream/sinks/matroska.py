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
from edgeseg.stream.sinks.encoded import MATROSKA, Container, file_muxer

logger = logging.getLogger(__name__)

_TICK = Fraction(1, MATROSKA.ticks)

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
        def add(container: Any) -> Any:
            stream = container.add_stream("mjpeg", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height = size
            stream.pix_fmt, stream.time_base = "yuvj420p", _TICK
            return stream

        self._container = Container(f"file:{name}", MATROSKA, add)
        self._step = max(1, round(1000 / fps))
        self._ticks = -1

    def write(self, picture: NDArray[np.uint8], at: float | None = None) -> bool:
        import av

        packet = av.Packet(cv2.imencode(".jpg", picture)[1].tobytes())
        packet.stream, packet.time_base = self._container.stream, _TICK
        following = self._ticks + (1 if at is not None else self._step)
        self._ticks = following if at is None else max(following, round(at * 1000))
        packet.pts = packet.dts = self._ticks
        packet.is_keyframe = True
        return self._container.write([packet])

    def release(self) -> None:
        self._container.release()


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
    the file continues at the time of arrival. MJPEG, which cameras send without time stamps, is
    written at the times of arrival.

    Args:
        name: Name of the file; its suffix names the container.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, name: str, stream: PacketStream) -> None:
        import av

        self._stamped = stream.codec != "mjpeg"
        self._base = stream.time_base
        self._last: tuple[float, int | None, int] | None = None
        probe = {"analyzeduration": "0", "probesize": "32"}

        def add(container: Any) -> Any:
            with av.open(io.BytesIO(stream.header), format="nut", options=probe) as given:
                return container.add_stream_from_template(given.streams.video[0], opaque=True)

        self._container = Container(f"file:{name}", file_muxer(name), add)

    def write(self, packet: Packet) -> bool:
        """Write a packet; False: failed."""
        import av

        copy: Any = av.Packet(packet.data)
        copy.stream, copy.time_base = self._container.stream, self._base
        copy.dts = self._ticks(packet)
        copy.pts = copy.dts
        if self._stamped and packet.pts is not None and packet.dts is not None:
            copy.pts += max(0, packet.pts - packet.dts)
        copy.is_keyframe = packet.key
        return self._container.write([copy])

    def release(self) -> None:
        """Close the file; raises OSError unless a write has failed."""
        self._container.release()

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
