"""Whether outputs work: what the report, the metrics and the page say of them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from edgeseg.documents import printable
from edgeseg.errors import EdgesegError

_log = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Waits before an output that failed is tried again; the last is repeated."""


@dataclass(frozen=True)
class SinkReport:
    """How an output stands.

    Attributes:
        name: As logs call it.
        kind: ``Recording``, ``JsonLines``, ``Masks``, ``AlertLines``, …
        state: ``failed`` from an error until a result is taken again.
        written: Results that it took; of alerts, events and pictures.
        lost: Those that it could not take.
        skipped: Those that it left out because it was too slow.
        errors: How often it failed.
        error: Why it failed last, None where it never did.
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
    """Keeps count for one output, says each change once, and when to try again.

    Args:
        name: As logs call it.
        kind: See :class:`SinkReport`.
        final: Once it failed it stays off.
        patient: Whether attempts wait longer and longer, or each result is one.
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
        """Whether it failed and did not work since."""
        return self._failed

    @property
    def due(self) -> bool:
        """Whether it works, or may be tried again."""
        if not self._failed:
            return True
        return not self._final and time.monotonic() >= self._again_at

    def works(self) -> None:
        """A result was taken."""
        self._written += 1
        if self._failed:
            _log.warning("%s works again; it lost %d results so far", self._name, self._lost)
        self._failed, self._attempts = False, 0

    def fails(self, error: Exception, *, lost: int = 1) -> None:
        """It raised ``error``; ``lost`` results are not written."""
        self._errors += 1
        self._lost += lost
        self._error = why(error)
        if not self._failed:
            then = "and is off" if self._final else "and will be tried again"
            _log.error("%s failed %s: %s", self._name, then, self._error)
        self._failed = True
        if self._patient:
            wait = _BACKOFF_S[min(self._attempts, len(_BACKOFF_S) - 1)]
            self._attempts += 1
            self._again_at = time.monotonic() + wait

    def loses(self) -> None:
        """A result came while it was off."""
        self._lost += 1

    def report(self) -> SinkReport:
        """How it stands; may be called from any thread."""
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
    """What is said of an error, on one line."""
    if isinstance(error, EdgesegError):
        return printable(error.message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error) or type(error).__name__)
