"""A sink in a thread of its own, so that a slow disk or encoder holds nobody up."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source

_log = logging.getLogger(__name__)

_TICK_S = 0.1
"""How often a wait looks whether the thread still takes anything."""

_CLOSE_S = 5.0
"""How long closing waits for one result to be written before the sink counts as stuck."""


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
        self.essential = sink.essential
        self.skipped = 0
        self._written = 0
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
        """Let the sink write what waits, then close it.

        A sink that sits in one ``write`` for longer than five seconds is left there, unclosed:
        closing it under its own thread may crash, and its thread does not hold the process.
        """
        if self._thread.ident is not None and not self._finish():
            _log.error(
                "%s is stuck and is left as it is: it took no frame for %g s", self, _CLOSE_S
            )
            return
        self._sink.close()
        if self.skipped:
            _log.warning("%s was too slow for %d frames, which it left out", self, self.skipped)

    def _finish(self) -> bool:
        """Whether the thread ended; it may take as long as it likes while it gets on."""
        told = False
        written, since = self._written, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < _CLOSE_S:
            if not told:
                with contextlib.suppress(queue.Full):
                    self._waiting.put_nowait(None)
                    told = True
            self._thread.join(_TICK_S)
            if self._written != written:
                written, since = self._written, time.monotonic()
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (result := self._waiting.get()) is not None:
            try:
                self._sink.write(result)
                self._written += 1
            except Exception as error:
                self._error = error
                return
