"""The file to which events of alerts are written, one line of JSON each."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from edgeseg.errors import EdgesegError
from edgeseg.stream.sinks.base import StopStream
from edgeseg.stream.sinks.health import Health
from edgeseg.stream.sinks.lines import Lines
from edgeseg.stream.sinks.retention import Budget, Rotation

_WAITING = 1000
"""Maximum number of events queued while their file cannot be written."""


class AlertLines:
    """The file of events, and those that wait until it can be written again.

    Args:
        target: File to append to, or an open text stream.
        rotation: Limits after which the file begins its next part.
        budget: Budget that the parts of all runs count towards.
        overwrite: Truncate an existing file instead of appending to it.
    """

    def __init__(
        self,
        target: Path | TextIO,
        rotation: Rotation | None,
        budget: Budget | None,
        *,
        overwrite: bool,
    ) -> None:
        self._lines = Lines(target, rotation, budget, overwrite=overwrite)
        self._waiting: deque[dict[str, Any]] = deque()
        self._open = False
        self.health = Health(f"the alert lines to {self._lines}", "AlertLines")

    def open(self) -> None:
        """Open the file; raises as :class:`~edgeseg.stream.sinks.lines.Lines`."""
        self._lines.open()
        self._open = True

    def write(self, event: dict[str, Any]) -> None:
        """Write an event; raises StopStream if the pipe was closed."""
        self._waiting.append(event)
        if len(self._waiting) > _WAITING:
            self._waiting.popleft()
            self.health.loses()
        self.catch_up()

    def catch_up(self) -> None:
        """Write what waits, where it is time; raises as :meth:`write`."""
        if self._waiting and self.health.due:
            self._flush()

    def close(self) -> None:
        """Try again; events that still wait are lost."""
        with suppress(StopStream):
            self._flush()
        for _ in self._waiting:
            self.health.loses()
        self._shut()

    def _flush(self) -> None:
        try:
            if not self._open:
                self.open()
            while self._waiting:
                self._lines.write(self._waiting[0])
                self._waiting.popleft()
                self.health.works()
        except BrokenPipeError as error:
            raise StopStream from error
        except (OSError, EdgesegError) as error:
            self.health.fails(error, lost=0)
            self._shut()

    def _shut(self) -> None:
        self._open = False
        with suppress(OSError):
            self._lines.close()
