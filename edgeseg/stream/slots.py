"""Queues of captured frames: one slot per source, and the intake that feeds the engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Captured:
    """A frame as it left the source.

    Attributes:
        index: Number of the frame in the source, from 0; gaps are frames that were dropped or
            could not be read.
        frame: uint8 (H, W, 3) BGR.
        captured_at: Seconds of the monotonic clock when the read returned.
        capture_ms: Duration of the read; for a live source, mostly waiting.
        camera: Number of the source in the stream, from 0.
        name: Name of the picture file that the frame is, without folder; None for video.
        media_time: Seconds from the first frame of the video; None where nothing tells, as of
            cameras and pictures.
        damaged: The decoder met errors in the frame.
    """

    index: int
    frame: NDArray[np.uint8]
    captured_at: float
    capture_ms: float
    camera: int = 0
    name: str | None = None
    media_time: float | None = None
    damaged: bool = False


class Slot:
    """Bounded queue of frames between two threads.

    Args:
        places: Capacity in frames.
        newest_wins: If full, drop the oldest frame and count it; otherwise wait for space.
        changed: Notified of each change; several slots may share it, so that one thread can
            wait for all.
    """

    def __init__(
        self, places: int, *, newest_wins: bool, changed: threading.Condition | None = None
    ) -> None:
        self.changed = changed or threading.Condition()
        self.dropped = 0
        self._places = places
        self._newest_wins = newest_wins
        self._items: deque[Captured] = deque()
        self._closed = False

    def put(self, item: Captured) -> None:
        """Add a frame; after :meth:`close` it is discarded."""
        with self.changed:
            while len(self._items) >= self._places and not self._closed:
                if self._newest_wins:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self.changed.wait()
            if not self._closed:
                self._items.append(item)
                self.changed.notify_all()

    def get(self, timeout: float) -> Captured | None:
        """Take the oldest frame; None if none arrives within ``timeout`` seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self._items or self._closed, timeout)
            return self.take()

    def take(self) -> Captured | None:
        """Take the oldest frame, if any."""
        with self.changed:
            if not self._items:
                return None
            item = self._items.popleft()
            self.changed.notify_all()
            return item

    def forgive(self) -> None:
        """Reset the count of dropped frames."""
        with self.changed:
            self.dropped = 0

    @property
    def empty(self) -> bool:
        """Whether no frame is queued."""
        return not self._items

    def close(self, *, forget: bool = False) -> None:
        """Take no more frames; those that wait stay to be taken unless ``forget``."""
        with self.changed:
            self._closed = True
            if forget:
                self._items.clear()
            self.changed.notify_all()


class Intake:
    """Takes available frames from the slots of all sources in turn.

    A source without a frame is skipped, so a dead camera does not slow the others.

    Args:
        slots: They share ``changed``.
        changed: Re-entrant condition that the slots notify.
    """

    def __init__(self, slots: Sequence[Slot], changed: threading.Condition) -> None:
        self._slots = slots
        self._changed = changed
        self._turn = 0

    def wait(self, timeout: float) -> None:
        """Until a slot changes, ``timeout`` seconds at most."""
        with self._changed:
            self._changed.wait(timeout)

    def take(self, most: int, timeout: float) -> list[Captured]:
        """One frame at least and ``most`` at most; none when none comes within ``timeout`` s.

        Sources take turns: none gives a second frame while another has a first. ``timeout``
        also ends early when a slot closes.
        """
        with self._changed:
            if all(slot.empty for slot in self._slots):
                self._changed.wait(timeout)
            taken: list[Captured] = []
            while len(taken) < most and not all(slot.empty for slot in self._slots):
                slot = self._slots[self._turn]
                self._turn = (self._turn + 1) % len(self._slots)
                captured = slot.take()
                if captured is not None:
                    taken.append(captured)
            return taken
