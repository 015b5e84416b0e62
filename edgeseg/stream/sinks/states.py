"""Detect changes in the states of sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeseg.stream.reader import State
from edgeseg.stream.sinks.base import SourceStatus


@dataclass(frozen=True)
class StateChange:
    """A change in the state of a source."""

    source: SourceStatus
    before: State
    now: State


class StateChanges:
    """Compares the states of sources with those of the last time.

    A state that came and went between two looks is not seen.
    """

    def __init__(self, sources: Sequence[SourceStatus]) -> None:
        self._sources = sources
        self._before: list[State] = ["starting"] * len(sources)

    def poll(self) -> Iterator[StateChange]:
        """Yield the changes since the last call."""
        for place, source in enumerate(self._sources):
            before, now = self._before[place], source.state
            if now != before:
                self._before[place] = now
                yield StateChange(source, before, now)
