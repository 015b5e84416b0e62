"""A sink of its own for each source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Company, Sink, Source
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.supervised import Supervised


class Each(Sink):
    """Hands the results of each source to a sink of its own, such as a recording a camera.

    One that fails is tried again by itself; the others go on.

    Args:
        make: Called with each source when the stream opens.
        name: What logs call the whole.
        shows_overlay: As the sinks that ``make`` makes.
    """

    supervised = True

    def __init__(
        self, make: Callable[[Source], Sink], name: str, *, shows_overlay: bool = False
    ) -> None:
        self.shows_overlay = shows_overlay
        self._make = make
        self._name = name
        self._company = Company()
        self._sinks: dict[int, Supervised] = {}

    def __str__(self) -> str:
        return self._name

    def prepare(self, company: Company) -> None:
        """Keep it for the sinks that are made."""
        self._company = company

    def open(self, sources: Sequence[Source]) -> None:
        """Make and open all; those opened are closed where one raises."""
        try:
            for source in sources:
                sink = Supervised(self._make(source))
                sink.prepare(self._company)
                sink.open((source,))
                self._sinks[source.index] = sink
        except BaseException:
            self.close()
            raise

    def write(self, result: StreamResult) -> None:
        """Raises StopStream."""
        self._sinks[result.camera].write(result)

    def idle(self) -> None:
        """Pass it on."""
        for sink in self._sinks.values():
            sink.idle()

    def close(self) -> None:
        """Close all."""
        for sink in self._sinks.values():
            sink.close()

    def reports(self) -> Sequence[SinkReport]:
        """One a source."""
        return [report for sink in tuple(self._sinks.values()) for report in sink.reports()]
