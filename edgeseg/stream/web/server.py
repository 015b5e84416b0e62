"""Uvicorn in a thread of its own, with limits, that ends when it is told to.

It installs no signal handlers: uvicorn does so in the main thread only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_LONGEST_HEAD = 16 * 1024
_STARTED_S = 5.0
_GRACE_S = 0.2
"""How long answers that are under way at the end have to arrive."""

_ENDED_S = 2.0

_quiet = logging.getLogger(f"{__name__}.uvicorn")
_quiet.setLevel(logging.CRITICAL)  # what clients send must not fill the log


class ServerThread:
    """Serves ``app`` on a socket that listens.

    Args:
        app: What to serve.
        listening: Closed at the end.
        connections: At most; a client beyond is answered 503.
        idle_s: A connection on which no request is under way is closed after so long, one
            whose request never gets complete included.
    """

    def __init__(
        self, app: ASGIApp, listening: socket.socket, *, connections: int, idle_s: float
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_impatient(idle_s),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections + 1,  # uvicorn refuses the one that makes it full
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )
        self._server = _Server(config)
        self._listening = listening
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgeseg web", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the server does not start."""
        self._thread.start()
        self._server.serving.wait(_STARTED_S)
        self.check()

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


class _Server(uvicorn.Server):
    """Says when it serves, and cuts connections that do not end in time."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(_GRACE_S, self._cut)
        await super().shutdown(sockets)
        await asyncio.sleep(0)  # transports close at the loop's next turn

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _impatient(idle_s: float) -> type[H11Protocol]:
    """A protocol that gives a connection without a request ``idle_s`` seconds."""

    class Impatient(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.logger = _quiet
            self._answered: object = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._patience = self.loop.call_later(idle_s, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            """Close where since the last look no request was answered and none is under way."""
            busy = self.cycle is not None and not self.cycle.response_complete
            if not busy and self.cycle is self._answered:
                self.transport.abort()
                return
            self._answered = self.cycle
            self._patience = self.loop.call_later(idle_s, self._look)

    return Impatient
