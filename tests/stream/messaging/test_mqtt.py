"""What a stream publishes, through Debian's broker: killed, away, over TLS, and as it should be."""

import contextlib
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streaming import CLASSES, StillSource, card, still_result

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import OutputError, RuntimeMissing, UsageError
from edgeseg.options.messaging import Broker
from edgeseg.stream import StreamResult
from edgeseg.stream.alerts import Alerts, parse_rule
from edgeseg.stream.messaging import BrokerLimits, Message, Mqtt, Publisher, Publishing
from edgeseg.stream.sinks import health
from edgeseg.stream.sinks.base import SinkContext

pytest.importorskip("paho.mqtt", reason="no paho-mqtt (pip install 'edgeseg[mqtt]')")
from brokers import PATIENCE_S, Listener, Mosquitto, needs_mosquitto

RULE = "road > 20%"
WILL = Message("gate/status", b"offline", retained=True)

pytestmark = needs_mosquitto


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again after a short wait."""
    monkeypatch.setattr(health, "_BACKOFF_S", (0.02,))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """``serve(*lines)``: a broker that is killed at the end."""
    with contextlib.ExitStack() as stack:

        def make(*lines: str) -> Mosquitto:
            broker = Mosquitto(tmp_path, *lines)
            stack.callback(broker.kill)
            return broker

        yield make


@pytest.fixture
def mosquitto(serve: Callable[..., Mosquitto]) -> Mosquitto:
    return serve()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """``listen(broker, …)``: a listener that is closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Listener:
            return stack.enter_context(contextlib.closing(Listener(*arguments, **options)))

        yield make


