"""Status of outputs, as shown in the report, the metrics and the web page."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from edgeseg.artifacts.documents import plural, printable
from edgeseg.errors import EdgesegError

logger = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Seconds to wait before retrying a failed output; the last is repeated."""


@dataclass(frozen=True)
class SinkReport:
    """Status of an output.

    Attributes:
        name: Name of the output in logs.
        kind: ``Recording``, ``JsonLines``, ``Masks``, ``AlertLines``, …
        state: ``failed`` from an error until a result is written again.
        written: Number of results written; for alerts, of events and pictures.
        lost: Number of results that could not be written.
        skipped: Number of results skipped because the output was too slow.
        errors: Number of failures.
        error: Reason of the last failure; None if there was none.
    """

    name: str
    kind: str
    state: Literal["ok", "failed"]
    written: int
    lost: int
    skipped: int
    errors: int
    error: str | None


class Health:
    """Tracks the status of one output, logs each change once, and schedules retries.

    Args:
        name: Name of the output in logs.
        kind: See :class:`SinkReport`.
        final: Keep the output off after its first failure.
        patient: Wait increasingly long between attempts; otherwise retry with every result.
    """

    def __init__(self, name: str, kind: str, *, final: bool = False, patient: bool = True) -> None:
        self._name, self._kind = printable(name), kind
        self._final, self._patient = final, patient
        self._failed = False
        self._written = self._lost = self._errors = 0
        self._error: str | None = None
        self._attempts = 0
        self._again_at = 0.0

    @property
    def failed(self) -> bool:
        """Whether the output failed and has not recovered."""
        return self._failed

    @property
    def due(self) -> bool:
        """Whether the output works or may be retried now."""
        if not self._failed:
            return True
        return not self._final and time.monotonic() >= self._again_at

    @property
    def due_in(self) -> float:
        """Seconds until the output may be retried."""
        return max(0.0, self._again_at - time.monotonic())

    def works(self, written: int = 1) -> None:
        """Record that results were written, or with 0 that one could be."""
        self._written += written
        if self._failed:
            logger.warning(
                "%s works again; it has lost %s so far", self._name, plural(self._lost, "result")
            )
        self._failed, self._attempts = False, 0

    def fails(self, error: Exception, *, lost: int = 1) -> None:
        """Record that the output raised ``error`` and lost ``lost`` results."""
        self._errors += 1
        self._lost += lost
        self._error = why(error)
        if not self._failed:
            then = "and is off" if self._final else "and will be tried again"
            logger.error("%s failed %s: %s", self._name, then, self._error)
        self._failed = True
        if self._patient:
            wait = _BACKOFF_S[min(self._attempts, len(_BACKOFF_S) - 1)]
            self._attempts += 1
            self._again_at = time.monotonic() + wait

    def loses(self) -> None:
        """Record a result lost while the output was off."""
        self._lost += 1

    def report(self) -> SinkReport:
        """Return the current status; callable from any thread."""
        return SinkReport(
            name=self._name,
            kind=self._kind,
            state="failed" if self._failed else "ok",
            written=self._written,
            lost=self._lost,
            skipped=0,
            errors=self._errors,
            error=self._error,
        )


def why(error: Exception) -> str:
    """Return the message of an error on one line."""
    if isinstance(error, EdgesegError):
        return printable(error.message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error) or type(error).__name__)
