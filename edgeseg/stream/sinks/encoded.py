"""H.264 and HEVC in Matroska or MP4, each picture at its own time, by PyAV.

A killed process loses less than a second of video: encoders hold no picture back, a fragment
(MP4) or cluster (Matroska) is on its way to the disk every half second, and a picture that decodes
without others, from which players can start, comes every second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.options.streaming import Codec
from edgeseg.sources.decoding import import_av
from edgeseg.sources.pyav import have_pyav

logger = logging.getLogger(__name__)

Encoded = Literal["h264", "hevc"]

SUFFIXES = {".mkv": "matroska", ".mp4": "mp4"}

_MP4 = {
    "movflags": "+frag_keyframe+default_base_moof+hybrid_fragmented",
    "frag_duration": "500000",
    "flush_packets": "1",
}
"""A file that was closed is an ordinary MP4, one that was not is fragmented."""

_HYBRID = (61, 7, 100)
"""libavformat of FFmpeg 7.1, the first one with it; files of an older one stay fragmented."""

_BITS_A_PIXEL = 0.12
"""Of encoders that know no constant quality."""

_PIXELS_A_THREAD = 1920 * 1088

_TICKS = 90_000
"""Ticks of a second, unless a container has others."""

_BT601 = 6
"""SMPTE 170M in ITU-T H.273: the colours into which OpenCV converts."""


class Writable(Protocol):
    """What takes a container byte by byte."""

    def write(self, data: bytes, /) -> int: ...  # noqa: D102 - as of files


@dataclass(frozen=True)
class Muxer:
    """A muxer of FFmpeg.

    Attributes:
        form: Its name there.
        ticks: Ticks of a second.
        holds: Hold each picture back until the next one is there, which tells its duration.
    """

    form: str
    options: Mapping[str, str] = field(default_factory=dict)
    ticks: int = _TICKS
    holds: bool = False


MATROSKA = Muxer("matroska", {"cluster_time_limit": "500", "flush_packets": "1"}, ticks=1000)
"""Its time stamps are milliseconds."""


@dataclass(frozen=True)
class VideoEncoder:
    """An encoder of FFmpeg.

    Attributes:
        name: Its name there.
        options: Constant quality, and no picture that refers to a later one or is held back.
        constant_quality: Whether it has that; otherwise it is given a bit rate.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    constant_quality: bool = True


_NVENC = {
    "preset": "p4",
    "tune": "ll",
    "rc": "vbr",
    "cq": "24",
    "bf": "0",
    "delay": "0",
    "zerolatency": "1",
    "forced-idr": "1",
}
_X26X = {"tune": "zerolatency", "forced-idr": "1"}
_ENCODERS: Mapping[Encoded, tuple[VideoEncoder, ...]] = {
    "h264": (
        VideoEncoder("h264_nvenc", _NVENC),
        VideoEncoder("h264_v4l2m2m", constant_quality=False),
        VideoEncoder("libx264", {**_X26X, "preset": "superfast", "crf": "23"}),
        VideoEncoder("libopenh264", constant_quality=False),
    ),
    "hevc": (
        VideoEncoder("hevc_nvenc", _NVENC),
        VideoEncoder("hevc_v4l2m2m", constant_quality=False),
        VideoEncoder(
            "libx265",
            {**_X26X, "preset": "ultrafast", "crf": "26", "x265-params": "log-level=none"},
        ),
    ),
}
"""In the order in which they are tried."""


def check_codec(codec: Codec, path: Path) -> None:
    """Raise UsageError if no recording has this suffix, or none of it has this codec."""
    name = printable(str(path))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{name}: recordings are Matroska or MP4, which survive a crash",
            hint=f"name it {printable(str(path.with_suffix('.mkv')))}",
        )
    if codec == "mjpeg" and suffix != ".mkv":
        raise UsageError(
            f"{name}: MJPEG is recorded as Matroska",
            hint=f"name it {printable(str(path.with_suffix('.mkv')))}, or omit --codec",
        )


def choose_codec(codec: Codec, path: Path) -> Encoded | None:
    """Return what to encode into a file; None for MJPEG.

    ``auto`` is H.264 where an encoder works, otherwise MJPEG.

    Raises:
        RuntimeMissing: PyAV or an encoder is missing for the codec or for MP4.
    """
    if codec == "mjpeg":
        return None
    wanted: Encoded = "h264" if codec == "auto" else codec
    if have_pyav() and find_encoder(wanted) is not None:
        return wanted
    if codec == "auto" and path.suffix.lower() == ".mkv":
        return None
    asked = {"h264": "H.264", "hevc": "HEVC"}[wanted]
    missing = "has no encoder that works here" if have_pyav() else "needs PyAV"
    raise RuntimeMissing(
        f"{printable(str(path))}: {asked} {missing}",
        hint="pip install 'edgeseg[av]', or record MJPEG to a file named .mkv",
    )


def find_encoder(codec: Encoded, size: tuple[int, int] = (640, 360)) -> VideoEncoder | None:
    """Return the first encoder that encodes a grey picture of ``size`` (width, height).

    PyAV must be installed. Encoders of hardware that this machine lacks are in every FFmpeg, so
    each is tried.
    """
    av = import_av()
    for encoder in _ENCODERS[codec]:
        try:
            context: Any = av.CodecContext.create(encoder.name, "w")
            _configure(context, encoder, _even(size), 25.0, 1000)
            picture = np.full((size[1], size[0], 3), 128, np.uint8)
            if [*context.encode(_frame(picture, 0)), *context.encode(None)]:
                return encoder
        except (av.FFmpegError, ValueError) as error:
            logger.debug("%s: %s", encoder.name, type(error).__name__)
    return None


