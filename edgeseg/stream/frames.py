"""What an opened source is, and those behind ``cv2.VideoCapture``."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import SourceError
from edgeseg.stream.places import Clock, Losses, Place, slack
from edgeseg.stream.source import MIN_SIDE, SourceSpec

_log = logging.getLogger(__name__)

_FAILED_READS = 100
"""Reads that fail in a row before a file is over, or as many as frames are missing."""

_MOST_FAILED_READS = 100_000

_UNEVEN = 0.25
"""Share of an interval by which frames that come evenly may stray."""

_EVEN_STEPS = 3
"""Frames that come evenly before a gap is taken for a loss."""


class Frames(Protocol):
    """An opened source.

    Attributes:
        fps: Frames a second that it states, None where it states nothing sensible.
        declared: How many frames it states to hold, None where it does not.
        unreadable: How many frames could not be read so far; after the end, those that are
            missing there too.
        name: Name of the picture file last read, without folder; None for video.
        place: Where the frame last read stands in its video; None where frames are counted as
            they come.
    """

    fps: float | None
    declared: int | None
    name: str | None
    place: Place | None

    @property
    def unreadable(self) -> int: ...  # noqa: D102 - the class says it

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, uint8 (H, W, 3) BGR and the caller's own; None at the end."""

    def close(self) -> None:
        """Release it; called once."""


class Video:
    """A URL, camera or pipeline behind ``cv2.VideoCapture``."""

    name: str | None = None
    place: Place | None = None

    def __init__(self, capture: cv2.VideoCapture, spec: SourceSpec) -> None:
        self._capture = capture
        self._label = spec.label
        self._size: tuple[int, int] | None = None
        watched = spec.kind == "url" and spec.live and cv2.__version__.startswith("4.")
        self._standstill = Standstill(spec.limits.stalled_s) if watched else None
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else None
        declared = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.declared = int(declared) if 0 < declared < 1e12 else None
        self.unreadable = 0

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame; None at the end, or where OpenCV raises.

        Raises:
            SourceError: The frame is of a format that is not known.
        """
        try:
            ok, frame = self._capture.read()
        except cv2.error as error:
            _log.debug("read failed with code %s", error.code)
            return None
        if not ok or frame is None:
            return None
        if self._standstill is not None and self._standstill.seen(frame, time.monotonic()):
            _log.warning(
                "%s: the picture stands still: the camera froze or changed its frame size, which "
                "OpenCV %s cannot follow; connecting again",
                *(self._label, cv2.__version__),
            )
            return None
        self._say_size(frame.shape[1], frame.shape[0])
        return as_bgr(frame, round(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), self._label)

    def _say_size(self, width: int, height: int) -> None:
        before, self._size = self._size, (width, height)
        if before not in (None, self._size):
            _log.warning("%s: frames of %dx%d from here on", self._label, width, height)

    def close(self) -> None:
        """Release the capture, in the thread that opened it."""
        self._capture.release()


class Bounded:
    """Frames of a size that can be worked with; all else of ``frames`` is as it was.

    A camera's frames of another size are left out and count as unreadable, and so many of them
    in a row end the connection.

    Args:
        frames: Opened from ``spec``.
        spec: Its ``max_pixels`` hold, and :data:`~edgeseg.stream.source.MIN_SIDE` if it is live.
    """

    _MOST = 100

    def __init__(self, frames: Frames, spec: SourceSpec) -> None:
        self._frames = frames
        self._spec = spec
        self._left_out = 0
        self._said = False

    @property
    def unreadable(self) -> int:
        """How many could not be decoded or were left out."""
        return self._frames.unreadable + self._left_out

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame that fits, uint8 (H, W, 3) BGR; None at the end.

        Raises:
            SourceError: A frame of a file, where every one counts, has too many pixels.
        """
        for _ in range(self._MOST):
            frame = self._frames.read()
            why = None if frame is None else self._unfit(frame.shape[1], frame.shape[0])
            if why is None:
                self._said = False
                return frame
            if not self._spec.live:
                raise SourceError(
                    f"{self._spec.label}: {why}",
                    mend="make a smaller video of it, or raise --max-pixels",
                )
            if not self._said:
                _log.warning("%s: %s; such frames are left out", self._spec.label, why)
            self._said = True
            self._left_out += 1
        return None

    def close(self) -> None:
        """Release it."""
        self._frames.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frames, name)

    def _unfit(self, width: int, height: int) -> str | None:
        limit = self._spec.max_pixels
        if width * height > limit:
            return f"a frame of {width}x{height} has more than {limit} pixels (--max-pixels)"
        if self._spec.live and min(width, height) < MIN_SIDE:
            return f"a frame of {width}x{height} is smaller than {MIN_SIDE} pixels a side"
        return None


