"""The routes of the web view.

============================= ===========================================================
``/``                         the page
``/frames?after=0:17,1:0``    packets of sources that have another than the one seen, as soon
                              as there is one; 204 after two seconds without
``/status``                   the sources and totals, JSON
``/history?after=SECOND``     figures second by second, JSON
``/healthz``                  200 while frames come from a source at least and no output has
                              failed, else 503; names the kinds of those that have
============================= ===========================================================

While as many requests are under way as are allowed, more are answered 503, but for ``/healthz``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from edgeseg.stream.web.guard import OPEN_PATHS, Guard, Rules
from edgeseg.stream.web.hub import Hub
from edgeseg.stream.web.status import Status

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_PAGE = {
    "index.html": "text/html; charset=utf-8",
    **dict.fromkeys(
        ("app.js", "ask.js", "charts.js", "picture.js", "tile.js"), "text/javascript; charset=utf-8"
    ),
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_WAIT_S = 2.0
"""How long ``/frames`` waits: a client that went away is forgotten after it."""

_SEEN = re.compile(r"\d{1,4}:\d{1,18}(?:,\d{1,4}:\d{1,18})*")


def build_app(hub: Hub, status: Status, rules: Rules, requests: int) -> ASGIApp:
    """An ASGI application, guarded, that answers so many requests at a time."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def frames(request: Request) -> Response:
        text = request.query_params.get("after", "")
        seen = _parse_seen(text)
        if seen is None or not seen.keys() <= status.cameras:
            return PlainTextResponse("after is SOURCE:NUMBER,… of sources that there are", 400)
        kind = "application/vnd.edgeseg.packets"
        if request.method == "HEAD":
            return Response(media_type=kind)
        packets = [await hub.packet(camera) for camera in await hub.news(seen, _WAIT_S)]
        body = b"".join(packets)
        return Response(body, media_type=kind) if body else Response(status_code=204)

    async def describe(_: Request) -> Response:
        return JSONResponse(status.describe())

    async def history(request: Request) -> Response:
        text = request.query_params.get("after", "-1")
        if not re.fullmatch(r"-1|\d{1,12}", text):
            return PlainTextResponse("after is the number of a second", 400)
        return JSONResponse(status.chronicle(int(text)))

    async def health(_: Request) -> Response:
        failed = status.failed
        ok = status.delivering and not failed
        return JSONResponse({"ok": ok} | ({"failed": failed} if failed else {}), 200 if ok else 503)

    routes = [
        Route("/frames", frames),
        Route("/status", describe),
        Route("/history", history),
        Route("/healthz", health),
        *(Route(path, page) for path, page in _page()),
    ]
    # The guard is outside: what it refuses to strangers takes no place from viewers.
    return Guard(_Bounded(Starlette(routes=routes), requests), rules)


class _Bounded:
    """ASGI middleware that answers 503 while as many requests are under way as there may be."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        from starlette.responses import PlainTextResponse

        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._under_way >= self._limit:
            await PlainTextResponse("too many requests are under way", 503)(scope, receive, send)
        else:
            self._under_way += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._under_way -= 1


def _page() -> list[tuple[str, Callable[[Request], Response]]]:
    """Path and endpoint of each file of the page, read once."""
    from starlette.responses import Response

    folder = resources.files("edgeseg.stream.web") / "page"

    def endpoint(name: str) -> Callable[[Request], Response]:
        body, kind = (folder / name).read_bytes(), _PAGE[name]
        return lambda _: Response(body, media_type=kind)

    return [("/" if name == "index.html" else f"/{name}", endpoint(name)) for name in _PAGE]


def _parse_seen(text: str) -> dict[int, int] | None:
    """``0:17,1:0`` as source → number; None where it is something else."""
    if not _SEEN.fullmatch(text):
        return None
    pairs = (pair.split(":") for pair in text.split(","))
    return {int(camera): int(number) for camera, number in pairs}
