"""Turn captured frames into results: an engine is a lane, and several run in parallel.

A single lane in the caller's thread adds no waiting and suits a live camera. Lanes in their own
threads run while the caller draws and writes earlier results: more frames per second, at a
higher latency.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.engines.base import Engine
from edgeseg.engines.pipeline import FramePipeline
from edgeseg.engines.tiles import TiledPipeline, tiled_card
from edgeseg.errors import DeviceError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Intake
from edgeseg.stream.view import View

logger = logging.getLogger(__name__)

_TICK_S = 0.1
"""Longest delay, in seconds, before the end is noticed while no frames arrive."""

_KEPT = 1000
"""Completions kept for measuring; of more lanes than that, the latest."""


class Lane:
    """An engine with its pipeline; used by one thread at a time.

    Args:
        engine: Engine to run; the lane does not close it.
        prepare: Function that changes a captured frame before the engine sees it.
        tiled: Its pipeline if frames are cut into tiles; None for ``engine.open_pipeline``.

    Attributes:
        overlays: Draw overlays on a GPU, together with the labels. On the processor they are
            drawn later, by whoever uses them.
    """

    def __init__(
        self,
        engine: Engine,
        view: View,
        prepare: Callable[[StreamResult], None],
        tiled: TiledPipeline | None = None,
    ) -> None:
        self.engine = engine
        self._prepare = prepare
        self._view = view
        self._look = view.look(engine.card.classes)
        self._tiled = tiled is not None
        self._pipeline: FramePipeline | None = tiled
        self._in_flight: deque[list[StreamResult]] = deque()
        self.overlays = False

    def warm_up(self) -> None:
        """Run the engine once before the first frame."""
        self.engine.warm_up()

    @property
    def on_gpu(self) -> bool:
        """Whether whole frames stay on a GPU; False until the first frame."""
        return self._pipeline is not None and self._pipeline.on_gpu

    @property
    def depth(self) -> int:
        """Number of batches to submit before collecting the first, to keep a GPU busy."""
        return 1 if self._pipeline is None else self._pipeline.depth

    def submit(self, frames: list[StreamResult]) -> None:
        """Start a batch; fewer than ``depth`` may be in flight.

        Raises:
            InferenceError: The engine failed.
        """
        if self._pipeline is None:
            self._pipeline = self.engine.open_pipeline()
        for frame in frames:
            self._prepare(frame)
        look = self._look if self.overlays and self._pipeline.on_gpu else None
        self._pipeline.submit([frame.frame for frame in frames], look)
        self._in_flight.append(frames)

    def collect(self) -> list[StreamResult]:
        """Wait for the oldest batch in flight and return its frames, segmented.

        Raises:
            InferenceError: The engine failed.
        """
        assert self._pipeline is not None
        frames = self._in_flight.popleft()
        batch = self._pipeline.collect()
        now = time.monotonic()
        for place, frame in enumerate(frames):
            frame.labels = batch.labels[place]
            frame.shown = batch.painted[place] if batch.painted is not None else None
            frame.stages_ms |= batch.stages_ms
            frame.age_ms = (now - frame.captured_at) * 1000
            card = self.engine.card
            frame.card = tiled_card(card, frame.frame) if self._tiled else card
            frame.view = self._view
        return frames

    def close(self) -> None:
        """Free GPU resources and discard batches in flight."""
        self._in_flight.clear()
        if self._pipeline is not None:
            try:
                self._pipeline.close()
            except DeviceError as error:  # must not hide why the stream ends
                logger.warning("the GPU does not take its memory back: %s", error)


@dataclass(frozen=True)
class Completion:
    """A batch that a lane finished at ``time``, in seconds of the monotonic clock."""

    lane: Lane
    time: float
    frames: int


class Lanes:
    """Lanes in their own threads; results are returned in the order frames were taken.

    As many batches are in flight or wait for the caller as keep the lanes busy, and one more:
    others would increase latency but not throughput.

    Args:
        lanes: Lanes to run first; they must not share state.
        intake: Queue from which lanes take frames.
        no_more: Function that returns True once no more frames will arrive.
        max_batch: Maximum number of frames per batch.

    Attributes:
        completions: Batches finished so far; whoever measures removes them.
    """

    def __init__(
        self, lanes: Sequence[Lane], intake: Intake, no_more: Callable[[], bool], max_batch: int
    ) -> None:
        self._intake, self._no_more, self._max_batch = intake, no_more, max_batch
        self._lanes = tuple(lanes)
        self.completions: deque[Completion] = deque(maxlen=_KEPT)
        self._taker: Lane | None = None
        self._changed = threading.Condition()
        self._ready: dict[int, list[StreamResult] | Exception] = {}
        self._taken = self._delivered = 0
        self._closed = self._ended = False
        self._threads: dict[Lane, threading.Thread] = {}

    def use(self, lanes: Sequence[Lane]) -> None:
        """Let these lanes take the frames from here on; others finish what they have taken."""
        if self._lanes != tuple(lanes):
            with self._changed:
                self._lanes = tuple(lanes)
                self._changed.notify_all()
            self.start()

    def start(self) -> None:
        """Start the threads of the lanes in use."""
        for lane in self._lanes:
            if lane not in self._threads:
                name = f"edgeseg lane {len(self._threads)}"
                self._threads[lane] = threading.Thread(target=self._run, args=(lane,), name=name)
                self._threads[lane].start()

    def remove(self, lanes: Sequence[Lane]) -> None:
        """End the threads of lanes that are not in use, after what they have taken."""
        threads = [self._threads.pop(lane) for lane in lanes if lane in self._threads]
        with self._changed:
            self._changed.notify_all()
        for thread in threads:
            thread.join()

    def take(self, timeout: float) -> list[StreamResult]:
        """Return the next batch of results; empty if none arrives within ``timeout`` seconds.

        Raises:
            InferenceError: The engine failed on this batch.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._delivered in self._ready, timeout)
            results = self._ready.pop(self._delivered, [])
            if isinstance(results, Exception):
                raise results
            if results:
                self._delivered += 1
                self._changed.notify_all()
            return results

    @property
    def idle(self) -> bool:
        """Whether the results of all frames taken so far have been returned."""
        return self._delivered == self._taken

    @property
    def done(self) -> bool:
        """Whether no more results will arrive."""
        return self.idle and (self._ended or self._closed)

    def close(self) -> None:
        """Stop taking frames and wait for running inferences."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads.values():
            thread.join()

    def _run(self, lane: Lane) -> None:
        in_flight: deque[int] = deque()
        more = True
        while more or in_flight:
            batch = self._next(lane, wait=not in_flight) if more else None
            more = batch is not None
            number, frames = batch or (0, [])
            if frames:
                try:
                    lane.submit(frames)
                except Exception as error:
                    self._collect(lane, in_flight, len(in_flight))
                    self._deliver(lane, number, error)
                else:
                    in_flight.append(number)
            # Submit another batch, if there is one, before collecting the first from a GPU.
            if in_flight and (not frames or len(in_flight) >= lane.depth):
                self._collect(lane, in_flight, 1)

    def _collect(self, lane: Lane, in_flight: deque[int], count: int) -> None:
        """Deliver the results of the oldest ``count`` batches in flight."""
        for _ in range(count):
            try:
                results: list[StreamResult] | Exception = lane.collect()
            except Exception as error:
                results = error
            self._deliver(lane, in_flight.popleft(), results)

    def _deliver(self, lane: Lane, number: int, results: list[StreamResult] | Exception) -> None:
        with self._changed:
            self._ready[number] = results
            if not isinstance(results, Exception):
                self.completions.append(Completion(lane, time.monotonic(), len(results)))
            self._changed.notify_all()

    def _next(self, lane: Lane, *, wait: bool) -> tuple[int, list[StreamResult]] | None:
        """Return the number and frames of the lane's next batch; None when there are no more.

        The list of frames is empty if there are none yet, or without ``wait`` if none may be
        taken.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._over(lane) or self._may_take(lane), None if wait else 0
            )
            if self._over(lane):
                return None
            if not self._may_take(lane):
                return 0, []
            self._taker = lane  # alone: batches are numbered in the order frames are taken
            number = self._taken
        frames: list[StreamResult] = []
        ended = False
        try:
            ended = self._no_more()  # asked before, so that no frame can come in between
            frames = self._intake.take(self._max_batch, _TICK_S if wait and not ended else 0)
        finally:
            with self._changed:
                self._taker = None
                self._taken += bool(frames)
                self._ended |= ended and not frames
                self._changed.notify_all()
        return (number, frames) if frames or not ended else None

    def _over(self, lane: Lane) -> bool:
        """Whether a lane takes no more frames."""
        return self._closed or self._ended or lane not in self._threads

    def _may_take(self, lane: Lane) -> bool:
        busy = sum(each.depth for each in self._lanes)
        return self._taker is None and lane in self._lanes and self._taken - self._delivered <= busy
