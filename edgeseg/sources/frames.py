"""The interface of an opened source, and its implementations on ``cv2.VideoCapture``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import SourceError
from edgeseg.sources.places import Clock, FrameLosses, FramePosition, slack
from edgeseg.sources.spec import MIN_SIDE, SourceSpec

logger = logging.getLogger(__name__)

_FAILED_READS = 100
"""Consecutive failed reads after which a file is over, or as many as there are frames missing."""

_MOST_FAILED_READS = 100_000

_UNEVEN = 0.25
"""Largest deviation of evenly spaced frames, as a share of the frame interval."""

_EVEN_STEPS = 3
"""Evenly spaced frames required before a gap counts as lost frames."""


class Frames(Protocol):
    """An opened source.

    Attributes:
        fps: Declared frames per second; None if the source declares no plausible rate.
        declared: Declared number of frames; None if unknown.
        unreadable: Number of frames that could not be read so far; after the end, this includes
            frames missing from the end.
        name: Name of the last picture file read, without its folder; None for video.
        place: Position of the last frame read within its video; None if frames are simply
            counted as they arrive.
        captured_at: When the last frame read was captured, in seconds of the monotonic clock;
            None if only its arrival is known.
        decoder: Device that decodes, or ``cpu``, from the first frame on; None for a source that
            is not decoded by PyAV.
    """

    fps: float | None
    declared: int | None
    name: str | None
    place: FramePosition | None
    captured_at: float | None

    @property
    def decoder(self) -> str | None: ...  # noqa: D102 - the class says it

    @property
    def unreadable(self) -> int: ...  # noqa: D102 - the class says it

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR, owned by the caller; None at the end."""

    def close(self) -> None:
        """Release the source; called once."""


