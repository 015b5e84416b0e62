"""The overlay as a video file."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.stream.capture import quieten_opencv
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source

_log = logging.getLogger(__name__)

_WRITE_BUFFER = 256 * 1024
"""FFmpeg writes a file in pieces of this size."""


class Recording(Sink):
    """Overlays as a Matroska file of JPEG frames.

    Matroska stays readable when the process is killed. Each frame is a picture of its own:
    FFmpeg keeps up to 256 KiB back, which is a fraction of a second of a camera's pictures as
    JPEG, but minutes of a still scene as MPEG-4.

    Frames of a realtime source are repeated where others were dropped, so that the recording
    plays at the speed of the scene; a gap longer than a second is shortened to a second.
    Frames of another size than the first are scaled to it.

    Args:
        path: ``NAME.mkv``; must not exist. With ``minutes``, parts are ``NAME-0001.mkv`` and so
            on, after the highest number that is there.
        overlay: Record overlays; otherwise the frames as they came.
        minutes: Begin a new part after so many minutes of video.
        keep: Parts that stay; older ones are deleted, though none that another run made.

    Raises:
        UsageError: Another suffix, or a number that is not positive.
    """

    def __init__(
        self,
        path: Path,
        *,
        overlay: bool = True,
        minutes: float | None = None,
        keep: int | None = None,
    ) -> None:
        if path.suffix.lower() != ".mkv":
            raise UsageError(
                f"{path}: recordings are Matroska, which survives a crash",
                mend=f"name it {path.with_suffix('.mkv')}",
            )
        if minutes is not None and not minutes > 0:
            raise UsageError(f"{path}: parts last a positive number of minutes, not {minutes}")
        if keep is not None and (keep < 1 or minutes is None):
            raise UsageError(
                f"{path}: keep is a positive number of parts, not {keep}"
                if keep < 1
                else f"{path}: parts are kept of a recording that has any",
                mend="say how many minutes a part lasts",
            )
        self.shows_overlay = overlay
        self.path = path
        self.frames = 0
        self._name = path
        self._minutes = minutes
        self._keep = keep
        self._parts: list[Path] = []
        self._part_frames = 0
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._fps = 25.0
        self._realtime = False
        self._began = 0.0
        self._last = np.empty(0, np.uint8)
        self._seen_size = 0
        self._unconfirmed = 0
        self._resized = False

    def __str__(self) -> str:
        return f"the recording {self.path}"

    def open(self, sources: Sequence[Source]) -> None:
        """Raises UsageError if the file exists or cannot be made, or for several sources."""
        if len(sources) != 1:
            raise UsageError(f"{self.path}: a recording is of one source, not {len(sources)}")
        quieten_opencv()
        try:
            self._name.parent.mkdir(parents=True, exist_ok=True)
            self._claim()
        except FileExistsError as error:
            raise UsageError(f"{self.path} exists already", mend=f"rm {self.path}") from error
        except OSError as error:
            raise UsageError(
                f"cannot write {self._name}: {error.strerror}", mend="choose another folder"
            ) from error
        self._fps = sources[0].fps or 25.0
        self._realtime = sources[0].realtime

    def write(self, result: StreamResult) -> None:
        """Raises OSError when the disk is full."""
        picture = result.overlay() if self.shows_overlay else result.frame
        if self._is_full():
            self._next_part()
        if self._writer is None:
            self._begin(picture, result.captured_at)
        elif (picture.shape[1], picture.shape[0]) != self._size:
            picture = self._fitted(picture)
        for _ in range(self._gap(result.captured_at)):
            self._append(self._last)
        self._append(picture)
        self._last = picture

    def close(self) -> None:
        """Write the index; without a frame no file stays."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        elif self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()

    def _claim(self) -> None:
        """Make the next file, empty, where none was; raises OSError."""
        if self._minutes is not None:
            stem, suffix = self._name.stem, self._name.suffix
            there = self._name.parent.glob(f"{glob.escape(stem)}-*{suffix}")
            numbers = [path.stem[len(stem) + 1 :] for path in there]
            last = max((int(number) for number in numbers if number.isdecimal()), default=0)
            self.path = self._name.with_name(f"{stem}-{last + 1:04d}{suffix}")
        self.path.open("xb").close()
        self._parts.append(self.path)

    def _is_full(self) -> bool:
        return (
            self._minutes is not None
            and self._writer is not None
            and self._part_frames >= self._minutes * 60 * self._fps
        )

    def _next_part(self) -> None:
        """End the part, delete the oldest if there are too many, and make the next."""
        self.close()
        while self._keep is not None and len(self._parts) >= self._keep:
            self._parts.pop(0).unlink(missing_ok=True)
        self._claim()
        self._part_frames = self._seen_size = self._unconfirmed = 0

    def _begin(self, picture: NDArray[np.uint8], captured_at: float) -> None:
        self._size = (picture.shape[1], picture.shape[0])
        self._began = captured_at
        writer = cv2.VideoWriter()
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        if not writer.open(str(self.path), cv2.CAP_FFMPEG, codec, self._fps, self._size):
            raise OSError("this OpenCV cannot write JPEG video into Matroska")
        self._writer = writer
        self._last = picture

    def _fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self._resized:
            _log.warning(
                "%s: a frame is %dx%d; it is scaled to %dx%d as the first",
                *(self.path, picture.shape[1], picture.shape[0], *self._size),
            )
            self._resized = True
        return np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.uint8)

    def _gap(self, captured_at: float) -> int:
        """How often to repeat the frame before, so that the next stands at its capture time."""
        if not self._realtime:
            return 0
        missing = round((captured_at - self._began) * self._fps) - self._part_frames
        longest = max(1, round(self._fps))
        if missing > longest:
            self._began += (missing - longest) / self._fps
        return min(max(0, missing), longest)

    def _append(self, picture: NDArray[np.uint8]) -> None:
        assert self._writer is not None
        written: bool | None = self._writer.write(picture)
        if written is False or (written is None and not self._grows(picture)):
            raise OSError("cannot write on (is the disk full?)")
        self.frames += 1
        self._part_frames += 1

    def _grows(self, picture: NDArray[np.uint8]) -> bool:
        """Stands in for the return value that OpenCV 4 lacks."""
        # A JPEG needs 12 bits for 16 × 16 black pixels; twice the buffer of those must show.
        least = 100 + picture.shape[0] * picture.shape[1] // 256
        self._unconfirmed += least
        if self._unconfirmed < 2 * _WRITE_BUFFER:
            return True
        size = self.path.stat().st_size
        grown = size > self._seen_size
        self._seen_size, self._unconfirmed = size, 0
        return grown
