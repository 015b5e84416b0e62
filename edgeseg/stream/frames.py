"""What an opened source is, and the one behind ``cv2.VideoCapture``."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import SourceError
from edgeseg.stream.source import MIN_SIDE, SourceSpec

_log = logging.getLogger(__name__)


class Frames(Protocol):
    """An opened source.

    Attributes:
        fps: Frames a second that it states, None where it states nothing sensible.
        declared: How many frames it states to hold, None where it does not.
        unreadable: How many were met so far that could not be decoded.
        name: Of the picture file last read, without folder; None for video.
    """

    fps: float | None
    declared: int | None
    unreadable: int
    name: str | None

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, uint8 (H, W, 3) BGR and the caller's own; None at the end."""

    def close(self) -> None:
        """Release it; called once."""


class Video:
    """A file, URL, camera or pipeline behind ``cv2.VideoCapture``."""

    name: str | None = None

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
