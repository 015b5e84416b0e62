"""Sinks around other sinks: retried when they fail, one for each source, in their own thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from edgeseg.artifacts.documents import plural
from edgeseg.errors import OutputError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SinkContext, SourceStatus, StopStream
from edgeseg.stream.sinks.health import Health, SinkReport, why

logger = logging.getLogger(__name__)


class Supervised(Sink):
    """Wraps a sink and handles its errors according to ``Sink.retry``.

    Only exceptions that must end the stream are raised.

    Args:
        sink: Sink to wrap; its methods are called in the caller's thread.
    """

    supervised = True

    def __init__(self, sink: Sink) -> None:
        self.essential = sink.essential
        self._sink = sink
        self._sources: Sequence[SourceStatus] = ()
        self._open = False
        self._health = Health(
            str(sink),
            type(sink).__name__,
            final=sink.retry == "never",
            patient=sink.retry != "next",
        )

    def __str__(self) -> str:
        return str(self._sink)

    @property
    def shows_overlay(self) -> bool:  # type: ignore[override]  # the sink may change its mind
        """As the sink's, while it works."""
        return self._sink.shows_overlay and (self._open or not self._health.failed)

    def prepare(self, context: SinkContext) -> None:
        """Pass it on."""
        super().prepare(context)
        self._sink.prepare(context)

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Open the sink; on OutputError retry later if the stream and the sink allow it.

        Raises:
            OutputError: The sink cannot be opened now, and the stream is not persistent or the
                sink's ``retry`` is ``never``.
            Exception: Any other error of the sink.
        """
        self._sources = sources
        try:
            self._sink.open(sources)
        except OutputError as error:
            if not self.context.patient or self._sink.retry == "never":
                raise
            self._health.fails(error, lost=0)
        else:
            self._open = True

    def write(self, result: StreamResult) -> None:
        """Write a result; raises StopStream, and any error of an essential sink."""
        if not self._ready():
            self._health.loses()
        elif self._try(lambda: self._sink.write(result), lost=1):
            self._health.works()

    def idle(self) -> None:
        """Retry a failed sink when due; raises as :meth:`write`."""
        if self._ready():
            self._try(self._sink.idle, lost=0)

    def close(self) -> None:
        """Close the sink; errors are logged."""
        if self._open:
            self._close(logging.ERROR)

    def reports(self) -> Sequence[SinkReport]:
        """Of itself and of what the sink tells of its own outputs."""
        return (self._health.report(), *self._sink.reports())

    def _ready(self) -> bool:
        """Whether the sink is open; opens it again where it is time."""
        if self._open:
            return True
        if not self._health.due:
            return False
        try:
            self._sink.open(self._sources)
        except Exception as error:
            self._health.fails(error, lost=0)
            return False
        self._open = True
        return True

    def _try(self, what: Callable[[], None], *, lost: int) -> bool:
        try:
            what()
        except StopStream:
            raise
        except Exception as error:
            if self.essential:
                raise
            self._health.fails(error, lost=lost)
            if self._sink.retry != "next":
                self._close(logging.DEBUG)  # a second error is no news
            return False
        return True

    def _close(self, level: int) -> None:
        self._open = False
        try:
            self._sink.close()
        except Exception as error:
            logger.log(level, "%s could not be closed: %s", self, why(error))


def supervised(sink: Sink) -> Sink:
    """Return a sink that handles its errors: the sink itself, or a :class:`Supervised` one."""
    return sink if sink.supervised else Supervised(sink)


class Each(Sink):
    """Passes the results of each source to its own sink, such as one recording per camera.

    A sink that fails is retried separately while the others continue.

    Args:
        make: Function that creates the sink of a source; called when the stream opens.
        name: Name of the group in logs.
        shows_overlay: Whether the created sinks use overlays.
    """

    supervised = True

    def __init__(
        self, make: Callable[[SourceStatus], Sink], name: str, *, shows_overlay: bool = False
    ) -> None:
        self.shows_overlay = shows_overlay
        self._make = make
        self._name = name
        self._sinks: dict[int, Sink] = {}

    def __str__(self) -> str:
        return self._name

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Create and open all sinks; if one raises, close those already open."""
        try:
            for source in sources:
                sink = supervised(self._make(source))
                sink.prepare(self.context)
                sink.open((source,))
                self._sinks[source.index] = sink
        except BaseException:
            self.close()
            raise

    def write(self, result: StreamResult) -> None:
        """Raises StopStream."""
        self._sinks[result.camera].write(result)

    def idle(self) -> None:
        """Call ``idle`` of each sink."""
        for sink in self._sinks.values():
            sink.idle()

    def close(self) -> None:
        """Close all sinks, none after another that waits for something."""
        with ThreadPoolExecutor(max(1, len(self._sinks))) as closing:
            for sink in self._sinks.values():
                closing.submit(sink.close)

    def reports(self) -> Sequence[SinkReport]:
        """Return the reports of all sinks."""
        return [report for sink in tuple(self._sinks.values()) for report in sink.reports()]


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
        self._sink = supervised(sink)
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
            logger.warning("%s was too slow and skipped %s", self, plural(self.skipped, "frame"))

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
