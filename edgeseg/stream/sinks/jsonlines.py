"""What was seen in each frame, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from edgeseg.errors import UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source, StopStream


class JsonLines(Sink):
    """A line of JSON a frame: areas of the classes and where the time went.

    Keys: ``frame`` (number in the source), ``source``, ``captured_at`` (monotonic seconds),
    ``age_ms``, ``width``, ``height``, ``areas_px`` (pixels of each class at frame size),
    ``stages_ms``.

    Args:
        target: A path, which is overwritten, or an open text stream, which stays open.
    """

    def __init__(self, target: Path | TextIO) -> None:
        self._target = target
        self._stream: TextIO | None = None

    def __str__(self) -> str:
        name = self._target if isinstance(self._target, Path) else "the output"
        return f"the JSON lines to {name}"

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002 - the sink protocol's
        """Raises UsageError if the file cannot be made."""
        if not isinstance(self._target, Path):
            self._stream = self._target
            return
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._target.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"cannot write {self._target}: {error.strerror}", mend="choose another folder"
            ) from error

    def write(self, result: StreamResult) -> None:
        """Raises StopStream when nobody reads the pipe any more."""
        assert self._stream is not None
        try:
            self._stream.write(json.dumps(describe(result)) + "\n")
            self._stream.flush()
        except BrokenPipeError as error:
            raise StopStream from error

    def close(self) -> None:
        """Close the file, unless it was given open."""
        if self._stream is not None and self._stream is not self._target:
            self._stream.close()


def describe(result: StreamResult) -> dict[str, Any]:
    """What :class:`JsonLines` writes of a result."""
    return {
        "frame": result.index,
        "source": result.source,
        "captured_at": result.captured_at,
        "age_ms": round(result.age_ms, 3),
        "width": result.frame.shape[1],
        "height": result.frame.shape[0],
        "areas_px": dict(zip(result.classes.names, result.areas().tolist(), strict=True)),
        "stages_ms": {name: round(value, 3) for name, value in result.stages_ms.items()},
    }
