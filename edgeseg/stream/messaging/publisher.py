"""Publish what a stream sees, and how its sources stand, through a broker."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg import __version__
from edgeseg.artifacts.card import ModelCard
from edgeseg.ops.regions import check_min_region
from edgeseg.stream.alerts.sink import Alerts, RuleStatus
from edgeseg.stream.messaging.bus import Bus, Message, Topics, rule_id
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus, StateChange, StateChanges
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.jsonlines import describe, describe_change
from edgeseg.stream.sinks.lines import time_stamp

_ROOT = "homeassistant"


class HomeAssistant:
    """Makes the messages that announce a stream to Home Assistant.

    They follow https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery: a retained JSON
    document for each entity at ``homeassistant/COMPONENT/NODE/OBJECT/config``.

    The stream is a device with a sensor of its connection. Each source is a device with a sensor
    of its connection, one for the share of each class but the background, and one for each rule.

    Args:
        topics: Topics that the entities read.
    """

    def __init__(self, topics: Topics, card: ModelCard) -> None:
        self._topics = topics
        self._card = card
        self._node = _identifier(topics.prefix)

    def messages(
        self, sources: Sequence[SourceStatus], rules: Sequence[RuleStatus]
    ) -> Iterator[Message]:
        """Yield a message for each entity."""
        connection = {
            "name": "Connection",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": self._topics.status,
            "payload_on": "online",
            "payload_off": "offline",
            "device": {
                "identifiers": [self._node],
                "name": self._topics.prefix,
                "manufacturer": "edgeseg",
                "model": self._card.name,
                "sw_version": __version__,
            },
        }
        yield self._config("binary_sensor", "connection", connection)
        for source in sources:
            yield self._camera(source)
            yield from self._areas(source)
            for status in rules:
                if status.camera == source.index:
                    yield self._rule(source, status)

    def _camera(self, source: SourceStatus) -> Message:
        config = {
            "name": "Connection",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": self._topics.state(source.index),
            "value_template": "{{ 'ON' if value_json.state == 'ok' else 'OFF' }}",
            "json_attributes_topic": self._topics.state(source.index),
            "availability": [{"topic": self._topics.status}],
            "device": self._device(source),
        }
        return self._config("binary_sensor", f"{source.index}_connection", config)

    def _areas(self, source: SourceStatus) -> Iterator[Message]:
        classes = self._card.classes
        for label, name in enumerate(classes.names):
            if label == classes.background:
                continue
            literal = json.dumps(name, ensure_ascii=False)  # Jinja has the escapes of JSON
            config = {
                "name": name,
                "icon": "mdi:texture-box",
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "state_topic": self._topics.result(source.index),
                "value_template": f"{{{{ 100 * value_json.share[{literal}] }}}}",
                **self._while_ok(source),
                "device": self._device(source),
            }
            object_id = f"{source.index}_area_{label}_{_identifier(name)}"
            yield self._config("sensor", object_id, config)

    def _rule(self, source: SourceStatus, status: RuleStatus) -> Message:
        topic = self._topics.rule(source.index, status.rule)
        config = {
            "name": str(status.rule),
            "device_class": "problem",
            "state_topic": topic,
            "value_template": (
                "{{ {'raised': 'ON', 'clear': 'OFF'}.get(value_json.state, 'None') }}"
            ),
            "json_attributes_topic": topic,
            "availability": [{"topic": self._topics.status}],
            "device": self._device(source),
        }
        object_id = f"{source.index}_rule_{rule_id(status.rule)}"
        return self._config("binary_sensor", object_id, config)

    def _while_ok(self, source: SourceStatus) -> dict[str, Any]:
        """Unavailable without the stream or the source: an old share says nothing about now."""
        state = {
            "topic": self._topics.state(source.index),
            "value_template": "{{ 'online' if value_json.state == 'ok' else 'offline' }}",
        }
        return {"availability_mode": "all", "availability": [{"topic": self._topics.status}, state]}

    def _device(self, source: SourceStatus) -> dict[str, Any]:
        return {
            "identifiers": [f"{self._node}_{source.index}"],
            "name": f"{self._topics.prefix} {source.index}",
            "manufacturer": "edgeseg",
            "model": source.label,
            "via_device": self._node,
        }

    def _config(self, component: str, object_id: str, config: dict[str, Any]) -> Message:
        origin = {"name": "edgeseg", "sw_version": __version__}
        whole = {"unique_id": f"{self._node}_{object_id}", **config, "origin": origin}
        topic = f"{_ROOT}/{component}/{self._node}/{object_id}/config"
        return Message(topic, json.dumps(whole, ensure_ascii=False).encode(), retained=True)


def _identifier(text: str) -> str:
    """Reduce a text to the characters that a topic of discovery may have."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


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
    while the broker is away, up to a limit. Retained messages are published again after each
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
