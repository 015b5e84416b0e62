"""Detect changes in the states of sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeseg.stream.reader import State
from edgeseg.stream.sinks.base import Source


@dataclass(frozen=True)
class Change:
    """A change in the state of a source."""

    source: Source
    before: State
    now: State


class StateChanges:
    """Compares the states of sources with those of the last time.

    A state that came and went between two looks is not seen.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._before: list[State] = ["starting"] * len(sources)

    def look(self) -> Iterator[Change]:
        """Yield the changes since the last call."""
        for place, source in enumerate(self._sources):
            before, now = self._before[place], source.state
            if now != before:
                self._before[place] = now
                yield Change(source, before, now)
