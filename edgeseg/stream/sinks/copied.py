"""Packets of a camera in Matroska or MP4, as they are."""

from __future__ import annotations

import io
import logging
from typing import Any

from edgeseg.sources.packets import Packet, PacketStream
from edgeseg.stream.sinks.encoded import file_muxer

logger = logging.getLogger(__name__)

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
