"""Sources of your own: any Python object that delivers frames."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.errors import OpenFailed, SourceError, UsageError
from edgeseg.sources.frames import as_bgr
from edgeseg.sources.places import FramePosition
from edgeseg.sources.spec import SourceLimits, SourceSpec

logger = logging.getLogger(__name__)

OwnFrame: TypeAlias = "NDArray[np.uint8] | tuple[NDArray[np.uint8], float]"
"""A frame, or a frame and its time in seconds; see :class:`FrameSource`."""

_AHEAD_S = 0.1
"""How far the time of a frame may lie in the future, which a coarse clock explains."""


class FrameSource(Protocol):
    """An object that delivers frames, such as a generator.

    ``iter(source)`` opens it, ``next()`` waits for the next frame, and ``close()`` of the
    iterator, if it has one, releases it. All are called in one thread that belongs to the source;
    a generator that is closed runs its ``finally`` and leaves its ``with`` blocks.

    A frame is uint8 (H, W, 3) BGR, (H, W, 4) BGR with an ignored channel, or (H, W) or (H, W, 1)
    grey. It is copied, so its buffer may be used again. It may come in a tuple with its time in
    seconds: of a camera, when it was captured, on the clock of :func:`time.monotonic`; of a
    recording, when it is shown.
    """

    def __iter__(self) -> Iterator[OwnFrame]:
        """Open the source."""


def from_frames(
    source: FrameSource | Iterable[OwnFrame] | Callable[[], Iterable[OwnFrame]],
    label: str | None = None,
    *,
    live: bool | None = None,
    fps: float | None = None,
    limits: SourceLimits | None = None,
) -> SourceSpec:
    """Make a source of a stream from an object that delivers frames.

    A function is a camera, anything else a recording. A camera is opened again, by another call,
    when it ends or raises an exception; only its newest frame counts. A recording is read once,
    every frame of it, and an exception ends it.

    Args:
        source: A :class:`FrameSource`, or a function that returns one.
        label: Name in logs and results; by default of the function or class.
        live: Whether it is a camera; None to decide as described.
        fps: Frames per second, if known.
        limits: Time-outs. Of a source of your own, only ``stalled_s``, ``backoff_s``, ``jitter``
            and ``queued`` count: Python cannot interrupt a call that waits, so let yours raise
            TimeoutError to be opened again.

    Raises:
        UsageError: ``source`` delivers no frames, or is a camera that cannot be opened again.
    """
    if isinstance(source, (str, bytes)) or not (callable(source) or isinstance(source, Iterable)):
        raise UsageError(
            f"expected a function or an iterable of frames, found {type(source).__name__}",
            hint="pass a generator function that yields arrays, uint8 (H, W, 3) BGR",
        )
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise UsageError(
            f"expected frames, (N, H, W, 3), found an array {source.shape}",
            hint="from_frames([frame]) is a recording of one frame",
        )
    if live and isinstance(source, Iterator):
        raise UsageError(
            "an iterator cannot be opened again when the camera is lost",
            hint="pass the function that makes it: from_frames(frames), not from_frames(frames())",
        )
    named = getattr(source, "__name__", type(source).__name__)
    return SourceSpec(
        "own",
        "",
        printable(label or f"python:{named}"),
        live=callable(source) if live is None else live,
        fps=fps,
        limits=limits or SourceLimits(),
        own=source,
    )


class OwnFrames:
    """An opened source of one's own.

    Raises:
        OpenFailed: Its function or ``__iter__`` raised an exception.
    """

    name: str | None = None
    decoder: str | None = None
    unreadable = 0

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self.fps = spec.fps
        self.declared: int | None = None
        self.place: FramePosition | None = None
        self.captured_at: float | None = None
        self._first: float | None = None
        self._count = 0
        self._iterator = self._opened()

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR; None at the end.

        Raises:
            SourceError: The object raised an exception, or delivered something else.
        """
        try:
            item: Any = next(self._iterator)
        except StopIteration:
            return None
        except SourceError:
            raise
        except Exception as error:
            raise _failed(self._spec, error) from error
        frame, seconds = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        picture = self._checked(frame)
        self._place(seconds)
        self._count += 1
        return picture

    def close(self) -> None:
        """Release the source; an exception is logged."""
        close = getattr(self._iterator, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:
            logger.warning("%s", _failed(self._spec, error).message)

    def _opened(self) -> Iterator[Any]:
        own = self._spec.own
        try:
            opened = own() if callable(own) else own
            if isinstance(opened, Iterable):
                return iter(opened)
        except SourceError:
            raise
        except Exception as error:
            raise OpenFailed(_failed(self._spec, error).message) from error
        raise OpenFailed(
            f"{self._spec.label}: expected an iterable of frames, found {type(opened).__name__}",
            hint="return an iterable, or write a generator with yield",
        )

    def _checked(self, frame: Any) -> NDArray[np.uint8]:
        label = self._spec.label
        if not isinstance(frame, np.ndarray):
            raise SourceError(
                f"{label}: expected a frame, uint8 (H, W, 3) BGR, found {type(frame).__name__}",
                hint="yield a NumPy array, or a tuple of an array and its time in seconds",
            )
        hint = _hint(frame)
        if hint is not None:
            raise SourceError(
                f"{label}: expected a frame, uint8 (H, W, 3) BGR, found "
                f"{frame.dtype} {frame.shape}",
                hint=hint,
            )
        converted = as_bgr(np.ascontiguousarray(frame), frame.shape[0], label)
        return converted.copy() if np.may_share_memory(converted, frame) else converted

    def _place(self, seconds: Any) -> None:
        """Note the time of the frame."""
        if seconds is None:
            self.captured_at = None
            self.place = None if self._spec.live else FramePosition(self._count)
            return
        at = float("nan")
        with contextlib.suppress(TypeError, ValueError):
            at = float(seconds)
        if not math.isfinite(at):
            raise SourceError(
                f"{self._spec.label}: expected the time of a frame in seconds, found "
                f"{printable(repr(seconds), 40)}"
            )
        if self._spec.live:
            self.captured_at = self._moment(at)
        else:
            self._first = at if self._first is None else self._first
            self.place = FramePosition(self._count, at - self._first)

    def _moment(self, at: float) -> float:
        now = time.monotonic()
        if not 0 <= at <= now + _AHEAD_S:
            raise SourceError(
                f"{self._spec.label}: expected the time of a frame on the monotonic clock, which "
                f"is at {now:.3f} s, found {at:.3f} s",
                hint="take it from time.monotonic(), not time.time()",
            )
        return min(at, now)


def _failed(spec: SourceSpec, error: Exception) -> SourceError:
    found = printable(str(error), 200)
    return SourceError(f"{spec.label}: {type(error).__name__}{': ' if found else ''}{found}")


def _hint(frame: NDArray[Any]) -> str | None:
    """Say how to make a picture of an array; None if it is one."""
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.ndim == 3 and channels > 4 and frame.shape[0] in (1, 3, 4):
        return "the channels come last: frame.transpose(1, 2, 0)"
    if frame.ndim not in (2, 3) or channels not in (1, 3, 4) or not frame.size:
        return "yield one picture at a time, (H, W, 3)"
    if frame.dtype != np.uint8:
        if np.issubdtype(frame.dtype, np.floating):
            return "from values of 0 to 1: (255 * frame).astype(np.uint8)"
        return "scale to 8 bits, e.g. cv2.convertScaleAbs(frame, alpha=255 / frame.max())"
    return None
