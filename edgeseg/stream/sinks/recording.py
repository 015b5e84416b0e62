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
from edgeseg.stream.sinks.files import Claim, make_folder, remove_empty, write_refusal
from edgeseg.stream.sinks.matroska import Writer, open_writer
from edgeseg.stream.sinks.part import Part
from edgeseg.stream.sinks.retention import Budget, Rotation, Shelf, part_of, parts_of

logger = logging.getLogger(__name__)

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
        self._rotation = Rotation(size, minutes)
        self._in_parts = self._rotation != Rotation()
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
        self._overwrite = overwrite
        self._shelf = Shelf(path.parent, parts_of(path), budget, keep)
        self._encoded: Encoded | None = None
        self._encoder: VideoEncoder | None = None
        self._part: Part | None = None
        self._first: int | None = None  # number of the first part of this run
        self._single = False  # whether this run wrote the file without a number
        self._again = False  # whether it was open before
        self._made: list[Path] = []  # folders
        self._resized = False
        self._fps = 25.0
        self._realtime, self._live = False, True

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
            self._made += make_folder(folder)
        self._fps = sources[0].fps or 25.0
        self._realtime, self._live = sources[0].realtime, sources[0].live
        try:
            if self._again and shutil.disk_usage(folder).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._shelf.scan()
            self._begin_part()
        except OSError as error:
            raise write_refusal(self._name, error) from error
        self._again = True

    def write(self, result: StreamResult) -> None:
        """Raises OSError when the disk is full."""
        picture = result.overlay() if self.shows_overlay else result.frame
        if self._is_full():
            self.close()
            self._begin_part()
        part = self._part
        assert part is not None
        media = None if self._live else result.media_time
        moment = result.captured_at if media is None else media
        if part.writer is None:
            self._begin_video(part, picture, moment, timed=media is not None)
        picture = self._fitted(picture, part.size)
        by_clock = media is None and (self._realtime or (self._live and self._encoder is not None))
        missing = part.missing(moment) if by_clock else 0
        if media is not None or (by_clock and self._encoder is not None):
            self._append(part, picture, moment - part.began)
        else:
            for _ in range(missing):
                self._append(part, part.last, None)
            self._append(part, picture, None)
        part.last = picture

    def copy(self, packet: Packet) -> None:
        """Write a packet of a camera as it is; raises OSError when the disk is full.

        A file holds packets of one connection, beginning with a key frame, and nothing else:
        close the recording before others, and open it again.
        """
        assert self._part is not None
        self._part.copy(packet)
        self._count(self._part)

    def close(self) -> None:
        """Write the index; without a frame no file stays, and no folder that was made for it."""
        part, self._part = self._part, None
        if part is None:
            return
        try:
            part.release()
        finally:
            size = part.claim.size
            part.claim.close()
            if size and self.path != self._name:
                self._shelf.put(self.path, size)
            if self._made and not self.frames:
                remove_empty(self._made)
                self._again = False

    def _begin_part(self) -> None:
        """Make the next file, empty, where none was; raises OSError."""
        if not (self._in_parts or self._again):
            self._part = Part(Claim(self._name, overwrite=self._overwrite), self._fps)
            self._single = True
            return
        last = part_of(self._name, self._shelf.last)
        if last.exists():  # held by another process it is being written
            Claim(last, overwrite=True).close()
        number = self._shelf.last + 1
        while self._part is None:
            self._shelf.room()
            self.path = part_of(self._name, number)
            with contextlib.suppress(FileExistsError):
                self._part = Part(Claim(self.path), self._fps)
            self._shelf.last, number = number, number + 1
        self._shelf.grow(self.path, 0)
        self._first = self._first or self._shelf.last

    def _is_full(self) -> bool:
        part = self._part
        if part is None or part.writer is None:
            return False
        size, minutes = self._rotation.size, self._rotation.minutes
        long = minutes is not None and part.frames >= minutes * 60 * part.fps
        return part.claim.removed or long or (size is not None and part.claim.size >= size)

    def _begin_video(
        self, part: Part, picture: NDArray[np.uint8], moment: float, *, timed: bool
    ) -> None:
        part.size = (picture.shape[1], picture.shape[0])
        part.began = moment
        with part.claim.plain_name() as name:
            part.writer = self._open_writer(name, part.size, timed=timed)
        part.last = picture

    def _open_writer(self, name: str, size: tuple[int, int], *, timed: bool) -> Writer:
        """Begin the file with the encoder that works for the size; raises OSError."""
        before, self._encoder = self._encoder, None
        if self._encoded is not None:
            self._encoder = find_encoder(self._encoded, size)
        if self._encoder is None:
            if self._name.suffix.lower() != ".mkv" or self._codec not in ("auto", "mjpeg"):
                raise OSError(f"no encoder takes {size[0]}x{size[1]} pixels")
            return open_writer(name, size, self._fps, timed=timed)
        if self._encoder != before:
            logger.info("%s: encoded by %s", self.path, self._encoder.name)
        return EncodedWriter(f"file:{name}", size, self._fps, self._encoder, file_muxer(name))

    def _fitted(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        found = (picture.shape[1], picture.shape[0])
        if found != size and not self._resized:
            logger.warning(
                "%s: a frame is %dx%d; it is scaled to %dx%d as the first",
                *(self.path, *found, *size),
            )
            self._resized = True
        return fitted(picture, size)

    def _append(self, part: Part, picture: NDArray[np.uint8], at: float | None) -> None:
        part.write(picture, at)
        self._count(part)

    def _count(self, part: Part) -> None:
        """Count a frame that was written, and what the file takes now."""
        self._shelf.grow(self.path, part.claim.size)
        self.frames += 1
