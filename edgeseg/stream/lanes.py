"""From captured frames to results: one engine, or several side by side.

One lane in the caller's thread costs a frame no waiting: the mode for a live camera. Lanes in
threads of their own run while the caller draws and writes the results before: more frames a
second, and older ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from edgeseg.engines.base import Engine
from edgeseg.ops.preprocess import preprocess
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Captured, Intake
from edgeseg.stream.view import View

_TICK_S = 0.1
"""How long an end may go unnoticed while no frame comes."""


class Lane:
    """An engine and the buffer that its pictures are written to.

    Args:
        engine: Used by one thread at a time.
        labels: Of the sources, by their number.
        view: How overlays look.
        most: Pictures that go through in one batch at most. An engine of fixed batches takes
            its own number, the rest of which is left as it was before.
    """

    def __init__(self, engine: Engine, labels: Sequence[str], view: View, most: int) -> None:
        self._engine = engine
        self._labels = labels
        self._view = view
        self._tensor = np.zeros((engine.batch or most, *engine.card.input.shape), np.float32)

    def warm_up(self) -> None:
        """Let the engine run before its first frame."""
        self._engine.warm_up()

    def segment(self, frames: Sequence[Captured]) -> list[StreamResult]:
        """The results of one batch, at most ``most`` frames.

        Raises:
            InferenceError: The engine failed.
        """
        start = time.perf_counter()
        for place, captured in enumerate(frames):
            preprocess(captured.frame, self._engine.card.input, self._tensor[place])
        ready = time.perf_counter()
        used = self._tensor if self._engine.batch else self._tensor[: len(frames)]
        maps = self._engine.infer(used)
        end = time.perf_counter()
        took = {"preprocess": (ready - start) * 1000, "infer": (end - ready) * 1000}
        now = time.monotonic()
        return [
            StreamResult(
                index=captured.index,
                source=self._labels[captured.camera],
                frame=captured.frame,
                labels=maps[place].copy(),  # the buffer is the engine's again at the next call
                captured_at=captured.captured_at,
                age_ms=(now - captured.captured_at) * 1000,
                stages_ms={"capture": captured.capture_ms, **took},
                classes=self._engine.card.classes,
                input=self._engine.card.input,
                view=self._view,
                camera=captured.camera,
                name=captured.name,
            )
            for place, captured in enumerate(frames)
        ]


class Lanes:
    """Lanes in threads of their own; results come in the order in which frames were taken.

    Args:
        lanes: They share nothing.
        intake: Where they take frames.
        over: Whether no frame will ever come again.
        most: Frames a batch.
        ahead: Batches that may be under way or wait for the caller. More of them make results
            older, not more.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        intake: Intake,
        over: Callable[[], bool],
        most: int,
        ahead: int,
    ) -> None:
        self._intake, self._over = intake, over
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
        while (batch := self._next()) is not None:
            number, frames = batch
            try:
                results: list[StreamResult] | Exception = lane.segment(frames)
            except Exception as error:
                results = error
            with self._changed:
                self._ready[number] = results
                self._changed.notify_all()

    def _next(self) -> tuple[int, list[Captured]] | None:
        """The number of a batch and its frames; None when there are no more."""
        with self._taking:  # numbers are given in the order in which frames are taken
            while True:
                with self._changed:
                    self._changed.wait_for(self._may_take)
                    if self._closed:
                        return None
                over = self._over()  # asked before, so that no frame can come in between
                frames = self._intake.take(self._most, 0 if over else _TICK_S)
                if frames:
                    self._taken += 1
                    return self._taken - 1, frames
                if over:
                    return None

    def _may_take(self) -> bool:
        return self._closed or self._taken - self._handed < self._ahead
