"""Queues of captured frames: one slot per source, and the intake that feeds the engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from edgeseg.stream.result import StreamResult


class Slot:
    """Bounded queue of frames between two threads.

    Args:
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
        self._items: deque[StreamResult] = deque()
        self._closed = False

    def put(self, frame: StreamResult) -> None:
        """Add a frame; after :meth:`close` it is discarded."""
        with self.changed:
            while len(self._items) >= self._places and not self._closed:
                if self._newest_wins:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self.changed.wait()
            if not self._closed:
                self._items.append(frame)
                self.changed.notify_all()

    def take(self) -> StreamResult | None:
        """Take the oldest frame, if any."""
        with self.changed:
            if not self._items:
                return None
            frame = self._items.popleft()
            self.changed.notify_all()
            return frame

    def reset_drops(self) -> None:
        """Reset the count of dropped frames."""
        with self.changed:
            self.dropped = 0

    @property
    def empty(self) -> bool:
        """Whether no frame is queued."""
        return not self._items

    def close(self, *, discard: bool = False) -> None:
        """Accept no more frames; queued ones can still be taken unless ``discard``."""
        with self.changed:
            self._closed = True
            if discard:
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
        """Wait until a slot changes, for at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def take(self, limit: int, timeout: float) -> list[StreamResult]:
        """Take up to ``limit`` frames; none if none arrives within ``timeout`` seconds.

        Sources take turns: none gives a second frame while another has a first. The wait also
        ends when a slot closes.
        """
        with self._changed:
            if all(slot.empty for slot in self._slots):
                self._changed.wait(timeout)
            taken: list[StreamResult] = []
            while len(taken) < limit and not all(slot.empty for slot in self._slots):
                slot = self._slots[self._turn]
                self._turn = (self._turn + 1) % len(self._slots)
                frame = slot.take()
                if frame is not None:
                    taken.append(frame)
            return taken
