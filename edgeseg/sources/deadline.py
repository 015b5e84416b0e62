"""Sources that may hang: read in a thread that can be left behind.

FFmpeg keeps to its time-outs. GStreamer before OpenCV 4.7 knows none: an open or a read of a
pipeline that delivers nothing never returns, and to release the capture meanwhile crashes. Nor
can a look-up of a name be ended. So one daemon thread opens, reads and closes; who waits for it
gives up in time, and the thread closes what it has as soon as it gets control back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OpenFailed
from edgeseg.sources.frames import Frames
from edgeseg.sources.places import FramePosition
from edgeseg.sources.spec import SourceSpec

_T = TypeVar("_T")


def open_in_time(spec: SourceSpec, open_it: Callable[[], Frames], hung: OpenFailed) -> Frames:
    """What ``open_it`` opens, at the latest after ``limits.open_s``; its reads end in ``read_s``.

    One that hangs from an earlier attempt is waited for first, so that attempts leave no
    more than one thread behind.

    Raises:
        OpenFailed: ``hung``, because of the time. And all that ``open_it`` raises.
    """
    deadline = time.monotonic() + spec.limits.open_s
    if not _earlier_is_over(spec.target, deadline):
        raise hung
    return _InTime(spec, open_it, deadline, hung)


def call_in_time(spec: SourceSpec, what: Callable[[], _T], deadline: float) -> _T:
    """What ``what()`` gives, at the latest at ``deadline`` (monotonic seconds).

    A result that comes later is closed. As for :func:`open_in_time` at most one call for a
    source is left behind.

    Raises:
        TimeoutError: It took longer. And all that ``what`` raises.
    """
    if not _earlier_is_over(spec.target, deadline):
        raise TimeoutError
    worker = _Worker(spec)
    result = worker.call(what, deadline - time.monotonic())
    if result is None:
        raise TimeoutError
    worker.leave()
    return result


def _earlier_is_over(target: str, deadline: float) -> bool:
    """Wait for threads that an earlier attempt left behind; whether they ended in time."""
    for thread in threading.enumerate():
        if isinstance(thread, _Worker) and thread.left_behind and thread.target == target:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
    return True


class _InTime:
    """Frames of another thread; a read that takes too long is the end."""

    name: str | None = None
    place: FramePosition | None = None
    captured_at: float | None = None
    decoder: str | None = None

    def __init__(
        self, spec: SourceSpec, open_it: Callable[[], Frames], deadline: float, hung: OpenFailed
    ) -> None:
        self._read_s = spec.limits.read_s
        self._worker = _Worker(spec)
        frames = self._worker.call(open_it, deadline - time.monotonic())
        if frames is None:
            raise hung
        self._worker.frames = self._frames = frames
        self.fps, self.declared = frames.fps, frames.declared
        self.unreadable = 0

    def read(self) -> NDArray[np.uint8] | None:
        return self._worker.call(self._frames.read, self._read_s)

    def close(self) -> None:
        self._worker.leave()
        self._worker.join(0.25)


class _Worker(threading.Thread):
    """Does one call after the other; closes ``frames`` when it is left."""

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(name=f"edgeseg capture of {spec.label}", daemon=True)
        self.target = spec.target
        self.left_behind = False
        self.frames: Frames | None = None
        self._turn = threading.Condition()
        self._call: Callable[[], object] | None = None
        self._result: object = None
        self._error: BaseException | None = None
        self.start()

    def call(self, what: Callable[[], _T], timeout: float) -> _T | None:
        """What ``what()`` gives in this thread; None after ``timeout`` s, and the thread is left.

        Raises:
            Exception: What ``what`` raised; the thread is left.
        """
        with self._turn:
            if self.left_behind:
                return None
            self._call = what
            self._turn.notify_all()
            done = self._turn.wait_for(lambda: self._call is None, timeout)
            result, error = self._result, self._error
            if not done or error is not None:
                self._leave()
        if error is not None:
            raise error
        return result if done else None  # type: ignore[return-value]

    def leave(self) -> None:
        """Let it close what it has and end, now or when the call under way returns."""
        with self._turn:
            self._leave()

    def _leave(self) -> None:
        self.left_behind = True
        self._turn.notify_all()

    def run(self) -> None:
        while (call := self._next()) is not None:
            self._do(call)
        if self.frames is not None:
            self.frames.close()

    def _next(self) -> Callable[[], object] | None:
        with self._turn:
            self._turn.wait_for(lambda: self.left_behind or self._call is not None)
            return None if self.left_behind else self._call

    def _do(self, call: Callable[[], object]) -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = call()
        except Exception as raised:
            error = raised
        with self._turn:
            self._result, self._error, self._call = result, error, None
            if self.left_behind and self.frames is None and hasattr(result, "close"):
                result.close()  # opened too late
            self._turn.notify_all()
