"""Uvicorn in a thread of its own that clients cannot exhaust, and that ends on request.

Uvicorn accepts all connections there are, whatever descriptors they take from the stream's files.
Here they are accepted one by one, at a bounded rate, and a new one takes the place of another
where there are too many. It installs no signal handlers: uvicorn does so in the main thread only.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import resource
import socket
import threading
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeseg.stream.web.guard import Seldom

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_LONGEST_HEAD = 16 * 1024
_STARTED_S = 5.0
_GRACE_S = 0.2
"""How long answers that are under way at the end have to arrive."""

_ENDED_S = 2.0

_ACCEPT_S = 0.002
"""Between two connections that are accepted: a flood of them leaves the interpreter to frames."""

_RESERVE = 256
"""Descriptors that are left to cameras and files; half of all where there are few."""

logger = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.uvicorn")
_quiet.setLevel(logging.CRITICAL)  # what clients send must not fill the log


class ServerThread:
    """Serves ``app`` on a socket that listens.

    Args:
        app: What to serve. It closes the connections of strangers with its answer, so that one
            that has had an answer and is still there is a viewer's.
        listening: Closed at the end.
        connections: How many are held. A new one beyond takes the place of one on which nothing
            was asked for, of the address that has most connections.
        idle_s: A connection on which no request is under way and no answer is left to take is
            closed after so long, one whose request never gets complete included.
    """

    def __init__(
        self, name: str, app: ASGIApp, listening: socket.socket, *, connections: int, idle_s: float
    ) -> None:
        config = uvicorn.Config(
            app,
            http=functools.partial(_Connection, idle_s=idle_s),  # type: ignore[arg-type] # is called only
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )
        self._server = _Server(config, name, connections)
        self._listening = listening
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"edgeseg {name}", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the server does not start; then it is closed."""
        try:
            self._thread.start()
            self._server.serving.wait(_STARTED_S)
            self.check()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raises RuntimeError where the server has ended by itself."""
        if not self._thread.is_alive():
            raise RuntimeError(f"its server ended: {self._error!r}")

    def close(self) -> None:
        """End it: answers under way have a moment, then all connections are cut."""
        if self._thread.ident is not None:
            self._server.should_exit = True
            self._thread.join(_ENDED_S)
        self._listening.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._listening]))
        except BaseException as error:  # uvicorn ends with SystemExit where it cannot start
            self._error = error
        finally:
            self._server.serving.set()


class _Connection(H11Protocol):
    """One client, which has ``idle_s`` seconds for each of its requests."""

    def __init__(self, *args: Any, idle_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _quiet
        self.address = ""
        self._idle_s = idle_s

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or the client has not taken all of its answer yet."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # writing resumes when all was taken
        self.address = owner(self.client[0] if self.client else "")
        self.used_at = self.loop.time()
        self._patience = self.loop.call_later(self._idle_s, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.used_at = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Called when the client has taken all of an answer that did not fit into its buffers."""
        self.used_at = self.loop.time()
        super().resume_writing()

    def _close_if_idle(self) -> None:
        """Close where for too long no request was answered and none is under way."""
        left = self._idle_s if self.busy else self.used_at + self._idle_s - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._patience = self.loop.call_later(left, self._close_if_idle)


class _Server(uvicorn.Server):
    """Accepts by itself, says when it serves, and cuts connections that do not end in time."""

    def __init__(self, config: uvicorn.Config, name: str, limit: int) -> None:
        super().__init__(config)
        self.serving = threading.Event()
        self._name, self._limit = name, limit
        self._warn = Seldom(logger)

    @property
    def _connections(self) -> set[_Connection]:
        return cast("set[_Connection]", self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        asyncio.get_running_loop().set_exception_handler(self._complain)
        assert sockets is not None
        (listening,) = sockets
        listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(listening))
        self.serving.set()

    async def on_tick(self, counter: int) -> bool:
        if self._accepting.done():
            self._accepting.result()  # raises what ended it
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        asyncio.get_running_loop().call_later(_GRACE_S, self._cut)
        await super().shutdown(sockets)
        await asyncio.sleep(0)  # transports close at the loop's next turn

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ACCEPT_S)
            try:
                client, _ = await loop.sock_accept(listening)
                await loop.connect_accepted_socket(self._protocol, client)
            except OSError as error:  # no descriptor or memory is left, or the client has gone
                self._warn(f"the {self._name} cannot accept a connection: {error!r}")
                await asyncio.sleep(_GRACE_S)
                continue
            if client.fileno() >= _descriptors_of_connections():
                self._warn(f"the {self._name} closed connections to leave descriptors to files")
                self._make_room(2)  # one would leave as many as there were
            elif len(self._connections) > self._limit:
                self._warn(f"the {self._name} closed one of more than {self._limit} connections")
                self._make_room(1)

    def _make_room(self, places: int) -> None:
        left = self._connections.copy()
        for _ in range(min(places, len(left))):
            going = last_in_line(left)
            left.remove(going)
            going.transport.abort()

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg] # as uvicorn itself does
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        reason = context.get("exception") or context["message"]
        self._warn(f"the {self._name} had trouble with a connection: {reason!r}")

    def _cut(self) -> None:
        for connection in self._connections.copy():
            connection.transport.abort()


def _descriptors_of_connections() -> int:
    """The number below which the descriptor of a connection must be, for files to have the rest.

    The kernel gives each the lowest number that is free.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft - min(_RESERVE, soft // 2)


def last_in_line(connections: Collection[_Connection]) -> _Connection:
    """Which of them goes where there are too many.

    Those go first on which nothing was asked for, then those on which nothing is under way; of
    these, those of the address that has most; of these, the one that was used longest ago.
    """
    crowd = Counter(each.address for each in connections)

    def rank(each: _Connection) -> tuple[bool, bool, int, float]:
        return each.cycle is not None, each.busy, -crowd[each.address], each.used_at

    return min(connections, key=rank)


def owner(host: str) -> str:
    """The address that stands for a client; of IPv6 the network of 64 bits that one is given."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return host
