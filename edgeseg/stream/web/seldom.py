"""Warnings about what strangers do, few enough that they cannot fill a log."""

from __future__ import annotations

import logging
import time

_EVERY_S = 60.0


class Seldom:
    """Writes one warning a minute at most, with how often there was cause since the last one.

    Args:
        log: Where the warnings go.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._causes = 0
        self._next = 0.0

    def __call__(self, text: str) -> None:
        """Count a cause; ``text`` is written where no warning was within the last minute."""
        self._causes += 1
        now = time.monotonic()
        if now >= self._next:
            self._log.warning("%s (%d since the last such line)", text, self._causes)
            self._causes, self._next = 0, now + _EVERY_S
