"""Options of messages to a broker, and the URL of the broker."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field

from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options

USER = "EDGESEG_MQTT_USER"
PASSWORD = "EDGESEG_MQTT_PASSWORD"

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_HINT = (
    "write mqtts://USER@HOST:PORT/PREFIX; percent-encode a password with : / ? # or @, or put it "
    f"in {PASSWORD}"
)


@dataclass(frozen=True)
class Broker:
    """An MQTT broker and the topic below which to publish; ``str`` shows no credentials.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: Whether to connect over TLS.
        prefix: First levels of all topics, e.g. ``edgeseg/gate``.
        user: User name; None to connect without one.
        password: Password; None for none.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker(text: str) -> Broker:
    """Parse ``mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/PREFIX]``.

    Ports default to 1883 and 8883, the prefix to ``edgeseg/NAME-OF-THE-MACHINE``.

    Raises:
        UsageError: It is not such a URL. The message quotes nothing of it, since it may hold a
            password.
    """
    parts = _split(text)
    userinfo, _, _ = parts.netloc.rpartition("@")
    user, colon, password = (unquote(part) for part in userinfo.partition(":"))
    if colon and not user:
        raise UsageError("the broker's URL has a password and no user", hint=_HINT)
    return Broker(
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        prefix=_prefix(unquote(parts.path).strip("/")),
        user=user or None,
        password=password if colon else None,
    )


def has_password(text: str) -> bool:
    """Whether the URL of a broker contains a password."""
    return ":" in urlsplit(text).netloc.rpartition("@")[0]


def with_login(broker: Broker, environ: Mapping[str, str]) -> Broker:
    """Return ``broker`` with what its URL lacks of user and password.

    They are read from ``EDGESEG_MQTT_USER`` and ``EDGESEG_MQTT_PASSWORD``.

    Raises:
        UsageError: There is a password without a user, which MQTT does not allow.
    """
    user = broker.user or environ.get(USER) or None
    password = broker.password
    if password is None:
        password = environ.get(PASSWORD) or None
    if password is not None and user is None:
        raise UsageError(
            f"{PASSWORD} is set, and no user is given for the broker",
            hint=f"write mqtts://USER@HOST, or export {USER}=…",
        )
    return replace(broker, user=user, password=password)


@dataclass(frozen=True)
class Messaging(Options):
    """Messages to a broker.

    ``mqtt_every`` is the least number of seconds between two results of one source; 0 publishes
    each of them.
    """

    mqtt: Annotated[
        Broker | None,
        Option(
            f"Publish results, states and alerts to this MQTT broker; password from {PASSWORD}.",
            metavar="mqtt[s]://[USER@]HOST[:PORT][/PREFIX]",
            parse=parse_broker,
            secret=has_password,
        ),
    ] = None
    mqtt_ca: Annotated[
        Path | None,
        Option("Additional CA certificates (PEM) to trust for the broker.", metavar="FILE"),
    ] = None
    mqtt_every: Annotated[
        float,
        Field(ge=0),
        Option("Seconds between two results of a source on MQTT; 0 for every frame."),
    ] = 1.0
    mqtt_discovery: Annotated[
        bool, Option("Announce sensors to Home Assistant by MQTT discovery.")
    ] = True

    def check(self) -> None:
        """Raise UsageError if certificates are given for no broker."""
        if self.mqtt_ca is not None and (self.mqtt is None or not self.mqtt.tls):
            raise UsageError(
                "--mqtt-ca needs a broker over TLS", hint="add --mqtt mqtts://HOST/PREFIX"
            )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or any(each <= " " or each == "\x7f" for each in text):
        raise UsageError("the broker is not an mqtt:// or mqtts:// URL", hint=_HINT)
    if parts.query or parts.fragment or "@" in parts.path:
        raise UsageError("the broker's URL has a '?', '#' or '@' after its host", hint=_HINT)
    return parts


def _prefix(text: str) -> str:
    """Check a topic; MQTT 3.1.1, section 4.7, reserves ``+``, ``#`` and a ``$`` at the start."""
    if not text:
        return f"edgeseg/{re.sub(r'[^A-Za-z0-9_.-]', '_', socket.gethostname())}"
    if re.search(r"[+#\0]|//", text) or text.startswith("$"):
        raise UsageError(
            "the prefix of a topic contains no '+', '#', empty level, or '$' at its start",
            hint="write mqtts://HOST/edgeseg/gate",
        )
    return text
