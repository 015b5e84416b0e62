"""Wrap a sink so that its failures are handled: it is closed, retried, and its status tracked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

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
            self._open = False
            try:
                self._sink.close()
            except Exception as error:
                logger.error("%s could not be closed: %s", self, why(error))

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
                self._abandon()
            return False
        return True

    def _abandon(self) -> None:
        """Close it after an error; a second one is no news."""
        self._open = False
        try:
            self._sink.close()
        except Exception as error:
            logger.debug("%s could not be closed: %s", self, why(error))
