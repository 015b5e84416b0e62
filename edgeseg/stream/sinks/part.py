"""One file of a recording, from its first picture or packet to its end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.sources.packets import Packet
from edgeseg.stream.sinks.files import Claim
from edgeseg.stream.sinks.matroska import PacketWriter, Writer

_WRITE_BUFFER = 256 * 1024
"""FFmpeg writes a file in pieces of this size."""


class Part:
    """A file that is recorded; it is there, empty, before its first picture or packet.

    Args:
        claim: The file.
        fps: Frames per second that the source declares.

    Attributes:
        writer: What writes pictures or packets; None before the first.
        size: (width, height) of the pictures.
        began: Time of the first picture in seconds, later where a gap was shortened.
        frames: Length of the video, in frames of the declared rate.
        last: The newest picture.
    """

    def __init__(self, claim: Claim, fps: float) -> None:
        self.claim, self.fps = claim, fps
        self.writer: Writer | PacketWriter | None = None
        self.size = (0, 0)
        self.began = 0.0
        self.frames = 0
        self.last = np.empty(0, np.uint8)
        self._seen_size = 0
        self._unconfirmed = 0

    def write(self, picture: NDArray[np.uint8], at: float | None) -> None:
        """Write a picture that is shown ``at`` seconds; None: an interval after the last.

        Raises:
            OSError: The disk is full.
        """
        assert self.writer is not None
        assert not isinstance(self.writer, PacketWriter)
        written = self.writer.write(picture, at)
        if written is False or (written is None and not self._grows(picture)):
            raise OSError("cannot write on (is the disk full?)")
        self.frames = self.frames + 1 if at is None else round(at * self.fps) + 1

    def copy(self, packet: Packet) -> None:
        """Write a packet of a camera as it is; raises OSError when the disk is full."""
        if self.writer is None:
            with self.claim.plain_name() as name:
                self.writer = PacketWriter(name, packet.stream)
        assert isinstance(self.writer, PacketWriter)
        if not self.writer.write(packet):
            raise OSError("cannot write on (is the disk full?)")

    def release(self) -> None:
        """Write the index."""
        if self.writer is not None:
            self.writer.release()

    def missing(self, captured_at: float) -> int:
        """How often to repeat the last picture, so that the next stands at its capture time.

        A gap of more than a second is shortened, by moving the beginning of the file.
        """
        missing = round((captured_at - self.began) * self.fps) - self.frames
        longest = max(1, round(self.fps))
        if missing > longest:
            self.began += (missing - longest) / self.fps
        return min(max(0, missing), longest)

    def _grows(self, picture: NDArray[np.uint8]) -> bool:
        """Stand in for the return value that OpenCV 4 lacks."""
        # A JPEG needs 12 bits for 16 × 16 black pixels; twice the buffer of those must show.
        self._unconfirmed += 100 + picture.shape[0] * picture.shape[1] // 256
        if self._unconfirmed < 2 * _WRITE_BUFFER:
            return True
        before, self._seen_size, self._unconfirmed = self._seen_size, self.claim.size, 0
        return self._seen_size > before