class VideoFile:
    """A video file behind ``cv2.VideoCapture``, which is read past what cannot be decoded.

    OpenCV says neither which frames it left out nor where. A gap in the presentation times is
    taken for lost frames where the times were even before and are even behind it, or where a
    read failed; files without such times (AVI) are counted through.
    """

    name: str | None = None

    def __init__(self, capture: cv2.VideoCapture, spec: SourceSpec) -> None:
        self._video = Video(capture, spec)
        self._capture = capture
        self.fps, self.declared = self._video.fps, self._video.declared
        self.place: Place | None = None
        self._losses = Losses(spec.label)
        self._clock = Clock(self.fps)
        self._ahead: tuple[NDArray[np.uint8], float | None] | None = None
        self._even: int | None = 0  # frames that came in time, None once others came
        self._failed = 0
        self._count = 0
        self._raw: float | None = None

    @property
    def unreadable(self) -> int:
        """Frames that could not be read so far."""
        return self._losses.count

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame; None at the end.

        Raises:
            SourceError: The frame is of a format that is not known.
        """
        found, self._ahead = self._ahead or self._next(), None
        if found is None:
            self._finish()
            return None
        frame, seconds = found
        number = 0 if self.place is None else self.place.index + 1
        lost = self._lost_before(seconds)
        self._losses.add(number, lost)
        self._count += 1
        self._raw = seconds
        self.place = Place(number + lost, self._clock.show(seconds))
        return frame

    def close(self) -> None:
        """Release the capture, in the thread that opened it."""
        self._video.close()

    def _next(self) -> tuple[NDArray[np.uint8], float | None] | None:
        """The next frame that can be read, with its presentation time in seconds."""
        patience = max(_FAILED_READS, (self.declared or 0) - self._count)
        for failed in range(min(patience, _MOST_FAILED_READS)):
            frame = self._video.read()
            if frame is not None:
                self._failed += failed
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # OpenCV 4 says 0 of the last frames, which the decoder gives late.
                known = math.isfinite(seconds) and (seconds > 0 or not self._count)
                return frame, seconds if known else None
        return None

    def _lost_before(self, seconds: float | None) -> int:
        """Frames that are missing between the last one and that of ``seconds``."""
        if self.place is None or self._raw is None:
            if self._failed and self.fps and seconds:
                self._failed = 0
                return round(seconds * self.fps)
            self._clock.start(seconds or 0.0)
            return 0
        if seconds is None or self.fps is None:
            return 0
        steps = (seconds - self._raw) * self.fps
        even = self._even is not None
        if abs(steps - 1) < _UNEVEN:
            self._even = None if self._even is None else self._even + 1
            return 0
        lost, failed, self._failed = round(steps) - 1, self._failed, 0
        on_time = even and lost > 0 and abs(steps - round(steps)) < _UNEVEN
        gap = lost > 1 and (self._even or 0) >= _EVEN_STEPS  # a single step may be a slip
        if on_time and (failed or (gap and self._even_behind(seconds))):
            return lost
        self._even = None
        return failed

    def _even_behind(self, seconds: float) -> bool:
        """Whether the next frame comes after one interval, if there is one."""
        self._ahead = self._next()
        if self._ahead is None or self._ahead[1] is None or self.fps is None:
            return True
        return abs((self._ahead[1] - seconds) * self.fps - 1) < _UNEVEN

    def _finish(self) -> None:
        found = self._count + self._losses.count
        missing = (self.declared or 0) - found
        allowed = slack(self.declared or 0, exact=False)
        if self._count and missing > allowed and self._ends_early():
            self._losses.add(found, missing)
            found += missing
        self.declared = found

    def _ends_early(self) -> bool:
        """Whether the last frame is shown before the time at which the file states to end."""
        if self.fps is None or self._raw is None or not self.declared:
            return True
        return self.declared / self.fps - self._raw > 2 * self._clock.interval


class Standstill:
    """Tells a picture that moved and then stays the same to the last bit.

    When a stream changes its frame size OpenCV 5 stretches what comes to the old size, and
    nothing tells. OpenCV 4.6 hands out the last frame before the change again and again as
    if it were new, which must not pass for live. A picture that never moved is a still one.

    Args:
        seconds: How long it must stay the same.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: NDArray[Any] | None = None
        self._since = 0.0
        self._moved = False

    def seen(self, frame: NDArray[Any], now: float) -> bool:
        """Whether ``frame``, seen at ``now`` (monotonic seconds), ends such a time."""
        rows = frame[::16]
        if self._before is not None and np.array_equal(self._before, rows):
            return self._moved and now - self._since >= self._seconds
        self._moved = self._before is not None
        self._before, self._since = rows.copy(), now
        return False


def as_bgr(frame: NDArray[Any], height: int, label: str) -> NDArray[np.uint8]:
    """A frame as OpenCV gives it → uint8 (H, W, 3) BGR: grey is repeated, a fourth channel dropped.

    Args:
        frame: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRx.
        height: In pixels, as stated; planes of YUV have half as many rows again.
        label: Of the source.

    Raises:
        SourceError: It is another format.
    """
    if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
        return frame
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    planes = channels == 1 and 2 * frame.shape[0] == 3 * height
    if frame.dtype != np.uint8 or channels not in (1, 4) or planes:
        raise SourceError(
            f"{label}: frames are {frame.dtype} {frame.shape}, not 8-bit BGR",
            mend="end the pipeline with … ! videoconvert ! video/x-raw,format=BGR ! appsink",
        )
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)
