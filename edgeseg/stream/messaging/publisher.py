"""Publish what a stream sees, and how its sources stand, through a broker."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.artifacts.card import ModelCard
from edgeseg.stream.alerts.sink import Alerts, RuleStatus
from edgeseg.stream.messaging.bus import Bus, Message
from edgeseg.stream.messaging.discovery import HomeAssistant
from edgeseg.stream.messaging.topics import Topics
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.jsonlines import check_min_region, describe, describe_change
from edgeseg.stream.sinks.lines import time_stamp
from edgeseg.stream.sinks.states import StateChange, StateChanges


@dataclass(frozen=True)
class Publishing:
    """What is published, and where.

    Attributes:
        prefix: First levels of all topics. Two streams must not share one.
        every_s: Least time between two results of one source, in seconds.
        min_region: Share of the frame, 0…1, below which a region is left out.
        discovery: Announce the stream to Home Assistant.

    Raises:
        UsageError: ``min_region`` is out of its range.
    """

    prefix: str
    every_s: float = 1.0
    min_region: float = 0.001
    discovery: bool = True

    def __post_init__(self) -> None:
        check_min_region(self.min_region)


class Publisher(Sink):
    """Publishes results, states, alerts and availability.

    ======================== ======== ==================================================
    topic below the prefix   retained content
    ======================== ======== ==================================================
    ``status``               yes      ``online``, or ``offline``: the stream has ended, or the
                                      broker has lost it (its last will)
    ``camera/N/state``       yes      JSON: the last change of the state of source N, as a line of
                                      :class:`~edgeseg.stream.JsonLines`
    ``camera/N/result``      no       JSON: a frame, as a line of
                                      :class:`~edgeseg.stream.JsonLines`, and ``rules``: ``rule``,
                                      ``state``, ``value`` and ``unit`` of each rule
    ``camera/N/rule/ID``     yes      JSON: ``time``, ``rule``, ``camera``, ``source``, ``state``
                                      (``raised``, ``clear`` or ``unknown``), ``value``, ``unit``
    ``alerts``               no       JSON: an event of :class:`~edgeseg.stream.alerts.Alerts`
    ======================== ======== ==================================================

    Results are limited to one in ``every_s`` seconds, and only the newest is sent. Events wait
    while the broker is away, up to a limit. Retained messages are published anew after each
    connection.

    Args:
        bus: What carries the messages.
        card: The network.
        publishing: What is published, and where.
        alerts: The sink whose events and rules are published; it must be earlier in the list of
            sinks than this one, so that its last events are published before the end.
    """

    retry = "next"

    def __init__(
        self, bus: Bus, card: ModelCard, publishing: Publishing, alerts: Alerts | None = None
    ) -> None:
        self._bus = bus
        self._card = card
        self._publishing = publishing
        self._topics = Topics(publishing.prefix)
        self._alerts = alerts
        self._sources: Sequence[SourceStatus] = ()
        self._changes = StateChanges(())
        self._last: dict[int, float] = {}
        self._rules: dict[str, str] = {}
        if alerts is not None:
            alerts.subscribe(self._publish_event)

    def __str__(self) -> str:
        return f"the messages to {self._bus.label}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Connect and announce the stream.

        Raises:
            RuntimeMissing: The library of the bus is not installed.
            OutputError: The broker cannot be reached, and outputs are not waited for.
        """
        self._sources = sources
        self._changes = StateChanges(sources)
        self._bus.open(self._status("offline"), wait=not self.context.patient)
        self._bus.publish(self._status("online"))
        if self._publishing.discovery:
            announcing = HomeAssistant(self._topics, self._card)
            for message in announcing.messages(sources, self._statuses()):
                self._bus.publish(message)
        for source in sources:
            if source.state == "starting":  # any other is a change
                self._publish_state(StateChange(source, "starting", "starting"))
        self.idle()

    def write(self, result: StreamResult) -> None:
        """Publish what is due."""
        self.idle()
        camera = result.camera
        last = self._last.get(camera)
        if last is not None and result.captured_at - last < self._publishing.every_s:
            return
        self._last[camera] = result.captured_at
        state = self._sources[camera].state
        document = describe(result, state, self._publishing.min_region)
        document["rules"] = [_rule(each) for each in self._statuses() if each.camera == camera]
        self._publish(self._topics.result(camera), document)

    def idle(self) -> None:
        """Publish the states of sources and rules that changed."""
        for change in self._changes.poll():
            self._publish_state(change)
        for status in self._statuses():
            topic = self._topics.rule(status.camera, status.rule)
            if self._rules.get(topic) != status.state:
                self._rules[topic] = status.state
                about = {
                    "time": time_stamp(time.monotonic()),
                    "camera": status.camera,
                    "source": self._sources[status.camera].label,
                }
                self._publish(topic, about | _rule(status), retained=True)

    def close(self) -> None:
        """Publish how it ended, and wait a moment for deliveries."""
        self.idle()
        self._bus.close(self._status("offline"))

    def reports(self) -> Sequence[SinkReport]:
        """Of the bus."""
        return (self._bus.report(),)

    def _status(self, text: str) -> Message:
        return Message(self._topics.status, text.encode(), retained=True)

    def _statuses(self) -> Sequence[RuleStatus]:
        return () if self._alerts is None else self._alerts.statuses()

    def _publish_state(self, change: StateChange) -> None:
        self._publish(
            self._topics.state(change.source.index), describe_change(change), retained=True
        )

    def _publish_event(self, event: Mapping[str, Any]) -> None:
        self._publish(self._topics.alerts, event, kept=True)

    def _publish(self, topic: str, document: Mapping[str, Any], **how: bool) -> None:
        body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        self._bus.publish(Message(topic, body, **how))


def _rule(status: RuleStatus) -> dict[str, Any]:
    value = None if status.value is None else round(status.value, 6)
    return {
        "rule": str(status.rule), "state": status.state, "value": value, "unit": status.rule.unit
    }  # fmt: skip
