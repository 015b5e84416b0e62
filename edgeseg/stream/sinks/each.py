"""A sink that uses a separate sink for each source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.supervised import Supervised


class Each(Sink):
    """Passes the results of each source to its own sink, such as one recording per camera.

    A sink that fails is retried separately while the others go on.

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
                sink = self._make(source)
                sink = sink if sink.supervised else Supervised(sink)
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
