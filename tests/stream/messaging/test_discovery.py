"""What Home Assistant is told, with its templates rendered as it renders them: by Jinja."""

import json
import re
from typing import Any

import numpy as np
import pytest
from streaming import StillSource, card, still_result

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.stream.alerts import Alerts, parse_rule
from edgeseg.stream.messaging import Message, Publisher, Publishing
from edgeseg.stream.sinks.health import Health, SinkReport

CLASSES = ClassMap.model_validate({"names": ("background", "road", 'a "b" \\ ä 🚧')})


class Shelf:
    """A bus that keeps what it is given."""

    label = "a shelf"

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def open(self, will: Message, *, wait: bool) -> None:
        self.will = will

    def publish(self, message: Message) -> None:
        self.messages.append(message)

    def close(self, last: Message) -> None:
        self.messages.append(last)

    def report(self) -> SinkReport:
        return Health(self.label, "Shelf").report()

    def newest(self, topic: str) -> str:
        return next(each.body for each in reversed(self.messages) if each.topic == topic).decode()

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The entities by the topics of their configurations."""
        return {
            message.topic: json.loads(message.body)
            for message in self.messages
            if message.topic.startswith("homeassistant/")
        }


def published() -> tuple[Shelf, StillSource, Alerts, Publisher]:
    shelf, source = Shelf(), StillSource("rtsp://front/live")
    network = card(CLASSES, InputSpec(height=10, width=10))
    alerts = Alerts([parse_rule("road > 20%")], CLASSES)
    publisher = Publisher(shelf, network, Publishing("edgeseg/gate 1"), alerts)
    alerts.open([source])
    publisher.open([source])
    return shelf, source, alerts, publisher


def test_names_and_topics_are_those_that_are_allowed() -> None:
    shelf, *_ = published()
    configs = shelf.configs
    kinds = [topic.split("/")[1] for topic in configs]
    assert (kinds.count("binary_sensor"), kinds.count("sensor")) == (3, 2)
    pattern = r"homeassistant/(binary_)?sensor/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config"
    assert all(re.fullmatch(pattern, topic) for topic in configs)
    assert len({config["unique_id"] for config in configs.values()}) == len(configs)
    assert all(message.retained for message in shelf.messages)
    devices = {config["device"]["identifiers"][0] for config in configs.values()}
    assert devices == {"edgeseg_gate_1", "edgeseg_gate_1_0"}
    assert shelf.will == Message("edgeseg/gate 1/status", b"offline", retained=True)
    assert shelf.newest(shelf.will.topic) == "online"


def test_templates_read_what_is_published() -> None:
    jinja = pytest.importorskip("jinja2")
    shelf, source, alerts, publisher = published()

    def shown(words: str, part: str = "value_template", entry: dict[str, Any] | None = None) -> str:
        """What Home Assistant shows of the entity whose topic has ``words`` in it."""
        config = next(each for topic, each in shelf.configs.items() if words in topic)
        entry = entry or config
        topic = entry.get("state_topic") or entry["topic"]
        text = jinja.Environment().from_string(entry[part])
        return str(text.render(value_json=json.loads(shelf.newest(topic))))

    assert shown("0_rule_") == "None"  # unknown before the first frame
    labels = np.zeros((10, 10), np.uint8)
    labels.flat[:30], labels.flat[30:35] = 1, 2
    for sink in (alerts, publisher):
        sink.write(still_result(labels, classes=CLASSES))
    assert (float(shown("area_1_")), float(shown("area_2_"))) == (30.0, 5.0)
    assert (shown("0_rule_"), shown("0_connection")) == ("ON", "ON")
    config = next(each for topic, each in shelf.configs.items() if "area_1_" in topic)
    available = config["availability"][1]
    assert shown("area_1_", entry=available) == "online"
    source.state = "stalled"
    alerts.idle()
    publisher.idle()
    assert (shown("0_rule_"), shown("0_connection")) == ("None", "OFF")
    assert shown("area_1_", entry=available) == "offline"
    source.state = "ok"
    for sink in (alerts, publisher):
        sink.write(still_result(np.zeros((10, 10), np.uint8), classes=CLASSES))
    assert shown("0_rule_") == "OFF"


def test_a_message_has_the_documented_keys() -> None:
    shelf, _, alerts, publisher = published()
    for sink in (alerts, publisher):
        sink.write(still_result(np.ones((10, 10), np.uint8), classes=CLASSES))
    bodies = {
        message.topic.removeprefix("edgeseg/gate 1/"): json.loads(message.body)
        for message in shelf.messages
        if message.body.startswith(b"{") and message.topic.startswith("edgeseg/")
    }
    assert {re.sub("rule/.*", "rule/ID", topic) for topic in bodies} == {
        "camera/0/state", "camera/0/result", "camera/0/rule/ID", "alerts"
    }  # fmt: skip
    (status,) = (document for topic, document in bodies.items() if "/rule/" in topic)
    for document in (status, *bodies["camera/0/result"]["rules"]):
        assert all(f"``{key}``" in str(Publisher.__doc__) for key in document)
