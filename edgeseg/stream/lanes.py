"""Run several lanes in parallel threads and return their results in frame order.

A single lane in the caller's thread adds no waiting and suits a live camera. Lanes in their own
threads run while the caller draws and writes earlier results: more frames per second, at a
higher latency.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from edgeseg.stream.lane import Lane
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Captured, Intake

_TICK_S = 0.1
"""Longest delay, in seconds, before the end is noticed while no frames arrive."""


class Lanes:
    """Lanes in their own threads; results are returned in the order frames were taken.

    Args:
        lanes: Lanes to run; they must not share state.
        intake: Queue from which lanes take frames.
        over: Function that returns True once no more frames will arrive.
        most: Maximum number of frames per batch.
        ahead: Maximum number of batches in flight or waiting for the caller, besides those that
            keep a GPU busy. Higher values increase latency but not throughput.
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
        """Return the next batch of results; empty if none arrives within ``timeout`` seconds.

        Raises:
            InferenceError: The engine failed on this batch.
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
        """Whether the results of all frames taken so far have been returned."""
        return self._handed == self._taken

    @property
    def done(self) -> bool:
        """Whether no more results will arrive."""
        return not any(thread.is_alive() for thread in self._threads) and self.idle

    def close(self) -> None:
        """Stop taking frames and wait for running inferences."""
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
            # Submit another batch, if there is one, before collecting the first from a GPU.
            if not frames or len(under_way) >= lane.depth:
                self._give(lane, under_way, most=1)

    def _give(self, lane: Lane, under_way: deque[int], most: int | None = None) -> None:
        """Hand out results of the oldest batches in flight: all of them, or at most ``most``."""
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
        """Return the number and frames of the next batch; None when there are no more.

        Without ``wait`` the list of frames is empty if none may be taken yet.
        """
        # Batches are numbered in the order in which frames are taken.
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
