"""Messages, their topics, and the protocol of what carries them to a broker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from edgeseg.stream.alerts.rule import AlertRule
from edgeseg.stream.sinks.health import SinkReport


@dataclass(frozen=True)
class Message:
    """A message on a topic.

    Of a message that is neither ``kept`` nor ``retained``, only the newest of its topic is sent,
    once at most, and not at all while the broker is away.

    Attributes:
        topic: Levels separated by ``/``.
        body: Content, usually JSON in UTF-8.
        kept: Deliver it at least once and in order; it waits in a bounded queue while the broker
            is away.
        retained: Whoever subscribes later receives the newest of its topic. It is published again
            after each connection, since a broker may have lost it.
    """

    topic: str
    body: bytes
    kept: bool = False
    retained: bool = False


@dataclass(frozen=True)
class BrokerLimits:
    """Limits of a connection to a broker.

    Attributes:
        timeout_s: Time-out for connecting, and for its answer.
        keepalive_s: Seconds of silence after which each side asks whether the other is there.
        places: Maximum number of kept messages that wait; beyond it the oldest is dropped.
        close_s: Seconds to wait for deliveries when the stream ends.
    """

    timeout_s: float = 5.0
    keepalive_s: int = 10
    places: int = 1000
    close_s: float = 2.0


class Bus(Protocol):
    """What carries messages: MQTT (:class:`~edgeseg.stream.messaging.Mqtt`), or another system.

    Attributes:
        label: Name in logs, without credentials.
    """

    label: str

    def open(self, will: Message, *, wait: bool) -> None:
        """Connect, and stay connected until :meth:`close`.

        Args:
            will: Message that the broker publishes when the connection is lost.
            wait: Return when the connection is there; otherwise connect in the background.

        Raises:
            RuntimeMissing: A library is not installed.
            OutputError: With ``wait``, the broker cannot be reached or refuses.
        """

    def publish(self, message: Message) -> None:
        """Take a message; never blocks and never raises because of the broker."""

    def close(self, last: Message) -> None:
        """Deliver what can be delivered soon, then ``last``; count the rest as lost."""

    def report(self) -> SinkReport:
        """Return the current status; callable from any thread."""


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
