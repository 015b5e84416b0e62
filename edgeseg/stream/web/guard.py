"""Who may request what from the page and the metrics, and the headers that tell browsers.

On a loopback address any program of this machine may ask, but no web site may: a site whose
name its owner points at 127.0.0.1 (DNS rebinding) sends its own name as Host. On any other
address the token keeps strangers out.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeseg.stream.web.address import Address, ip_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EVERY_S = 60.0


class Seldom:
    """Writes one warning a minute at most, with how often there was cause since the last one.

    Args:
        log: Where the warnings go.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._causes = 0
        self._next = 0.0

    def __call__(self, text: str) -> None:
        """Count a cause; ``text`` is written where no warning was within the last minute."""
        self._causes += 1
        now = time.monotonic()
        if now >= self._next:
            self._log.warning("%s (%d since the last such line)", text, self._causes)
            self._causes, self._next = 0, now + _EVERY_S


logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/style.css", "/icon.svg"})
"""What needs no token: it tells nothing but whether frames come."""

_LONGEST_QUERY = 2048

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Rules:
    """Who may ask.

    Attributes:
        token: What every client must show; None for nothing.
        hosts: Names by which the server may be called, lower case.
        loopback: Numbers other than those of this machine itself are refused as Host.
        port: The server's own; cookies do not tell ports apart, so theirs has it in its name.
    """

    token: str | None = field(repr=False)
    hosts: frozenset[str]
    loopback: bool
    port: int

    @classmethod
    def of(cls, address: Address, hosts: Sequence[str] = (), token: str | None = None) -> Rules:
        """The rules of a server that listens at ``address``.

        Args:
            address: Its names and, where others can reach it, those of this machine are allowed.
            hosts: More names, as users give them.
            token: What every client must show.
        """
        own = {address.host, "localhost", *(host.lower().rstrip(".") for host in hosts)}
        if not address.loopback:
            name = socket.gethostname().lower()
            own |= {name, f"{name}.local", name.partition(".")[0]}
        return cls(token, frozenset(own), address.loopback, address.port)

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token."""
        return f"edgeseg-{self.port}"

    def right(self, given: str | None) -> bool:
        """Whether ``given`` is the token, in a time that does not depend on what is given."""
        # Digests have one length; compare_digest tells the length of its arguments.
        both = ((text or "").encode("utf-8", "surrogatepass") for text in (given, self.token))
        return hmac.compare_digest(*(hashlib.sha256(data).digest() for data in both))

    def calls_us(self, host: str) -> bool:
        """Whether a Host header, with or without port, names this view."""
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found["name"].strip("[]").rstrip(".")
        ip = ip_of(name)
        if ip is not None and (ip.is_loopback or not self.loopback):
            return True
        return name in self.hosts


class Guard:
    """ASGI middleware that answers what may not be asked, and adds the headers to all answers.

    Answers to those who showed no token close the connection: strangers pay for each request
    with a new one, and those are accepted at a bounded rate.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._warn = Seldom(logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        from starlette.requests import Request

        if scope["type"] != "http":
            return
        refused = refusal(Request(scope), self._rules)
        strange = refused is not None or scope["path"] in OPEN_PATHS
        headers = _HEADERS | ({"Connection": "close"} if strange else {})
        try:
            await (refused or self._app)(scope, receive, _with_headers(send, headers))
        except Exception as error:
            # Starlette has sent status 500 by now; one line is enough for the log.
            self._warn(f"cannot answer {scope['path']!r}: {error!r}")


def refusal(request: Request, rules: Rules) -> Response | None:
    """What to answer instead of what was asked for; None where it may be asked for.

    The path is that of the request line: ``request.url`` is put together with the Host header,
    which the client chooses.
    """
    from starlette.responses import PlainTextResponse

    path: str = request.scope["path"]
    malformed = _malformed(request)
    if malformed is not None:
        return malformed
    if not rules.calls_us(request.headers.get("host", "")):
        return PlainTextResponse(
            "This name is not one of this server's; start the stream with --web-host NAME "
            "to allow it.",
            421,
        )
    # A page of another site loads this (Fetch Metadata, W3C).
    loads = request.headers.get("sec-fetch-mode") != "navigate"
    if loads and request.headers.get("sec-fetch-site") == "cross-site":
        return PlainTextResponse("other sites may link here, not load from here", 403)
    if rules.token is None or path in OPEN_PATHS:
        return None
    return _unless_it_has_the_token(request, rules)


def _malformed(request: Request) -> Response | None:
    from starlette.responses import PlainTextResponse

    if request.method not in ("GET", "HEAD"):
        return PlainTextResponse("GET and HEAD only", 405, {"Allow": "GET, HEAD"})
    if len(request.scope["path"]) + len(request.scope["query_string"]) > _LONGEST_QUERY:
        return PlainTextResponse("the address is too long", 414)
    headers = request.headers
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return PlainTextResponse("requests have no body here", 413)
    return None


def _unless_it_has_the_token(request: Request, rules: Rules) -> Response | None:
    from starlette.responses import HTMLResponse, PlainTextResponse

    at_door = request.scope["path"] == "/"
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and rules.right(bearer.strip()):
        return None
    if at_door and "token" in request.query_params:
        if rules.right(request.query_params["token"]):
            return _hand_over_the_cookie(rules)
    elif rules.right(request.cookies.get(rules.cookie)):
        return None
    challenge = {"WWW-Authenticate": 'Bearer realm="edgeseg"'}
    if at_door:
        wrong = "That token is not right. " if "token" in request.query_params else ""
        return HTMLResponse(_DOOR.format(wrong=wrong), 401, challenge)
    return PlainTextResponse("a token is needed", 401, challenge)


def _hand_over_the_cookie(rules: Rules) -> Response:
    """A page that moves on by itself to the address without the token.

    A redirect would not do: browsers keep a Strict cookie back through a redirect that another
    site's link began, such as one in a web mail.
    """
    from starlette.responses import HTMLResponse

    response = HTMLResponse(_WELCOME)
    response.set_cookie(rules.cookie, rules.token or "", httponly=True, samesite="strict")
    return response


def _with_headers(send: Send, headers: dict[str, str]) -> Callable[[MutableMapping[str, Any]], Any]:
    added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return send_more


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edgeseg</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="icon.svg"><link rel="stylesheet" href="style.css">{more}</head>"""

_WELCOME = (
    _HEAD.format(more='<meta http-equiv="refresh" content="0;url=./">')
    + '<body class="door"><main><p><a href="./">To the live view</a></p></main></body></html>'
)

_DOOR = (
    _HEAD.format(more="")
    + """<body class="door"><main><h1>edgeseg</h1>
<p>{wrong}This view needs its token: it is in the address that the stream printed.</p>
<form method="get" action="./"><label>Token
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Open</button></form></main></body></html>"""
)
