"""A sink in a thread of its own, so that a slow disk or encoder holds nobody up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source

_log = logging.getLogger(__name__)

_TICK_S = 0.1
"""How often a wait looks whether the thread still takes anything."""


class Background(Sink):
    """Hands results to ``sink`` in another thread, a few at most waiting.

    Where every frame counts, ``write`` waits for room. Where the newest counts, a result that
    finds none is left out for this sink, which is counted and said once at the end. What the
    sink raises is raised at the next ``write`` or ``idle``.

    Args:
        sink: Its methods are called in the other thread, except ``open`` and ``close``.
        places: Results that may wait; each holds its frame.
    """

    def __init__(self, sink: Sink, places: int = 4) -> None:
        self.shows_overlay = sink.shows_overlay
        self.skipped = 0
        self._sink = sink
        self._waiting: queue.Queue[StreamResult | None] = queue.Queue(places)
        self._thread = threading.Thread(target=self._run, name=f"{sink}", daemon=True)
        self._error: Exception | None = None
        self._may_skip: Sequence[bool] = ()

    def __str__(self) -> str:
        return str(self._sink)

    def open(self, sources: Sequence[Source]) -> None:
        """As the sink's, in the caller's thread."""
        self._may_skip = [source.realtime for source in sources]
        self._sink.open(sources)
        self._thread.start()

    def write(self, result: StreamResult) -> None:
        """Leave a result for the thread; raises what the sink raised before."""
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
        """Raises what the sink raised."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let the sink write what waits, then close it."""
        if self._thread.ident is not None:
            self._finish()
        self._sink.close()
        if self.skipped:
            _log.warning("%s was too slow for %d frames, which it left out", self, self.skipped)

    def _finish(self) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=_TICK_S)
                break
            except queue.Full:
                continue
        self._thread.join()

    def _run(self) -> None:
        while (result := self._waiting.get()) is not None:
            try:
                self._sink.write(result)
            except Exception as error:
                self._error = error
                return
