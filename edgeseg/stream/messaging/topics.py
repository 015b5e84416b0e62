"""Names of the topics below the prefix of a stream."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgeseg.stream.alerts.rule import AlertRule


@dataclass(frozen=True)
class Topics:
    """Names of the topics.

    Attributes:
        prefix: First levels of all of them.
    """

    prefix: str

    @property
    def status(self) -> str:
        """``online`` or ``offline``."""
        return f"{self.prefix}/status"

    @property
    def alerts(self) -> str:
        """Events of all rules."""
        return f"{self.prefix}/alerts"

    def state(self, camera: int) -> str:
        """State of a source."""
        return f"{self.prefix}/camera/{camera}/state"

    def result(self, camera: int) -> str:
        """Newest result of a source."""
        return f"{self.prefix}/camera/{camera}/result"

    def rule(self, camera: int, rule: AlertRule) -> str:
        """State of a rule on a source."""
        return f"{self.prefix}/camera/{camera}/rule/{rule_id(rule)}"


def rule_id(rule: AlertRule) -> str:
    """Return eight hexadecimal digits that stay while the text of the rule stays."""
    return hashlib.sha256(str(rule).encode()).hexdigest()[:8]
