"""Compressed packets of network cameras, for outputs that copy video instead of encoding it."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

COPIED = ("h264", "hevc", "mjpeg")
"""Codecs whose packets are kept; each goes into Matroska and MP4."""


@dataclass(frozen=True, eq=False)
class PacketStream:
    """The video of one connection to a camera.

    Attributes:
        codec: FFmpeg's name of the codec.
        header: The codec's parameters as the header of a NUT file, because those of PyAV do not
            outlive the connection.
        time_base: Seconds of a tick.
    """

    codec: str
    header: bytes = field(repr=False)
    time_base: Fraction


@dataclass(frozen=True, eq=False)
class Packet:
    """A packet of a camera.

    Attributes:
        at: When it arrived, in seconds of the monotonic clock.
        data: Its bytes.
        key: Whether a player can start with it.
        pts: When to show it, in ticks of its stream; None if the camera does not say.
        dts: When to decode it.
        stream: The connection that it arrived by.
    """

    at: float
    data: bytes = field(repr=False)
    key: bool
    pts: int | None
    dts: int | None
    stream: PacketStream


class PacketTap:
    """Passes packets from the thread that reads a camera to one output in another thread.

    It keeps nothing until the output opens it. What :meth:`take` returns of one connection begins
    with a key frame. When the packets that wait exceed the limit, new ones are discarded up to a
    key frame for which there is room.
    """

    def __init__(self) -> None:
        self._limit = 0
        self._codecs: Collection[str] = ()
        self._stream: PacketStream | None = None
        self._waiting: deque[Packet] = deque()
        self._used = 0
        self._follows = False  # the next packet is decodable with those before it
        self._lock = threading.Lock()

    @property
    def codec(self) -> str | None:
        """Codec of the packets that arrive; None if none are kept."""
        stream = self._stream
        return stream.codec if stream is not None and stream.codec in self._codecs else None

    def open(self, limit: int, codecs: Collection[str] = COPIED) -> bool:
        """Keep packets of these codecs from here on, ``limit`` bytes at most.

        Returns False and changes nothing if another output has opened it.
        """
        with self._lock:
            if self._limit:
                return False
            self._limit, self._codecs = limit, codecs
        return True

    def close(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._limit, self._codecs = 0, ()
            self._used, self._follows = 0, False
            self._waiting.clear()

    def connect(self, stream: Any) -> None:
        """Begin a connection, whose video is a stream of PyAV; called by the reader."""
        described = _described(stream)
        with self._lock:
            self._stream, self._follows = described, False

    def push(self, packet: Any) -> None:
        """Keep a packet of PyAV; called by the reader."""
        if self.codec is None or not packet.size:  # also without the lock, for each frame
            return
        with self._lock:
            key = bool(packet.is_keyframe)
            self._follows = (self._follows or key) and self._used + packet.size <= self._limit
            if self._follows and self._stream is not None:
                at, data = time.monotonic(), bytes(packet)
                self._waiting.append(Packet(at, data, key, packet.pts, packet.dts, self._stream))
                self._used += len(data)

    def take(self, until: float) -> list[Packet]:
        """Remove and return the packets that arrived by ``until``; called by the output."""
        taken = []
        with self._lock:
            while self._waiting and self._waiting[0].at <= until:
                taken.append(self._waiting.popleft())
                self._used -= len(taken[-1].data)
        return taken


def _described(stream: Any) -> PacketStream | None:
    """Describe a video stream of PyAV; None if its packets cannot be copied."""
    import av

    codec, extradata = stream.codec_context.name, stream.codec_context.extradata
    if codec not in COPIED or not (extradata or codec == "mjpeg") or not stream.time_base:
        return None
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="nut") as container:
            copied = container.add_stream_from_template(stream, opaque=True)  # no encoder
            first: Any = av.Packet(b"\0")  # a file without any packet is not read
            first.stream, first.pts, first.dts, first.is_keyframe = copied, 0, 0, True
            container.mux_one(first)
    except (av.FFmpegError, ValueError):
        return None
    return PacketStream(codec, header.getvalue(), Fraction(stream.time_base))
