"""Record overlays or frames to a video file."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.options.streaming import Codec
from edgeseg.sources.capture import quieten_opencv
from edgeseg.sources.packets import Packet
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.encoded import (
    Encoded,
    EncodedWriter,
    VideoEncoder,
    check_codec,
    choose_codec,
    file_muxer,
    find_encoder,
    fitted,
)
from edgeseg.stream.sinks.files import Claim, make_folder, write_refusal
from edgeseg.stream.sinks.matroska import PacketWriter, Writer, open_writer
from edgeseg.stream.sinks.retention import Budget, Rotation, Shelf, part_of, parts_of

logger = logging.getLogger(__name__)

_WRITE_BUFFER = 256 * 1024
"""FFmpeg writes a file in pieces of this size."""

_ROOM = 1 << 20
"""Bytes that must be free on a disk that was full before another part is begun."""


class Recording(Sink):
    """Overlays as a video file that stays readable if the process is killed.

    With PyAV it is H.264 or HEVC in Matroska or MP4 (:mod:`edgeseg.stream.sinks.encoded`). Each
    frame is shown at its own time: frames of a file at their presentation times, those of a camera
    at their capture times. A gap in a camera's frames of more than one second is shortened to one
    second.

    MJPEG in Matroska needs no PyAV. Frames are coded separately because FFmpeg buffers up to
    256 KiB: a fraction of a second of camera video as JPEG, but minutes of a still scene as
    MPEG-4. Frames of a file keep their presentation times with PyAV; without it frames are
    repeated and left out, and a message is logged. Frames of a camera are repeated where others
    were dropped, so that the recording plays at real speed.

    Frames that differ in size from the first are scaled to its size.

    Args:
        path: ``NAME.mkv`` or ``NAME.mp4``, which must not exist. Parts are named
            ``NAME-0001.mkv`` and so on, following the highest existing number. Recording also
            continues in a part after an error.
        overlay: Record overlays instead of the original frames.
        codec: ``h264``, ``hevc`` or ``mjpeg``; ``auto`` is H.264 where PyAV has an encoder that
            works, otherwise MJPEG.
        minutes: Begin a new part after this many minutes of video.
        keep: Number of parts to keep, including those of earlier runs; older ones are deleted.
        size: Begin a new part after this many bytes.
        budget: Budget that the parts of all runs count towards.
        overwrite: Replace ``path`` if it exists.

    Raises:
        UsageError: Another suffix, MJPEG for MP4, or a number that is not positive.
    """

    retry = "later"

    def __init__(  # noqa: PLR0913 - each keyword is an option of the command
        self,
        path: Path,
        *,
        overlay: bool = True,
        codec: Codec = "auto",
        minutes: float | None = None,
        keep: int | None = None,
        size: int | None = None,
        budget: Budget | None = None,
        overwrite: bool = False,
    ) -> None:
        check_codec(codec, path)
        self._parts = Rotation(size, minutes)
        self._in_parts = self._parts != Rotation()
        if keep is not None and (keep < 1 or not self._in_parts):
            raise UsageError(
                f"{path}: keep is a positive number of parts, not {keep}"
                if keep < 1
                else f"{path}: parts are kept of a recording that has any",
                hint="set the length of a part in minutes with --record-minutes",
            )
        self.shows_overlay = overlay
        self.path = path
        self.frames = 0
        self._name = path
        self._codec = codec
        self._encoded: Encoded | None = None
        self._encoder: VideoEncoder | None = None
        self._overwrite = overwrite
        self._shelf = Shelf(path.parent, parts_of(path), budget, keep)
        self._first: int | None = None
        self._single = False
        self._claimed: Claim | None = None
        self._part_frames = 0
        self._writer: Writer | PacketWriter | None = None
        self._size = (0, 0)
        self._fps = 25.0
        self._realtime = False
        self._live = True
        self._at: float | None = None
        self._began = 0.0
        self._last = np.empty(0, np.uint8)
        self._seen_size = 0
        self._unconfirmed = 0
        self._resized = False
        self._again = False

    def __str__(self) -> str:
        return f"the recording {printable(str(self.path))}"

    def files(self) -> list[Path]:
        """Return the files that this run recorded and that still exist."""
        single = [self._name] if self._single and self._name.exists() else []
        if self._first is None:
            return single
        return single + [self._name.with_name(name) for name in self._shelf.names(self._first)]

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Make the file, or after an error the next part.

        Raises:
            UsageError: The file exists or cannot be made, or there are several sources.
            OutputError: The disk is full or gone, or another process records there.
            RuntimeMissing: PyAV or an encoder is missing for the codec or for MP4.
        """
        if len(sources) != 1:
            raise UsageError(f"{self.path}: a recording is of one source, not {len(sources)}")
        quieten_opencv()
        folder = self._name.parent
        if not self._again:  # a folder that went away with its disk is not created again
            self._encoded = choose_codec(self._codec, self._name)
            make_folder(folder)
        try:
            if self._again and shutil.disk_usage(folder).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._shelf.scan()
            self._claim()
        except OSError as error:
            raise write_refusal(self._name, error) from error
        self._again = True
        self._fps = sources[0].fps or 25.0
        self._realtime = sources[0].realtime
        self._live = sources[0].live

    def write(self, result: StreamResult) -> None:
        """Raises OSError when the disk is full."""
        picture = result.overlay() if self.shows_overlay else result.frame
        if self._is_full():
            self.close()
            self._claim()
        media = None if self._live else result.media_time
        moment = result.captured_at if media is None else media
        if self._writer is None:
            self._begin(picture, moment, timed=media is not None)
        elif (picture.shape[1], picture.shape[0]) != self._size:
            picture = self._fitted(picture)
        by_clock = media is None and (self._realtime or (self._live and self._encoder is not None))
        missing = self._gap(moment) if by_clock else 0
        timed = media is not None or (by_clock and self._encoder is not None)
        self._at = moment - self._began if timed else None
        for _ in range(0 if timed else missing):
            self._append(self._last)
        self._append(picture)
        self._last = picture

    def copy(self, packet: Packet) -> None:
        """Write a packet of a camera as it is; raises OSError when the disk is full.

        A file holds packets of one connection, beginning with a key frame, and nothing else:
        close the recording before others, and open it again.
        """
        assert self._claimed is not None
        if not isinstance(self._writer, PacketWriter):
            assert self._writer is None
            with self._claimed.plain_name() as name:
                self._writer = PacketWriter(name, packet.stream)
        if not self._writer.write(packet):
            raise OSError("cannot write on (is the disk full?)")
        self._shelf.grow(self.path, self._claimed.size)
        self.frames += 1

    def close(self) -> None:
        """Write the index; without a frame no file stays."""
        try:
            if self._writer is not None:
                self._writer.release()
        finally:
            self._writer = None
            if self._claimed is not None:
                size = self._claimed.size
                self._claimed.close()
                self._claimed = None
                if size and self.path != self._name:
                    self._shelf.put(self.path, size)

    def _claim(self) -> None:
        """Make the next file, empty, where none was; raises OSError."""
        self._part_frames = self._seen_size = self._unconfirmed = 0
        if not (self._in_parts or self._again):
            self._claimed = Claim(self._name, overwrite=self._overwrite)
            self._single = True
            return
        last = part_of(self._name, self._shelf.last)
        if last.exists():  # held by another process it is being written
            Claim(last, overwrite=True).close()
        number = self._shelf.last + 1
        while self._claimed is None:
            self._shelf.room()
            self.path = part_of(self._name, number)
            with contextlib.suppress(FileExistsError):
                self._claimed = Claim(self.path)
            self._shelf.last, number = number, number + 1
        self._shelf.grow(self.path, 0)
        self._first = self._first or self._shelf.last

    def _is_full(self) -> bool:
        if self._writer is None or self._claimed is None:
            return False
        if self._claimed.removed:
            return True
        size, minutes = self._parts.size, self._parts.minutes
        return (minutes is not None and self._part_frames >= minutes * 60 * self._fps) or (
            size is not None and self._claimed.size >= size
        )

    def _begin(self, picture: NDArray[np.uint8], moment: float, *, timed: bool) -> None:
        self._size = (picture.shape[1], picture.shape[0])
        self._began = moment
        assert self._claimed is not None
        with self._claimed.plain_name() as name:
            self._writer = self._open_writer(name, timed=timed)
        self._last = picture

    def _open_writer(self, name: str, *, timed: bool) -> Writer:
        """Begin the file with the encoder that works for the size; raises OSError."""
        before, self._encoder = self._encoder, None
        if self._encoded is not None:
            self._encoder = find_encoder(self._encoded, self._size)
        if self._encoder is None:
            if self._name.suffix.lower() != ".mkv" or self._codec not in ("auto", "mjpeg"):
                raise OSError(f"no encoder takes {self._size[0]}x{self._size[1]} pixels")
            return open_writer(name, self._size, self._fps, timed=timed)
        if self._encoder != before:
            logger.info("%s: encoded by %s", self.path, self._encoder.name)
        muxer = file_muxer(name)
        return EncodedWriter(f"file:{name}", self._size, self._fps, self._encoder, muxer)

    def _fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self._resized:
            logger.warning(
                "%s: a frame is %dx%d; it is scaled to %dx%d as the first",
                *(self.path, picture.shape[1], picture.shape[0], *self._size),
            )
            self._resized = True
        return fitted(picture, self._size)

    def _gap(self, captured_at: float) -> int:
        """How often to repeat the frame before, so that the next stands at its capture time.

        A gap of more than a second is shortened, by moving the beginning of the file.
        """
        missing = round((captured_at - self._began) * self._fps) - self._part_frames
        longest = max(1, round(self._fps))
        if missing > longest:
            self._began += (missing - longest) / self._fps
        return min(max(0, missing), longest)

    def _append(self, picture: NDArray[np.uint8]) -> None:
        assert self._writer is not None
        assert not isinstance(self._writer, PacketWriter)
        assert self._claimed is not None
        when = () if self._at is None else (self._at,)
        written = self._writer.write(picture, *when)
        size = self._claimed.size
        if written is False or (written is None and not self._grows(picture, size)):
            raise OSError("cannot write on (is the disk full?)")
        self._shelf.grow(self.path, size)
        self.frames += 1
        self._part_frames += 1
        if self._at is not None:  # length of the part, in frames of the declared rate
            self._part_frames = round(self._at * self._fps) + 1

    def _grows(self, picture: NDArray[np.uint8], size: int) -> bool:
        """Stands in for the return value that OpenCV 4 lacks."""
        # A JPEG needs 12 bits for 16 × 16 black pixels; twice the buffer of those must show.
        least = 100 + picture.shape[0] * picture.shape[1] // 256
        self._unconfirmed += least
        if self._unconfirmed < 2 * _WRITE_BUFFER:
            return True
        grown = size > self._seen_size
        self._seen_size, self._unconfirmed = size, 0
        return grown
