"""A sink of its own for each source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source


class Each(Sink):
    """Hands the results of each source to a sink of its own, such as a recording a camera.

    Args:
        make: Called with each source when the stream opens.
        name: What logs call the whole.
        shows_overlay: As the sinks that ``make`` makes.
    """

    def __init__(
        self, make: Callable[[Source], Sink], name: str, *, shows_overlay: bool = False
    ) -> None:
        self.shows_overlay = shows_overlay
        self._make = make
        self._name = name
        self._sinks: dict[int, Sink] = {}

    def __str__(self) -> str:
        return self._name

    def open(self, sources: Sequence[Source]) -> None:
        """Make and open all; those opened are closed where one raises."""
        try:
            for source in sources:
                sink = self._make(source)
                sink.open((source,))
                self._sinks[source.index] = sink
        except BaseException:
            self.close()
            raise

    def write(self, result: StreamResult) -> None:
        """Raises what the source's sink raises, which ends them all."""
        self._sinks[result.camera].write(result)

    def idle(self) -> None:
        """Pass it on."""
        for sink in self._sinks.values():
            sink.idle()

    def close(self) -> None:
        """Close all, though one raises."""
        with contextlib.ExitStack() as stack:
            for sink in self._sinks.values():
                stack.callback(sink.close)
            self._sinks = {}
