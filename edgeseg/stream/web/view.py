"""The web view as a sink."""

from __future__ import annotations

import functools
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import UsageError, needed
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.web.address import Address, browse_to, listen, parse_address
from edgeseg.stream.web.guard import Rules
from edgeseg.stream.web.hub import Hub, encode
from edgeseg.stream.web.status import About, Status

if TYPE_CHECKING:
    from edgeseg.stream.web.server import ServerThread

logger = logging.getLogger(__name__)

SPARE = 16
"""Connections beyond those on which requests are answered: for probes, and to answer 503."""

_TOKEN = re.compile(r"[A-Za-z0-9._~\-]{16,256}")


@dataclass(frozen=True)
class WebLimits:
    """What the view allows.

    Attributes:
        requests: How many are answered at a time; a page that is open has one or two under way.
        largest: Side of pictures, in pixels, beyond which they are sent scaled down.
        idle_s: Seconds after which a connection is closed if no request is under way and the
            client has taken all of the last answer.
        unread_s: Seconds after which a client that takes nothing of its answer is cut off.
    """

    requests: int = 32
    largest: int = 1280
    idle_s: float = 10.0
    unread_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.requests, self.largest, self.idle_s, self.unread_s) <= 0:
            raise UsageError("the limits of the web view are positive numbers")


class WebView(Sink):
    """Serves a page with the live picture of each source.

    The picture and its label map are sent side by side and the browser lays them over each
    other. Nothing is encoded without viewers; see :mod:`edgeseg.stream.web.app` for what may
    be asked for.

    Args:
        classes: Names and colours.
        address: ``[HOST:]PORT``; without host this machine alone can reach it. Port 0 is any
            that is free.
        token: What clients must show, letters, digits and ``._~-``, 16 at least. On an address
            that others can reach one is made where none is given; only such a one is logged.
        hosts: Names by which browsers may call it, besides those of this machine.
        about: The engine, for the page's head.
        limits: What it allows.

    Attributes:
        url: What to open in a browser; empty before :meth:`open`. It holds the token where it
            was made here, never one that the user gave.

    Raises:
        UsageError: The address or the token is none.
        RuntimeMissing: Starlette or uvicorn is not installed.
    """

    retry = "later"

    def __init__(
        self,
        classes: ClassMap,
        address: str = "127.0.0.1:8080",
        *,
        token: str | None = None,
        hosts: Sequence[str] = (),
        about: About | None = None,
        limits: WebLimits | None = None,
    ) -> None:
        with needed("the web view needs", "web"):
            import starlette  # noqa: F401 - looked for, used later
            import uvicorn  # noqa: F401
        self._address = parse_address(address)
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError(
                "a token of the web view has 16 to 256 letters, digits, '.', '_', '~' or '-'",
                hint="omit it to have one generated where other machines can reach the page",
            )
        made = secrets.token_urlsafe(24) if not self._address.loopback else None
        self._token = made if token is None else token
        self._query = f"?token={made}" if made and token is None else ""
        self._hosts = hosts
        self._classes, self._about = classes, about
        self._limits = limits or WebLimits()
        self._hub: Hub | None = None
        self._status: Status | None = None
        self._server: ServerThread | None = None
        self.url = ""

    def __str__(self) -> str:
        return f"the web view at {self._address}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Listen and serve; the log says where.

        Raises:
            OutputError: The port is in use, or the address is not there yet.
            UsageError: The port is not ours to take.
        """
        from edgeseg.stream.web.app import build_app
        from edgeseg.stream.web.server import ServerThread

        limits = self._limits
        listening = listen(self._address, limits.unread_s)
        self._address = Address(self._address.host, listening.getsockname()[1])
        self._status = Status(sources, self._classes, self._about, self.context)
        self._hub = Hub(self._status.cameras, functools.partial(encode, largest=limits.largest))
        rules = Rules.of(self._address, self._hosts, self._token)
        app = build_app(self._hub, self._status, rules, limits.requests)
        self._server = ServerThread(
            "web view", app, listening, connections=limits.requests + SPARE, idle_s=limits.idle_s
        )
        self._server.start()
        self.url = f"http://{browse_to(self._address)}/{self._query}"
        logger.info("web view: %s", self.url)

    def write(self, result: StreamResult) -> None:
        """Leave the result for those who look.

        Raises:
            RuntimeError: The server has ended by itself.
        """
        assert self._hub is not None
        assert self._status is not None
        self.idle()
        self._status.add(result)
        self._hub.put(result)

    def idle(self) -> None:
        """Raises RuntimeError where the server has ended by itself."""
        assert self._server is not None
        self._server.check()

    def close(self) -> None:
        """Stop serving, within a second though clients hang."""
        if self._hub is not None:
            self._hub.close()
        if self._server is not None:
            self._server.close()
