"""Read network cameras with PyAV, if it is installed.

When a camera changes its frame size, OpenCV 5 silently scales frames to the first size; PyAV
returns each frame at its true size. Slices of a frame are decoded in parallel, but not frames:
that would delay each frame until the next ones have arrived.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.sources.decoding import decoder_of, open_input
from edgeseg.sources.places import FramePosition
from edgeseg.sources.spec import SourceSpec

logger = logging.getLogger(__name__)

_BAD_PACKETS = 100
"""Consecutive packets that cannot be decoded after which the source counts as lost."""


def have_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class NetworkVideo:
    """The first video stream of a URL. Belongs to the thread that opened it.

    Args:
        spec: Source of the kind ``url``; its limits apply to opening and to each read.

    Raises:
        OSError: It cannot be opened, or holds no video; never with the URL in its text.
    """

    name: str | None = None
    declared: int | None = None
    place: FramePosition | None = None
    captured_at: float | None = None

    def __init__(self, spec: SourceSpec) -> None:
        import av

        self._label = spec.label
        self._max_pixels = spec.max_pixels
        self._size: tuple[int, int] | None = None
        self.unreadable = 0
        # TLS is the relay's: a playlist that names https:// would be read unverified.
        options = {"protocol_blacklist": "tls,https"}
        if spec.target.startswith("rtsp"):  # over UDP packets are lost, so it comes second
            options["rtsp_flags"] = "prefer_tcp"
        limits = spec.limits
        try:
            self._container: Any = open_input(
                spec.target,
                spec.decode,
                options=options,
                timeout=(limits.open_s, limits.read_s),
                metadata_errors="replace",  # names of sessions come in any encoding
            )
        except (av.FFmpegError, ValueError) as error:
            raise OSError(type(error).__name__) from None
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise OSError("no video")
        self._stream = stream = streams[0]
        self._decode = spec.decode
        self._packets = spec.packets
        if self._packets is not None:
            self._packets.connect(stream)
        stream.thread_type = "SLICE"
        # What is larger is refused before it takes memory, and counts as unreadable.
        stream.codec_context.options = {"max_pixels": str(spec.max_pixels)}
        rate = stream.average_rate or stream.guessed_rate
        self.fps: float | None = float(rate) if rate and 0 < rate <= 1000 else None
        self._frames: Iterator[Any] = self._decoded(stream, av.FFmpegError)

    @property
    def decoder(self) -> str:
        """The device that decodes, or ``cpu``."""
        return decoder_of(self._stream, self._decode)

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR; None at the end or after a time-out."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        before, self._size = self._size, (frame.width, frame.height)
        if before not in (None, self._size):
            logger.warning("%s: frames of %dx%d from here on", self._label, *self._size)
        picture: NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
        return picture

    def close(self) -> None:
        """Release the connection and the decoder."""
        self._container.close()

    def _decoded(self, stream: Any, failure: type[Exception]) -> Iterator[Any]:
        bad = 0
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except failure as error:
                logger.debug("read failed: %s", type(error).__name__)
                if self._container.format.name == "mpjpeg" and isinstance(error, ValueError):
                    logger.warning(
                        "%s: no frame begins where the last one ends by its Content-Length, "
                        "which the server states wrongly; frames may be cut off",
                        self._label,
                    )
                return
            if packet is None:
                return
            if self._packets is not None:
                self._packets.push(packet)
            try:
                yield from packet.decode()
                bad = 0
            except failure:
                if not bad:
                    logger.warning(
                        "%s: a frame is damaged or has more than %d pixels; it is skipped",
                        *(self._label, self._max_pixels),
                    )
                bad += 1
                self.unreadable += 1
                if bad >= _BAD_PACKETS:
                    return
