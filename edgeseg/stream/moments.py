"""When a frame was taken, on the clock of the scene that it shows."""

from __future__ import annotations

from typing import Protocol

from edgeseg.stream.result import StreamResult

_USUAL_FPS = 25.0


class Clocked(Protocol):
    """What of a source determines the time of its frames."""

    live: bool
    realtime: bool
    fps: float | None


def moment(source: Clocked, result: StreamResult) -> float:
    """Return the time of a source's result in seconds; compare it with the same source's only.

    It is the frame's time in a video, the monotonic clock for a camera, and for pictures that are
    read as fast as possible their number over the frame rate, 25 unless the source declares one.
    """
    if result.media_time is not None and not source.live:
        return result.media_time
    if source.live or source.realtime:
        return result.captured_at
    return result.index / (source.fps or _USUAL_FPS)
