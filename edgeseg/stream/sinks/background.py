"""Run a sink in its own thread, so that a slow disk or encoder does not delay the stream."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SinkContext, SourceStatus
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.supervised import Supervised

logger = logging.getLogger(__name__)

_TICK_S = 0.1
"""How often a wait looks whether the thread still takes anything."""

_STUCK_S = 5.0
"""How long one result may take to be written before the sink counts as failed."""


class Background(Sink):
    """Passes results to ``sink`` in another thread through a short queue.

    If the queue is full, ``write`` blocks when every frame is processed. For realtime sources it
    skips the result for this sink instead; skipped results are counted and logged once at the
    end. A sink that fails is retried in its thread; an exception that ends the stream is raised
    at the next ``write`` or ``idle``.

    Args:
        sink: Its methods are called in the other thread, except the first ``open`` and ``close``.
        places: Results that may wait; each holds its frame.
        may_skip: Skip results even if every frame is processed.
    """

    supervised = True

    def __init__(self, sink: Sink, places: int = 4, *, may_skip: bool = False) -> None:
        self.essential = sink.essential
        self.close_s = sink.close_s
        self.skipped = 0
        self._written = 0
        self._sink = sink if sink.supervised else Supervised(sink)
        self._busy_since: float | None = None
        self._waiting: queue.Queue[StreamResult | None] = queue.Queue(places)
        self._thread = threading.Thread(target=self._run, name=f"{sink}", daemon=True)
        self._error: Exception | None = None
        self._always_skips = may_skip
        self._may_skip: dict[int, bool] = {}
        self._ending = threading.Lock()
        self._abandoned = self._ended = False

    def __str__(self) -> str:
        return str(self._sink)

    @property
    def shows_overlay(self) -> bool:  # type: ignore[override]  # as the sink stands now
        """As of the sink."""
        return self._sink.shows_overlay

    def prepare(self, context: SinkContext) -> None:
        """Pass it on."""
        self._sink.prepare(context)

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """As the sink's, in the caller's thread."""
        self._may_skip = {source.index: source.realtime or self._always_skips for source in sources}
        self._sink.open(sources)
        self._thread.start()

    def write(self, result: StreamResult) -> None:
        """Queue a result for the thread; raises the exception that ends the stream."""
        while True:
            self.idle()
            try:
                self._waiting.put(result, timeout=0 if self._may_skip[result.camera] else _TICK_S)
                return
            except queue.Full:
                if self._may_skip[result.camera]:
                    self.skipped += 1
                    return

    def idle(self) -> None:
        """Raise the exception that ends the stream, if there is one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let the sink write what waits, then close it.

        A sink that sits in one ``write`` for longer than its ``close_s`` is left there: closing it
        under its own thread may crash. Its thread closes it, unless the process ends first.
        """
        if self._thread.ident is not None and not self._finish():
            with self._ending:
                self._abandoned = not self._ended
            if self._abandoned:
                logger.error(
                    "%s is stuck and is abandoned: it accepted no frame for %g s",
                    *(self, self.close_s),
                )
                return
        self._sink.close()
        if self.skipped:
            logger.warning("%s was too slow and skipped %d frames", self, self.skipped)

    def reports(self) -> Sequence[SinkReport]:
        """As the sink's; one that sits in a single result for five seconds has failed."""
        reports = [replace(each, skipped=self.skipped) for each in self._sink.reports()]
        since = self._busy_since
        if since is not None and (self._abandoned or time.monotonic() - since > _STUCK_S):
            stuck = f"it took no frame for {time.monotonic() - since:.0f} s"
            return [replace(each, state="failed", error=stuck) for each in reports]
        return reports

    def _finish(self) -> bool:
        """Whether the thread ended; it may take as long as it likes while it gets on."""
        asked = False
        written, since = self._written, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < self.close_s:
            if not asked:
                with contextlib.suppress(queue.Full):
                    self._waiting.put_nowait(None)
                    asked = True
            self._thread.join(_TICK_S)
            if self._written != written:
                written, since = self._written, time.monotonic()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._abandoned:
                try:
                    result = self._waiting.get(timeout=_TICK_S)
                except queue.Empty:
                    self._sink.idle()
                    continue
                if result is None:
                    break
                self._busy_since = time.monotonic()
                self._sink.write(result)
                self._busy_since = None
                self._written += 1
        except Exception as error:
            self._error = error
        with self._ending:
            self._ended = True
        if self._abandoned:
            self._sink.close()
