"""Base class of sinks, which receive the results of a stream, and the states of sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeseg.sources.packets import PacketTap
from edgeseg.stream.result import State, StreamResult
from edgeseg.stream.sinks.health import SinkReport


class StopStream(Exception):
    """Raised by a sink to end the stream, for example when its window or pipe was closed."""


class SourceStatus(Protocol):
    """Status of a source, which sinks may read from any thread while the stream runs.

    Attributes:
        index: Number of the source in the stream, from 0, as in ``StreamResult.camera``.
        label: Name of the source, passwords masked.
        live: Whether the source is a camera, whose end counts as a lost connection.
        realtime: Whether frames may be missing between two results.
        fps: Declared frames per second; None if unknown.
        declared: Declared number of frames in a file or folder; None if unknown.
        state: Current state: ``starting``, ``ok``, ``stalled``, ``reconnecting``, ``ended`` or
            ``failed``.
        taken: Number of segmented frames.
        dropped: Number of frames dropped in favour of a newer one.
        bad_frames: Number of frames that could not be read.
        reconnects: Number of successful reconnections.
        packets: Compressed packets of a network camera, before they are decoded; None if
            anything must be obscured. Whoever writes them writes what the camera shows.
    """

    index: int
    label: str
    live: bool
    realtime: bool
    fps: float | None
    declared: int | None
    taken: int
    bad_frames: int
    reconnects: int
    packets: PacketTap | None

    @property
    def state(self) -> State: ...  # noqa: D102 - the class says it

    @property
    def dropped(self) -> int: ...  # noqa: D102 - the class says it


@dataclass(frozen=True)
class SinkContext:
    """Information about the stream that a sink belongs to.

    Attributes:
        patient: Whether outputs that cannot be opened yet are retried.
        reports: Function that returns the status of all outputs; callable from any thread.
    """

    patient: bool = False
    reports: Callable[[], Sequence[SinkReport]] = tuple


class Sink(ABC):
    """Base class of outputs that receive results.

    An exception from ``open`` ends the run; ``retry`` decides what follows one from ``write``.
    All methods but :meth:`reports` are called in the thread that runs the stream. ``str(sink)``
    is its name in logs.

    Attributes:
        shows_overlay: Whether the sink uses overlays, which are then drawn before ``write``
            and timed as ``postprocess``.
        essential: Whether an exception from ``write`` ends the run.
        retry: What to do after ``write`` or ``idle`` raised: ``never`` closes the sink for good,
            ``later`` closes it and reopens it after a delay, ``next`` passes it the next result.
        supervised: Whether the sink handles its errors itself and reports them by
            :meth:`reports`.
        close_s: Seconds for which the end of the stream waits for a single ``write``.
        context: Information about the stream, as given to :meth:`prepare`.
    """

    shows_overlay: bool = False
    essential: bool = False
    retry: Literal["never", "later", "next"] = "never"
    supervised: bool = False
    close_s: float = 5.0
    context: SinkContext = SinkContext()

    def prepare(self, context: SinkContext) -> None:
        """Called once before ``open``."""
        self.context = context

    def open(self, sources: Sequence[SourceStatus]) -> None:  # noqa: B027 - may be left out
        """Called once before the first result."""

    @abstractmethod
    def write(self, result: StreamResult) -> None:
        """Called for each result; must not modify its arrays.

        Raises:
            StopStream: To end the stream.
            Exception: On failure; handled according to ``retry`` while other sinks continue.
        """

    def idle(self) -> None:  # noqa: B027 - may be left out
        """Called about ten times per second while no result arrives; may raise like ``write``."""

    def close(self) -> None:  # noqa: B027 - may be left out
        """Called once at the end, or after ``write`` raised."""

    def reports(self) -> Sequence[SinkReport]:
        """Return the status of the outputs within it, if known; callable from any thread."""
        return ()


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
