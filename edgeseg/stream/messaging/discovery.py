"""Announce a stream to Home Assistant.

Follows https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery: a retained JSON document
for each entity at ``homeassistant/COMPONENT/NODE/OBJECT/config``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from edgeseg import __version__
from edgeseg.artifacts.card import ModelCard
from edgeseg.stream.alerts.sink import RuleStatus
from edgeseg.stream.messaging.bus import Message
from edgeseg.stream.messaging.topics import Topics, rule_id
from edgeseg.stream.sinks.base import SourceStatus

_ROOT = "homeassistant"


class HomeAssistant:
    """Makes the discovery messages of a stream.

    The stream is a device with a sensor of its connection. Each source is a device with a sensor
    of its connection, one for the share of each class but the background, and one for each rule.

    Args:
        topics: Topics that the entities read.
        card: The network.
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
            config = {
                "name": name,
                "icon": "mdi:texture-box",
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "state_topic": self._topics.result(source.index),
                "value_template": f"{{{{ 100 * value_json.share[{_literal(name)}] }}}}",
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
        """Unavailable while the stream or the source is away: an old share is no share of now."""
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


def _literal(text: str) -> str:
    """Write a text as a literal of Jinja, which has the escapes of Python."""
    return json.dumps(text, ensure_ascii=False)
