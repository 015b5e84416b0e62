"""Carry messages to an MQTT broker (OASIS MQTT 3.1.1) in a thread of its own."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.artifacts.documents import plural
from edgeseg.errors import OutputError, needed
from edgeseg.options.messaging import PASSWORD, Broker
from edgeseg.sources.server import Trust
from edgeseg.stream.messaging.bus import BrokerLimits, Message
from edgeseg.stream.sinks.health import Health, SinkReport

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

logger = logging.getLogger(__name__)

_IN_FLIGHT = 20
"""Messages handed to the library that the broker has not taken yet."""

_TICK_S = 0.5
"""Longest time in which the library does not look at its own timers."""


class Mqtt:
    """A connection to an MQTT broker that is made again whenever it is lost.

    One thread does all that waits for the network, and alone touches the library. Kept and
    retained messages have QoS 1, so that the broker acknowledges them; what was not acknowledged
    when a connection broke is sent again, and may arrive twice. The others have QoS 0.

    Args:
        broker: The broker, with user and password.
        ca: PEM file with certificates to trust in addition to the system's.
        patience: Limits.

    Raises:
        UsageError: ``ca`` does not exist.

    Attributes:
        label: Name in logs, without credentials.
    """

    def __init__(
        self, broker: Broker, ca: Path | None = None, patience: BrokerLimits | None = None
    ) -> None:
        self.label = f"the MQTT broker at {broker}"
        self._broker = broker
        self._tls = _context(ca) if broker.tls else None
        self._patience = patience or BrokerLimits()
        self._health = Health(self.label, "Mqtt")
        self._skipped = 0
        self._will = Message("", b"")
        self._required = False
        # All of these belong to the lock.
        self._changed = threading.Condition()
        self._newest: dict[str, Message] = {}
        self._retained: dict[str, Message] = {}
        self._kept: deque[Message] = deque()
        self._in_flight: list[tuple[MQTTMessageInfo, Message]] = []
        self._refusal: OutputError | None = None
        self._connected = False
        self._closing_by: float | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="edgeseg MQTT", daemon=True)

    def open(self, will: Message, *, wait: bool) -> None:
        """Start the thread; see :class:`~edgeseg.stream.messaging.Bus`."""
        with needed("MQTT needs", "mqtt"):
            import paho.mqtt.client  # noqa: F401 - looked for, used later
        if self._broker.password and self._tls is None and not _is_here(self._broker.host):
            logger.warning("%s receives the password unencrypted; use mqtts://", self.label)
        self._will = will
        self._required = wait
        self._thread.start()
        if not wait:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refusal is not None)
            refusal = self._refusal
        if refusal is not None:
            self._end()
            raise refusal

    def publish(self, message: Message) -> None:
        """Queue a message; never blocks."""
        with self._changed:
            if message.kept:
                if len(self._kept) >= self._patience.places:
                    self._kept.popleft()
                    self._health.loses()
                self._kept.append(message)
            else:
                if message.retained:
                    self._retained[message.topic] = message
                elif message.topic in self._newest or not self._connected:
                    self._skipped += 1
                if message.retained or self._connected:
                    self._newest[message.topic] = message
        self._ring()

    def close(self, last: Message) -> None:
        """Deliver what can be delivered soon; the rest is counted and logged."""
        self.publish(last)
        self._end()
        with self._changed:
            undelivered = len(self._kept)
            for _ in self._kept:
                self._health.loses()
            self._kept.clear()
        if undelivered:
            logger.error("%s: %s could not be delivered", self.label, plural(undelivered, "alert"))

    def report(self) -> SinkReport:
        """Return the current status; callable from any thread."""
        with self._changed:
            return replace(self._health.report(), skipped=self._skipped)

    def _end(self) -> None:
        with self._changed:
            self._closing_by = time.monotonic() + self._patience.close_s
            self._changed.notify_all()
        self._ring()
        if self._thread.ident is not None:
            self._thread.join(self._patience.close_s + _TICK_S)
        if not self._thread.is_alive():
            os.close(self._wake)
            self._wake = -1

    def _ring(self) -> None:
        """Wake the thread, should it wait for the network."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            try:
                self._session()
            except Exception as error:  # of the library too: the thread must not end by itself
                self._fail(error)
            with self._changed:
                self._changed.wait_for(lambda: self._is_over, self._health.due_in)
                if self._is_over:
                    return

    @property
    def _is_over(self) -> bool:
        return self._closing_by is not None or self._refusal is not None

    def _session(self) -> None:
        """Connect and deliver until the stream ends; raises what breaks the connection."""
        client = self._client()
        try:
            client.connect(self._broker.host, self._broker.port, self._patience.keepalive_s)
            self._await_answer(client)
            self._begin()
            while not self._finished(client):
                self._deliver(client)
                self._turn(client)
        finally:
            self._interrupted()
            with contextlib.suppress(OSError):
                if (connection := client.socket()) is not None:
                    connection.close()

    def _client(self) -> Client:
        """Make a client of the library: a new one each time, without messages of the last."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2, client_id=_client_id(self._broker.prefix))
        client.connect_timeout = self._patience.timeout_s
        client.will_set(self._will.topic, self._will.body, qos=1, retain=self._will.retained)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        return client

    def _await_answer(self, client: Client) -> None:
        """Wait until the broker has accepted; raises OSError or OutputError if it does not."""
        answers: list[str] = []

        def answered(
            _client: object, _data: object, _flags: object, code: object, _: object
        ) -> None:
            answers.append(str(code))

        client.on_connect = answered
        until = time.monotonic() + self._patience.timeout_s
        while not answers:
            if time.monotonic() >= until:
                raise TimeoutError
            self._turn(client)
        if answers[0] != "Success":
            raise OutputError(
                f"it refuses the connection: {answers[0]}",
                hint=f"check the user in the URL and the password in {PASSWORD}",
            )

    def _begin(self) -> None:
        """Note that the connection is up; all retained messages are published again."""
        with self._changed:
            self._connected, self._required = True, False
            self._newest = dict(self._retained)
            self._changed.notify_all()

    def _interrupted(self) -> None:
        """Take back what was not acknowledged."""
        with self._changed:
            self._connected = False
            self._settle()
            self._kept.extendleft(
                message for _, message in reversed(self._in_flight) if message.kept
            )
            self._in_flight.clear()

    def _deliver(self, client: Client) -> None:
        """Hand messages to the library, as many as may be in flight."""
        while True:
            with self._changed:
                self._settle()
                message = self._next()
            if message is None:
                return
            qos = 1 if message.kept or message.retained else 0
            info = client.publish(message.topic, message.body, qos, message.retained)
            with self._changed:
                self._in_flight.append((info, message))

    def _next(self) -> Message | None:
        if len(self._in_flight) >= _IN_FLIGHT:
            return None
        if self._newest:
            return self._newest.pop(next(iter(self._newest)))
        return self._kept.popleft() if self._kept else None

    def _settle(self) -> None:
        """Count what the broker took."""
        waiting = [
            (info, message)
            for info, message in self._in_flight
            if info.rc != 0 or not info.is_published()  # acknowledged, or with QoS 0 sent
        ]
        for _ in range(len(self._in_flight) - len(waiting)):
            self._health.works()
        self._in_flight = waiting

    def _turn(self, client: Client) -> None:
        """Wait for the network or for a message, and let the library read and write."""
        from paho.mqtt.enums import MQTTErrorCode

        connection = client.socket()
        if connection is None:
            raise ConnectionResetError
        # Not select.select(), which the library's own loop uses: it ends at descriptor 1,023.
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN | client.want_write() * select.POLLOUT)
        poll.register(self._wake, select.POLLIN)
        buffered = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        ready = dict(poll.poll(0 if buffered else _TICK_S * 1000))
        if ready.pop(self._wake, 0):
            os.eventfd_read(self._wake)
        if buffered or any(mask & ~select.POLLOUT for mask in ready.values()):
            client.loop_read()
        if any(mask & select.POLLOUT for mask in ready.values()):
            client.loop_write()
        if client.loop_misc() == MQTTErrorCode.MQTT_ERR_CONN_LOST:
            raise TimeoutError  # nothing came for the time of the keepalive

    def _finished(self, client: Client) -> bool:
        """Whether the stream has ended and all was delivered, or the time for it is over."""
        with self._changed:
            if self._closing_by is None:
                return False
            self._settle()
            if self._newest or self._kept or self._in_flight:
                # The broker publishes the last will of a connection that just breaks.
                return time.monotonic() >= self._closing_by
        client.disconnect()
        return True

    def _fail(self, error: Exception) -> None:
        reason = error if isinstance(error, OutputError) else _explained(error)
        with self._changed:
            if self._required:
                self._refusal = OutputError(f"{self.label}: {reason.message}", hint=reason.hint)
                self._changed.notify_all()
            elif self._closing_by is None or self._kept:
                self._health.fails(reason, lost=0)


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; the library then forgets it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _context(ca: Path | None) -> ssl.SSLContext:
    context = Trust(ca).context()
    context.sslsocket_class = _Socket
    return context


def _is_here(host: str) -> bool:
    """Whether it is an address of this machine that no other reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client_id(prefix: str) -> str:
    """Return the same name for each run of a stream.

    A broker that has not yet noticed the end of an earlier connection then publishes the last
    will of that one before the new connection begins, not after.
    """
    digest = hashlib.sha256(f"{socket.gethostname()}\0{prefix}".encode()).hexdigest()
    return f"edgeseg-{digest[:12]}"


def _explained(error: Exception) -> OutputError:
    """Say what is wrong with a connection, in words that hold no secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OutputError(
            f"its certificate is not trusted: {error.verify_message}",
            hint="--mqtt-ca FILE.pem trusts an authority of your own",
        )
    if isinstance(error, ssl.SSLError):
        return OutputError(
            f"no TLS connection: {error.reason}", hint="mqtt:// connects without TLS"
        )
    if isinstance(error, TimeoutError):
        return OutputError("no answer in time", hint="check the address and the port")
    if isinstance(error, socket.gaierror):
        return OutputError("its name has no address", hint="check the name in the URL")
    if isinstance(error, ConnectionResetError):
        return OutputError("it closed the connection", hint="its log says why")
    reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else ""
    return OutputError(
        reason or f"no connection ({type(error).__name__})",
        hint="start the broker, or wait for it with --keep-trying",
    )