class Container:
    """A container of FFmpeg that is being written; what PyAV raises becomes OSError.

    Args:
        target: URL of the container, ``file:PATH`` for a file that is replaced; or an object that
            is written to.
        add: Function that adds the stream to the open container and returns it.

    Raises:
        OSError: The file cannot be written, or the encoder refuses.
    """

    def __init__(self, target: str | Writable, muxer: Muxer, add: Callable[[Any], Any]) -> None:
        import av

        self._failure: type[Exception] = av.FFmpegError
        self.failed = False
        try:
            self._container: Any = av.open(
                target, "w", format=muxer.form, container_options=dict(muxer.options)
            )
            self.stream: Any = add(self._container)
            context = self.stream.codec_context
            if muxer.form == "mp4" and context.codec.canonical_name == "hevc":
                context.codec_tag = "hvc1"  # Apple's players know no other
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"cannot write video ({type(error).__name__})") from error

    def write(self, packets: Iterable[Any]) -> bool:
        """Write packets as they come; False from the first failure on."""
        try:
            for packet in packets:
                self._container.mux_one(packet)
        except self._failure as error:
            logger.debug("a write failed: %s", type(error).__name__)
            self.failed = True
        return not self.failed

    def release(self, packets: Iterable[Any] = ()) -> None:
        """Write the last packets and close the file; raises OSError unless a write has failed."""
        try:
            try:
                if not self.failed:
                    for packet in packets:
                        self._container.mux_one(packet)
            finally:
                self._container.close()
        except self._failure as error:
            if not self.failed:
                raise OSError(f"cannot end the video ({type(error).__name__})") from error


class EncodedWriter:
    """Encodes pictures of one size into one container.

    Pictures of an odd width or height have their last column or row twice, as 4:2:0 asks.

    Args:
        target: As of :class:`Container`.
        size: (width, height) of the pictures, pixels.
        fps: Frames per second of pictures without times.

    Raises:
        OSError: The file cannot be written, or the encoder refuses.
    """

    def __init__(
        self,
        target: str | Writable,
        size: tuple[int, int],
        fps: float,
        encoder: VideoEncoder,
        muxer: Muxer,
    ) -> None:
        self._holds = muxer.holds
        self._held: Any = None
        self._rate = muxer.ticks
        self._step = max(1, round(self._rate / fps))
        self._ticks = self._key_at = -self._rate

        def add(container: Any) -> Any:
            stream = container.add_stream(encoder.name, rate=_rate(fps))
            _configure(stream.codec_context, encoder, _even(size), fps, self._rate)
            stream.time_base = Fraction(1, self._rate)
            return stream

        self._container = Container(target, muxer, add)

    def write(self, picture: NDArray[np.uint8], at: float | None = None) -> bool:
        """Write a picture shown ``at`` seconds; None: an interval after the last. False: failed."""
        if at is None:
            self._ticks = max(0, self._ticks + self._step)
        else:
            self._ticks = max(self._ticks + 1, round(at * self._rate))
        frame = _frame(picture, self._ticks)
        if self._ticks - self._key_at >= self._rate:
            frame.pict_type, self._key_at = 1, self._ticks
        return self._container.write(self._packets(frame))

    def release(self) -> None:
        """Write what is left, and close the file; raises OSError unless a write has failed."""
        self._container.release(self._packets(None))

    def _packets(self, frame: Any) -> Iterator[Any]:
        for packet in self._container.stream.encode(frame):
            if self._holds:
                held, self._held = self._held, packet
                if held is None:
                    continue
                held.duration = packet.pts - held.pts
                packet = held
            yield packet
        if frame is None and self._held is not None:
            yield self._held


def file_muxer(name: str) -> Muxer:
    """Return the muxer of a recording, by the suffix of its file."""
    import av

    if SUFFIXES[name[-4:].lower()] == "matroska":
        return MATROSKA
    if av.library_versions["libavformat"] >= _HYBRID:
        return Muxer("mp4", _MP4)
    movflags = _MP4["movflags"].replace("hybrid_fragmented", "empty_moov")
    return Muxer("mp4", {**_MP4, "movflags": movflags})


def _configure(
    context: Any, encoder: VideoEncoder, size: tuple[int, int], fps: float, ticks: int
) -> None:
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, ticks)
    context.framerate = _rate(fps)
    context.gop_size = max(1, round(2 * fps))  # of encoders that take no orders
    context.max_b_frames = 0
    pixels = size[0] * size[1]
    context.bit_rate = 0 if encoder.constant_quality else round(_BITS_A_PIXEL * pixels * fps)
    context.thread_count = 1 + pixels // _PIXELS_A_THREAD
    context.colorspace = context.color_primaries = context.color_trc = _BT601
    context.color_range = 1  # 16 … 235
    context.options = dict(encoder.options)


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _even(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a picture to ``size`` (width, height) if it has another."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _frame(picture: NDArray[np.uint8], ticks: int) -> Any:
    """A frame of PyAV, 4:2:0, of an even width and height."""
    import av

    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        edge = cv2.BORDER_REPLICATE
        picture = np.asarray(cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, edge))
    planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    frame = av.VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")
    frame.pts = ticks
    return frame