class Logged(logging.Handler):
    """Waits for lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def until(self, words: str) -> None:
        with self._changed:
            found = lambda: any(words in line for line in self.lines)  # noqa: E731
            assert self._changed.wait_for(found, PATIENCE_S), self.lines


@pytest.fixture
def log() -> Iterator[Logged]:
    logger, handler = logging.getLogger("edgeseg"), Logged()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def at(broker: Mosquitto, **changes: Any) -> Broker:
    return Broker("127.0.0.1", broker.port, tls=False, prefix="gate", **changes)


def frame(road: int, at_s: float = 0.0) -> StreamResult:
    """100 pixels, so many of them road."""
    labels = np.zeros(100, np.uint8)
    labels[:road] = 1
    return still_result(labels.reshape(10, 10), captured_at=1000.0 + at_s)


class Gate:
    """A stream of one source with a rule, whose messages go to a broker."""

    def __init__(self, bus: Mqtt, *, patient: bool = False, **publishing: Any) -> None:
        self.bus = bus
        self.source = StillSource()
        self.alerts = Alerts([parse_rule(RULE)], CLASSES)
        made = Publishing("gate", **publishing)
        network = card(CLASSES, InputSpec(height=10, width=10))
        self.publisher = Publisher(bus, network, made, self.alerts)
        self.publisher.prepare(SinkContext(patient=patient))
        self.alerts.open([self.source])
        self.publisher.open([self.source])

    def write(self, result: StreamResult) -> None:
        self.alerts.write(result)
        self.publisher.write(result)

    def close(self) -> None:
        self.alerts.close()
        self.publisher.close()


def test_results_states_and_alerts(mosquitto: Mosquitto, listen: Callable[..., Listener]) -> None:
    listener = listen(mosquitto)
    gate = Gate(Mqtt(at(mosquitto)))
    listener.first("gate/status", lambda status: status == "online")
    gate.write(frame(30))
    listener.first("gate/camera/0/result")
    gate.write(frame(40, 0.5))
    gate.write(frame(10, 1.0))
    listener.until(lambda: len(listener.of("gate/camera/0/result")) == 2)  # one each second
    gate.source.state = "reconnecting"
    gate.publisher.idle()
    gate.close()
    # Order is promised within a topic, not between two.
    listener.first("gate/status", lambda status: status == "offline")
    listener.first("gate/alerts", lambda event: event["event"] == "unknown")
    listener.until(lambda: len(listener.of("gate/camera/0/state")) == 2)

    first, last = listener.of("gate/camera/0/result")
    assert (first["share"]["road"], last["share"]["road"]) == (0.3, 0.1)
    assert first["regions"][0]["area_px"] == 30
    assert first["rules"] == [{"rule": RULE, "state": "raised", "value": 30, "unit": "%"}]
    events = listener.of("gate/alerts")
    assert [(event["event"], event["value"]) for event in events] == [
        ("raised", 30), ("cleared", 10), ("unknown", None)
    ]  # fmt: skip
    states = [state["state"] for state in listener.of("gate/camera/0/state")]
    assert states == ["ok", "reconnecting"]
    report = gate.bus.report()
    assert (report.kind, report.state, report.lost, report.error) == ("Mqtt", "ok", 0, None)

    # Only what is retained is there for those who come later.
    later = listen(mosquitto)
    later.settle()
    assert later.of("gate/status") == ["offline"]
    retained = {topic for topic, _, _ in later.heard if topic.startswith("gate/")}
    (rule,) = [topic for topic in retained if "/rule/" in topic]
    assert retained == {"gate/status", "gate/camera/0/state", rule}
    assert later.first(rule)["state"] == "unknown"


def test_a_broker_that_was_killed_gets_all_that_is_retained_again(
    mosquitto: Mosquitto, listen: Callable[..., Listener], log: Logged
) -> None:
    gate = Gate(Mqtt(at(mosquitto)))
    gate.write(frame(30))
    mosquitto.kill()
    log.until("failed and will be tried again")
    assert gate.publisher.reports()[0].state == "failed"
    gate.source.state = "stalled"
    gate.write(frame(30, 9))
    mosquitto.start()  # without any memory
    listener = listen(mosquitto)
    listener.first("gate/camera/0/state", lambda state: state["state"] == "stalled")
    listener.first("gate/status", lambda status: status == "online")
    log.until("works again")
    gate.close()
    assert gate.bus.report().state == "ok"
    assert gate.bus.report().lost == 0
    assert any(topic.startswith("homeassistant/sensor/gate/") for topic, *_ in listener.heard)
    assert listener.of("gate/camera/0/result") == []  # of the time without a broker


def values(listener: Listener) -> list[float]:
    """What the alerts said, each once: one may come twice, with the same id."""
    events = {event["id"]: event["value"] for event in listener.of("gate/alerts")}
    return [value for value in events.values() if value is not None]


def test_alerts_of_an_outage_arrive_in_order(
    serve: Callable[..., Mosquitto], listen: Callable[..., Listener], log: Logged
) -> None:
    mosquitto = serve("persistence true")
    listen(mosquitto, "watch").close()  # the broker keeps its session
    gate = Gate(Mqtt(at(mosquitto)))
    gate.write(frame(30))
    mosquitto.stop()
    log.until("failed and will be tried again")
    for moment, road in enumerate([0, 31, 0, 32], 1):
        gate.write(frame(road, moment))
    mosquitto.start()
    listener = listen(mosquitto, "watch")
    listener.first("gate/alerts", lambda event: event["value"] == 32)
    gate.close()
    assert (gate.bus.report().state, gate.bus.report().lost) == ("ok", 0)
    assert values(listener) == [30, 0, 31, 0, 32]


def test_the_oldest_alerts_are_lost_where_too_many_wait(
    serve: Callable[..., Mosquitto], listen: Callable[..., Listener]
) -> None:
    mosquitto = serve("persistence true")
    listen(mosquitto, "watch").close()
    mosquitto.stop()
    gate = Gate(Mqtt(at(mosquitto), patience=BrokerLimits(places=3)), patient=True)
    for moment, road in enumerate([30, 0, 31, 0, 32]):
        gate.write(frame(road, moment))
    assert gate.bus.report().lost == 2
    mosquitto.start()
    listener = listen(mosquitto, "watch")
    listener.first("gate/alerts", lambda event: event["value"] == 32)
    gate.close()
    assert (gate.bus.report().state, gate.bus.report().lost) == ("ok", 2)
    assert values(listener) == [31, 0, 32]


def test_a_broker_that_falls_silent_is_noticed(mosquitto: Mosquitto, log: Logged) -> None:
    gate = Gate(Mqtt(at(mosquitto), patience=BrokerLimits(timeout_s=0.2, keepalive_s=1)))
    mosquitto.pause()
    log.until("failed and will be tried again: no answer in time")
    gate.write(frame(30))
    mosquitto.go_on()
    log.until("works again")
    gate.close()
    assert (gate.bus.report().state, gate.bus.report().lost) == ("ok", 0)


def test_alerts_that_are_not_delivered_at_the_end_are_lost(
    mosquitto: Mosquitto, log: Logged
) -> None:
    gate = Gate(Mqtt(at(mosquitto)))
    mosquitto.kill()
    log.until("failed and will be tried again")
    gate.write(frame(30))
    gate.close()
    report = gate.bus.report()
    assert (report.state, report.lost) == ("failed", 2)  # raised, and unknown at the end
    assert "2 alerts could not be delivered" in log.lines[-1]


def test_the_last_will_of_a_stream_that_was_killed(
    mosquitto: Mosquitto, listen: Callable[..., Listener], bright_network: Path
) -> None:
    listener = listen(mosquitto)
    command = [
        *(sys.executable, "-m", "edgeseg", "stream", bright_network, "--source", "test:64x48@25"),
        *("--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}/gate", "--no-window", "--threads", "1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        listener.first("gate/camera/0/result")
        assert listener.of("gate/status") == ["online"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    listener.until(lambda: listener.of("gate/status")[-1] == "offline")
    later = listen(mosquitto)
    assert later.first("gate/status") == "offline"
    assert later.heard[0][2]  # retained


def test_a_password(tmp_path: Path, serve: Callable[..., Mosquitto], log: Logged) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("no mosquitto_passwd")
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "u", "hunter2"], check=True)
    mosquitto = serve(f"password_file {tmp_path / 'users'}")
    bus = Mqtt(at(mosquitto, user="u", password="hunter2"))
    bus.open(WILL, wait=True)
    bus.close(WILL)
    assert bus.report().written == 1
    wrong = at(mosquitto, user="u", password="hunter3")
    with pytest.raises(OutputError, match="refuses the connection: Not authorized") as refused:
        Mqtt(wrong).open(WILL, wait=True)
    assert "hunter" not in f"{wrong!r}{wrong}{refused.value}{refused.value.hint}{log.lines}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates")
def test_a_certificate_is_verified(tmp_path: Path, serve: Callable[..., Mosquitto]) -> None:
    def make(name: str, subject: str, *more: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        command = ["openssl", "req", "-x509", *key, *files, "-subj", subject, "-days", "2", *more]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    make("ca", "/CN=Authority")
    make("other", "/CN=Another")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    make("broker", "/CN=broker", "-addext", "subjectAltName=DNS:localhost", *signed)
    files = [f"{key} {tmp_path / name}" for key, name in
             (("certfile", "broker.pem"), ("keyfile", "broker.key"))]  # fmt: skip
    mosquitto = serve(*files)

    def connect(host: str, ca: str | None) -> Mqtt:
        broker = Broker(host, mosquitto.port, tls=True, prefix="gate")
        bus = Mqtt(broker, None if ca is None else tmp_path / ca)
        bus.open(WILL, wait=True)
        return bus

    trusting = connect("localhost", "ca.pem")
    trusting.publish(Message("gate/alerts", b"{}", kept=True))
    trusting.close(WILL)
    assert (trusting.report().written, trusting.report().lost) == (2, 0)
    for host, ca in (("localhost", None), ("localhost", "other.pem"), ("127.0.0.1", "ca.pem")):
        with pytest.raises(OutputError, match="its certificate is not trusted") as refused:
            connect(host, ca)
        assert refused.value.hint is not None
    with pytest.raises(UsageError, match="expected certificates in PEM format"):
        connect("localhost", "broker.key")


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = Broker("127.0.0.1", server.getsockname()[1], tls=False, prefix="gate")
        bus = Mqtt(broker, patience=BrokerLimits(timeout_s=0.1))
        with pytest.raises(OutputError, match="no answer in time"):
            bus.open(WILL, wait=True)


def test_a_broker_that_is_not_there(
    edgeseg: Any, bright_network: Path, mosquitto: Mosquitto, make_video: Callable[..., Path]
) -> None:
    mosquitto.kill()
    url = f"mqtt://u:hunter2@127.0.0.1:{mosquitto.port}/gate"
    source = ("--source", make_video(5), "--alert", "bright > 0%", "--no-window", "--json")
    refused = edgeseg("stream", bright_network, *source, "--mqtt", url)
    assert refused.code == OutputError.exit_code
    assert "connection refused" in refused.document["error"]["message"]
    assert "--keep-trying" in refused.document["error"]["hint"]
    waiting = edgeseg("stream", bright_network, *source, "--mqtt", url, "--keep-trying")
    assert waiting.code == OutputError.exit_code
    assert waiting.document["frames"] == 5
    (sink,) = [each for each in waiting.document["sinks"] if each["kind"] == "Mqtt"]
    assert (sink["state"], sink["lost"]) == ("failed", 2)
    assert "hunter2" not in refused.out + refused.err + waiting.out + waiting.err
    mosquitto.start()
    well = edgeseg("stream", bright_network, *source, "--mqtt", url, "--strict")
    assert well.code == 0, well.err


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, mosquitto: Mosquitto) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(RuntimeMissing) as missing:
        Mqtt(at(mosquitto)).open(WILL, wait=True)
    assert missing.value.hint == "pip install 'edgeseg[mqtt]'"