def frames_of(opened: Frames) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a source up to its end."""
    while (frame := opened.read()) is not None:
        yield frame


class Video:
    """A URL, camera or pipeline read with ``cv2.VideoCapture``."""

    name: str | None = None
    decoder: str | None = None
    place: FramePosition | None = None
    captured_at: float | None = None

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
        """Return the next frame; None at the end or if OpenCV raises.

        Raises:
            SourceError: The frame format is not supported.
        """
        try:
            ok, frame = self._capture.read()
        except cv2.error as error:
            logger.debug("read failed with code %s", error.code)
            return None
        if not ok or frame is None:
            return None
        if self._standstill is not None and self._standstill.seen(frame, time.monotonic()):
            logger.warning(
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
            logger.warning("%s: frames of %dx%d from here on", self._label, width, height)

    def close(self) -> None:
        """Release the capture, in the thread that opened it."""
        self._capture.release()


class Bounded:
    """Wrap ``frames`` and enforce limits on the frame size.

    Frames of a camera that are too large or too small are skipped and count as unreadable; 100
    in a row end the connection.

    Args:
        frames: An opened source.
        spec: The source's specification. ``max_pixels`` is enforced, and for live sources also
            :data:`~edgeseg.sources.spec.MIN_SIDE`.
    """

    _MOST = 100

    def __init__(self, frames: Frames, spec: SourceSpec) -> None:
        self._frames = frames
        self._spec = spec
        self._left_out = 0
        self._said = False

    @property
    def unreadable(self) -> int:
        """Number of frames that could not be decoded or were skipped."""
        return self._frames.unreadable + self._left_out

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame within the limits, uint8 (H, W, 3) BGR; None at the end.

        Raises:
            SourceError: A frame of a file has too many pixels; frames of files are not skipped.
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
                    hint="make a smaller video of it, or raise --max-pixels",
                )
            if not self._said:
                logger.warning("%s: %s; such frames are skipped", self._spec.label, why)
            self._said = True
            self._left_out += 1
        return None

    def close(self) -> None:
        """Release the wrapped source."""
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
    """A video file read with ``cv2.VideoCapture``, continuing past frames that cannot be decoded.

    OpenCV does not report which frames it skipped. A gap in the presentation times counts as
    lost frames if the times are evenly spaced before and after it, or if a read failed. In files
    without presentation times (AVI), frames are counted.
    """

    name: str | None = None
    decoder: str | None = None
    captured_at: float | None = None

    def __init__(self, capture: cv2.VideoCapture, spec: SourceSpec) -> None:
        self._video = Video(capture, spec)
        self._capture = capture
        self.fps, self.declared = self._video.fps, self._video.declared
        self.place: FramePosition | None = None
        self._losses = FrameLosses(spec.label)
        self._clock = Clock(self.fps)
        self._ahead: tuple[NDArray[np.uint8], float | None] | None = None
        self._even: int | None = 0  # frames that came in time, None once others came
        self._failed = 0
        self._count = 0
        self._raw: float | None = None

    @property
    def unreadable(self) -> int:
        """Number of frames that could not be read so far."""
        return self._losses.count

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame; None at the end.

        Raises:
            SourceError: The frame format is not supported.
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
        self.place = FramePosition(number + lost, self._clock.show(seconds))
        return frame

    def close(self) -> None:
        """Release the capture, in the thread that opened it."""
        self._video.close()

    def _next(self) -> tuple[NDArray[np.uint8], float | None] | None:
        """Return the next readable frame and its presentation time in seconds."""
        patience = max(_FAILED_READS, (self.declared or 0) - self._count)
        for failed in range(min(patience, _MOST_FAILED_READS)):
            frame = self._video.read()
            if frame is not None:
                self._failed += failed
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # OpenCV 4 reports 0 for the last frames, which the decoder returns late.
                known = math.isfinite(seconds) and (seconds > 0 or not self._count)
                return frame, seconds if known else None
        return None

    def _lost_before(self, seconds: float | None) -> int:
        """Number of frames missing between the last frame and the one at ``seconds``."""
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
        """Whether the next frame, if any, follows after one frame interval."""
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
        """Whether the last frame is shown before the declared end of the file."""
        if self.fps is None or self._raw is None or not self.declared:
            return True
        return self.declared / self.fps - self._raw > 2 * self._clock.interval


class Standstill:
    """Detects a frozen stream: pictures that changed at first and then stay identical.

    When a stream changes its frame size, OpenCV 5 silently scales new frames to the old size.
    OpenCV 4.6 returns the last frame before the change over and over as if it were new, which
    must not pass for live video. A picture that never changed counts as a still scene.

    Args:
        seconds: How long the picture must stay identical.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: NDArray[Any] | None = None
        self._since = 0.0
        self._moved = False

    def seen(self, frame: NDArray[Any], now: float) -> bool:
        """Whether the stream is frozen, given ``frame`` seen at ``now`` (monotonic seconds)."""
        rows = frame[::16]
        if self._before is not None and np.array_equal(self._before, rows):
            return self._moved and now - self._since >= self._seconds
        self._moved = self._before is not None
        self._before, self._since = rows.copy(), now
        return False


def as_bgr(frame: NDArray[Any], height: int, label: str) -> NDArray[np.uint8]:
    """Convert a frame from OpenCV to uint8 (H, W, 3) BGR.

    A grey channel is repeated and a fourth channel is dropped.

    Args:
        frame: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRx.
        height: Declared frame height in pixels, used to recognise planar YUV, which has half as
            many rows again.
        label: Name of the source for messages.

    Raises:
        SourceError: The frame has another format.
    """
    if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
        return frame
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    planes = channels == 1 and 2 * frame.shape[0] == 3 * height
    if frame.dtype != np.uint8 or channels not in (1, 4) or planes:
        raise SourceError(
            f"{label}: frames are {frame.dtype} {frame.shape}, not 8-bit BGR",
            hint="end the pipeline with … ! videoconvert ! video/x-raw,format=BGR ! appsink",
        )
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)
