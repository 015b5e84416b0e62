"""One rule on one source: when it is raised and cleared.

::

            holds             held for `for`
    idle ──────────▶ pending ───────────────▶ raised ─┐
     ▲ ▲               │ holds no more          │     │ source lost
     │ └───────────────┘                        │     ▼
     └──────────── did not hold for `for` ◀─────┘   unknown ── frames again ──▶ raised or idle

A lost source tells nothing about the scene: it neither raises nor clears an alert, whose state is
reported as unknown.
"""

from __future__ import annotations

from typing import Literal

from edgeseg.stream.alerts.rule import AlertRule

AlertEvent = Literal["raised", "cleared", "unknown"]
RuleState = Literal["idle", "pending", "raised", "unknown"]


class RuleTracker:
    """Tracks the state of a rule as its value changes over time.

    Between two frames the value of the first one is assumed to hold. The caller reports when a
    source is lost.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self._known: bool | None = False
        self._pending: bool | None = None
        self._since = 0.0
        self._raised_at: float | None = None

    @property
    def state(self) -> RuleState:
        """Current state."""
        if self._known is None:
            return "unknown"
        if self._known:
            return "raised"
        return "idle" if self._pending is None else "pending"

    def update(self, value: float, at: float) -> AlertEvent | None:
        """Take the value of a frame; returns the event that it causes, if any.

        Args:
            value: In the rule's unit.
            at: Seconds on the clock of the scene, never less than before: the time in the video
                of a file's frame, the monotonic clock of a camera's.
        """
        holds = self.rule.holds(value)
        if holds == self._known:
            self._pending = None
            return None
        if self._pending != holds:
            self._pending, self._since = holds, at
        if at - self._since < self.rule.duration or (holds and self._too_soon(at)):
            return None
        self._known, self._pending = holds, None
        if holds:
            self._raised_at = at
        return "raised" if holds else "cleared"

    def source_lost(self) -> AlertEvent | None:
        """Record that the source was lost; returns the event, if it is news."""
        self._pending = None
        if self._known is None:
            return None
        self._known = None
        return "unknown"

    def _too_soon(self, at: float) -> bool:
        """Whether an alert that was cleared cools down; one that got unknown does not."""
        if self._known is None or self._raised_at is None:
            return False
        return at - self._raised_at < self.rule.cooldown
