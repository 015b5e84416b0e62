"""The web view as a sink."""

from __future__ import annotations

import functools
import logging
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeseg.card import ClassMap
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Company, Sink, Source
from edgeseg.stream.web.address import Address, browse_to, listen, parse_address
from edgeseg.stream.web.guard import Rules
from edgeseg.stream.web.hub import Hub
from edgeseg.stream.web.packets import encode
from edgeseg.stream.web.status import About, Status

if TYPE_CHECKING:
    from edgeseg.stream.web.server import ServerThread

_log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9._~\-]{16,256}")


@dataclass(frozen=True)
class WebLimits:
    """What the view allows.

    Attributes:
        connections: At a time; a page that is open takes two or three.
        largest: Side of pictures, in pixels, beyond which they are sent scaled down.
        idle_s: A connection on which no request is under way is closed after so long.
        unread_s: A client that takes nothing of its answer for so long is cut off.
    """

    connections: int = 32
    largest: int = 1280
    idle_s: float = 10.0
    unread_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.connections, self.largest, self.idle_s, self.unread_s) <= 0:
            raise UsageError("the limits of the web view are positive numbers")


class WebView(Sink):
    """Serves a page with the live picture of each source.

    The picture and its label map are sent side by side and the browser lays them over each
    other. Nothing is encoded while nobody looks; see :mod:`edgeseg.stream.web.app` for what may
    be asked for.

    Args:
        classes: Names and colours.
        address: ``[HOST:]PORT``; without host this machine alone can reach it. Port 0 is any
            that is free.
        token: That clients must show, letters, digits and ``._~-``, 16 at least. On an address
            that others can reach one is made where none is given.
        hosts: Names by which browsers may call it, besides those of this machine.
        about: The engine, for the page's head.
        limits: What it allows.

    Attributes:
        url: What to open in a browser, the token included; empty before :meth:`open`.

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
        _require()
        self._address = parse_address(address)
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError(
                "a token of the web view has 16 to 256 letters, digits, '.', '_', '~' or '-'",
                mend="leave it out where the view is not for this machine alone: one is made",
            )
        if token is None and not self._address.loopback:
            token = secrets.token_urlsafe(24)
        self._token = token
        self._hosts = [host.lower().rstrip(".") for host in hosts]
        self._classes, self._about = classes, about
        self._limits = limits or WebLimits()
        self._company = Company()
        self._hub: Hub | None = None
        self._status: Status | None = None
        self._server: ServerThread | None = None
        self.url = ""

    def __str__(self) -> str:
        return f"the web view at {self._address}"

    def prepare(self, company: Company) -> None:
        """Learn of the other outputs."""
        self._company = company

    def open(self, sources: Sequence[Source]) -> None:
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
        self._status = Status(sources, self._classes, self._about, self._company)
        self._hub = Hub(self._status.cameras, functools.partial(encode, largest=limits.largest))
        app = build_app(self._hub, self._status, self._rules())
        self._server = ServerThread(
            app, listening, connections=limits.connections, idle_s=limits.idle_s
        )
        try:
            self._server.start()
        except BaseException:
            self.close()
            raise
        query = "" if self._token is None else f"?token={self._token}"
        self.url = f"http://{browse_to(self._address)}/{query}"
        _log.info("web view: %s", self.url)

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

    def _rules(self) -> Rules:
        own = {self._address.host, "localhost"}
        if not self._address.loopback:
            name = socket.gethostname().lower()
            own |= {name, f"{name}.local", name.partition(".")[0]}
        return Rules(
            token=self._token,
            hosts=frozenset(own) | frozenset(self._hosts),
            loopback=self._address.loopback,
            port=self._address.port,
        )


def _require() -> None:
    try:
        import starlette  # noqa: F401 - looked for, used later
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise RuntimeMissing(
            f"the web view needs Starlette and uvicorn, which are not installed ({error})",
            mend="pip install 'edgeseg[web]', or leave --web out",
        ) from error
