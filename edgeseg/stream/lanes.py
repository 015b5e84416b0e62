"""Engines side by side: lanes in threads of their own, whose results come in the frames' order.

One lane in the caller's thread costs a frame no waiting: the mode for a live camera. Lanes in
threads of their own run while the caller draws and writes the results before: more frames a
second, and older ones.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from edgeseg.stream.lane import Lane
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Captured, Intake

_TICK_S = 0.1
"""How long an end may go unnoticed while no frame comes."""


class Lanes:
    """Lanes in threads of their own; results come in the order in which frames were taken.

    Args:
        lanes: They share nothing.
        intake: Where they take frames.
        over: Whether no frame will ever come again.
        most: Frames a batch.
        ahead: Batches that may be under way or wait for the caller, besides those that keep a
            GPU busy. More of them make results older, not more.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        intake: Intake,
        over: Callable[[], bool],
        most: int,
        ahead: int,
    ) -> None:
        self._lanes, self._intake, self._over = lanes, intake, over
        self._most, self._ahead = most, ahead
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._ready: dict[int, list[StreamResult] | Exception] = {}
        self._taken = self._handed = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"edgeseg lane {number}")
            for number, lane in enumerate(lanes)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def take(self, timeout: float) -> list[StreamResult]:
        """The next batch of results; none when none comes within ``timeout`` seconds.

        Raises:
            InferenceError: Its engine failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._handed in self._ready, timeout)
            results = self._ready.pop(self._handed, [])
            if isinstance(results, Exception):
                raise results
            if results:
                self._handed += 1
                self._changed.notify_all()
            return results

    @property
    def idle(self) -> bool:
        """Whether the results of all frames that were taken are handed out."""
        return self._handed == self._taken

    @property
    def done(self) -> bool:
        """Whether no result will come any more."""
        return not any(thread.is_alive() for thread in self._threads) and self.idle

    def close(self) -> None:
        """Take no more frames, and wait for the inferences that run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, lane: Lane) -> None:
        under_way: deque[int] = deque()
        more = True
        while more or under_way:
            batch = self._next(wait=not under_way) if more else None
            more = batch is not None
            number, frames = batch or (0, [])
            if frames:
                try:
                    lane.submit(frames)
                except Exception as error:
                    self._give(lane, under_way)
                    self._hand(number, error)
                else:
                    under_way.append(number)
            # A GPU is given another batch before it is asked for the first, if there is one.
            if not frames or len(under_way) >= lane.depth:
                self._give(lane, under_way, most=1)

    def _give(self, lane: Lane, under_way: deque[int], most: int | None = None) -> None:
        """Hand out the results of the oldest batches under way, all of them or ``most``."""
        for _ in range(len(under_way) if most is None else min(most, len(under_way))):
            try:
                results: list[StreamResult] | Exception = lane.collect()
            except Exception as error:
                results = error
            self._hand(under_way.popleft(), results)

    def _hand(self, number: int, results: list[StreamResult] | Exception) -> None:
        with self._changed:
            self._ready[number] = results
            self._changed.notify_all()

    def _next(self, *, wait: bool) -> tuple[int, list[Captured]] | None:
        """The number of a batch and its frames; None when there are no more.

        Without ``wait`` also no frames, where none may be taken yet.
        """
        # Numbers are given in the order in which frames are taken.
        if not self._taking.acquire(blocking=wait):
            return 0, []
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._may_take, None if wait else 0)
                    if self._closed:
                        return None
                    if not self._may_take():
                        return 0, []
                over = self._over()  # asked before, so that no frame can come in between
                frames = self._intake.take(self._most, _TICK_S if wait and not over else 0)
                if frames:
                    self._taken += 1
                    return self._taken - 1, frames
                if over:
                    return None
                if not wait:
                    return 0, []
        finally:
            self._taking.release()

    def _may_take(self) -> bool:
        busy = sum(lane.depth - 1 for lane in self._lanes)
        return self._closed or self._taken - self._handed < self._ahead + busy
