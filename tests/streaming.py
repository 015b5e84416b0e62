"""Parts of a stream that stand still, for tests of what comes after them."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.stream.reader import State


@dataclass
class StillSource:
    """A source as sinks see it, whose values are what the test says."""

    label: str = "camera:0"
    fps: float | None = 25.0
    realtime: bool = True
    index: int = 0
    state: State = "ok"
    taken: int = 0
    dropped: int = 0
    bad_frames: int = 0
    reconnects: int = 0
