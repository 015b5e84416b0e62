"""Debian's MQTT broker on loopback, and a client that hears all that is published there."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE_S = 30.0


class Mosquitto:
    """A broker that can be ended and started again on the same port.

    Args:
        folder: For its configuration, and for what it keeps between two runs.
        lines: More of its configuration, e.g. ``persistence true``.
    """

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        access = [] if any("password_file" in line for line in lines) else ["allow_anonymous true"]
        self._config.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    f"user {getpass.getuser()}",
                    f"persistence_location {folder}/",
                    "log_dest stderr",
                    *access,
                    *lines,
                ]
            )
        )
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        command = [MOSQUITTO, "-c", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "running" in line:
                return
        raise AssertionError("".join(said))

    def pause(self) -> None:
        """As a network does that is cut: no connection ends, and nothing comes."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut does."""
        self._process.kill()
        self._ended()

    def stop(self) -> None:
        """With time to write what it keeps."""
        self._process.terminate()
        self._ended()

    def _ended(self) -> None:
        self._process.wait(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()


class Listener:
    """A subscriber to all topics.

    Args:
        broker: Where it listens.
        name: Name of a session that the broker keeps while this is away; None for none.
        login: User and password.
    """

    def __init__(
        self, broker: Mosquitto, name: str | None = None, login: tuple[str, str] | None = None
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[tuple[str, str, bool]] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=name or "", clean_session=name is None
        )
        if login:
            self._client.username_pw_set(*login)
        self._client.on_message = self._hear
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def _hear(self, _client: object, _data: object, message: Any) -> None:
        with self._changed:
            self.heard.append((message.topic, message.payload.decode(), message.retain))
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was heard fulfils ``condition``."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), self.heard

    def of(self, topic: str) -> list[Any]:
        """All that was heard on a topic, read as JSON where it is."""
        with self._changed:
            return [_read(text) for at, text, _ in self.heard if at == topic]

    def first(self, topic: str, condition: Callable[[Any], bool] = lambda _: True) -> Any:
        """Wait for a message on ``topic`` that fulfils ``condition``, and return it."""
        self.until(lambda: any(map(condition, self.of(topic))))
        return next(filter(condition, self.of(topic)))

    def settle(self) -> None:
        """Wait until all has arrived that the broker had for this listener so far."""
        self._client.publish("settled")
        self.first("settled")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _read(text: str) -> Any:
    return json.loads(text) if text.startswith(("{", "[")) else text


needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="no mosquitto (apt-get install mosquitto)"
)
