"""What every sink is: it takes results, one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeseg.stream.reader import State
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.health import SinkReport


class StopStream(Exception):
    """Raised by a sink whose user wants no more: a closed window, a closed pipe."""


class Source(Protocol):
    """What a sink may ask of a source while the stream runs, from any thread.

    Attributes:
        index: Its number in the stream, from 0: ``StreamResult.camera``.
        label: What it is, passwords masked.
        live: A camera: its pictures are of the moment, and its end is a loss.
        realtime: Frames may be missing between two results.
        fps: Frames a second that it states, None where it does not.
        declared: How many frames a file or folder states to hold, None where it does not.
        state: Where it stands: ``starting``, ``ok``, ``stalled``, ``reconnecting``, ``ended``
            or ``failed``.
        taken: Frames that were segmented.
        dropped: Frames that gave way to a newer one.
        bad_frames: Frames that it declared and that could not be read.
        reconnects: How often frames came again after a loss.
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

    @property
    def state(self) -> State: ...  # noqa: D102 - the class says it

    @property
    def dropped(self) -> int: ...  # noqa: D102 - the class says it


@dataclass(frozen=True)
class Company:
    """What a sink may know of the stream that it is in.

    Attributes:
        patient: What cannot be opened yet is waited for.
        reports: How all outputs stand; may be called from any thread.
    """

    patient: bool = False
    reports: Callable[[], Sequence[SinkReport]] = tuple


class Sink(ABC):
    """Takes results. What ``open`` raises ends the run; after an error of ``write`` see ``retry``.

    All methods are called in the thread that runs the stream. ``str(sink)`` names it in logs.

    Attributes:
        shows_overlay: It asks results for their overlay, which is then drawn before ``write``
            and timed as ``postprocess``.
        essential: Without it the run is of no use: what its ``write`` raises ends the run too.
        retry: After ``write`` or ``idle`` raised: ``never`` closes the sink for good, ``later``
            closes it and opens it again after a while, ``next`` hands it the next result.
        supervised: It looks after that by itself, and tells by :meth:`reports`.
    """

    shows_overlay: bool = False
    essential: bool = False
    retry: Literal["never", "later", "next"] = "never"
    supervised: bool = False

    def prepare(self, company: Company) -> None:  # noqa: B027 - may be left out
        """Called once before ``open``."""

    def open(self, sources: Sequence[Source]) -> None:  # noqa: B027 - may be left out
        """Called once before the first result."""

    @abstractmethod
    def write(self, result: StreamResult) -> None:
        """Called for each result; must leave its arrays unchanged.

        Raises:
            StopStream: The stream shall end.
            Exception: As ``retry`` says; the stream and the others go on.
        """

    def idle(self) -> None:  # noqa: B027 - may be left out
        """Called about ten times a second while no result comes; raises as ``write`` does."""

    def close(self) -> None:  # noqa: B027 - may be left out
        """Called once at the end, or after ``write`` raised."""

    def reports(self) -> Sequence[SinkReport]:
        """How the outputs within it stand, where it knows; may be called from any thread."""
        return ()
