"""A text file or stream of JSON documents, one a line, and the time stamps in them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from edgeseg.errors import UsageError


class Lines:
    """Writes JSON documents, each at once, so that others can follow the file.

    Args:
        target: A path, which is overwritten, or an open text stream, which stays open.
    """

    def __init__(self, target: Path | TextIO) -> None:
        self._target = target
        self._stream: TextIO | None = None

    def __str__(self) -> str:
        return str(self._target) if isinstance(self._target, Path) else "the output"

    def open(self) -> None:
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

    def write(self, document: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            BrokenPipeError: Nobody reads the pipe any more.
            OSError: The disk is full.
        """
        assert self._stream is not None
        self._stream.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file, unless it was given open."""
        if self._stream is not None and self._stream is not self._target:
            self._stream.close()
        self._stream = None


def time_stamp(at: float) -> str:
    """A moment of the monotonic clock as date and time: ISO 8601, UTC, milliseconds.

    For comparing with what other machines logged; durations are differences of ``at``.
    """
    wall = time.time() - (time.monotonic() - at)
    stamp = datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
