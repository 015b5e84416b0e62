"""Why a network camera could not be opened: OpenCV says the same of every cause.

After a failed open the server is asked once more with plain sockets, and what it does tells
refused, silent, 401 and 404 apart. The messages are all ours: those of FFmpeg may hold the URL.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from edgeseg.errors import AuthFailed, OpenFailed, SourceError
from edgeseg.stream.source import SourceSpec

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


@dataclass(frozen=True)
class _Server:
    scheme: str
    host: str
    port: int
    path: str
    user: str = field(repr=False)
    password: str = field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def method(self) -> str:
        return "DESCRIBE" if self.scheme.startswith("rtsp") else "GET"

    @property
    def uri(self) -> str:
        """What the request line names: the whole URL in RTSP, the path in HTTP."""
        whole = self.scheme.startswith("rtsp")
        return f"{self.scheme}://{self}{self.path}" if whole else self.path


def explain_failure(spec: SourceSpec, deadline: float) -> SourceError:
    """The error that says why ``spec``, a URL, could not be opened.

    Args:
        spec: Source of the kind ``url`` whose open failed.
        deadline: When to give up asking, monotonic seconds.

    Returns:
        ``AuthFailed`` or ``OpenFailed``, to be raised; it holds no part of a password.
    """
    server = _server(spec.target)
    try:
        status = _status(server, deadline)
    except socket.gaierror:
        return _failed(spec, f"the name {server.host} does not resolve", "check the host name")
    except ConnectionRefusedError:
        return _failed(
            spec,
            f"{server} refused the connection",
            "check the port, and that the camera's server runs",
        )
    except TimeoutError:
        return no_answer(spec)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return _failed(
            spec,
            f"{server} does not speak {server.scheme}" + (f" ({reason})" if reason else ""),
            "check scheme and port of the URL",
        )
    return _judge(spec, server, status)


def no_answer(spec: SourceSpec) -> OpenFailed:
    """The error of a server that takes longer than the open time-out."""
    server = _server(spec.target)
    return _failed(
        spec,
        f"{server} did not answer in time",
        f"check that the camera is on and that this machine reaches {server}",
    )


def _judge(spec: SourceSpec, server: _Server, status: int) -> SourceError:
    if status in (401, 403):
        given = "the user and password given" if server.user else "a URL without user"
        return AuthFailed(
            f"{spec.label}: {server} answered {status} to {given}",
            mend="set EDGESEG_CAMERA_USER and EDGESEG_CAMERA_PASSWORD, or write "
            f"{server.scheme}://USER:PASSWORD@{server}/…, percent-encoded",
        )
    if status == 404:
        return _failed(spec, f"{server} has nothing at that path (404)", "check the path")
    if 200 <= status < 300:
        return _failed(
            spec, f"{server} answers, but sends no video that OpenCV can decode", "check the path"
        )
    return _failed(spec, f"{server} answered with status {status}", "check the URL")


def _failed(spec: SourceSpec, what: str, mend: str) -> OpenFailed:
    return OpenFailed(f"{spec.label}: {what}", mend=mend)


def _server(url: str) -> _Server:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Server(
        parts.scheme,
        parts.hostname or "",
        parts.port or _PORTS[parts.scheme],
        path,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def _status(server: _Server, deadline: float) -> int:
    """What the server answers, with the credentials where it asks for them."""
    status, challenges = _ask(server, "", deadline)
    if status == 401 and server.user:
        for challenge in challenges:
            authorization = _answer(server, challenge)
            if authorization:
                return _ask(server, authorization, deadline)[0]
    return status


def _ask(server: _Server, authorization: str, deadline: float) -> tuple[int, list[str]]:
    """Status and challenges of one request on a connection of its own."""
    version = "RTSP/1.0" if server.method == "DESCRIBE" else "HTTP/1.1"
    lines = [f"{server.method} {server.uri} {version}", "CSeq: 1", "User-Agent: edgeseg"]
    lines += [f"Host: {server}", "Accept: */*", "Connection: close"]
    lines += [f"Authorization: {authorization}"] if authorization else []
    with _connect(server, deadline) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        connection.settimeout(_left(deadline))
        with connection.makefile("rb") as stream:
            first = stream.readline(1024).split(maxsplit=2)
            headers = http.client.parse_headers(stream)
    if len(first) < 2 or not first[0].startswith((b"RTSP/", b"HTTP/")):
        raise ValueError("no status line")
    return int(first[1]), headers.get_all("WWW-Authenticate", [])


def _connect(server: _Server, deadline: float) -> socket.socket:
    connection = socket.create_connection((server.host, server.port), _left(deadline))
    if server.scheme not in ("rtsps", "https"):
        return connection
    # FFmpeg, which just failed to open the same URL, does not check certificates either.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=server.host)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _answer(server: _Server, challenge: str) -> str | None:
    """The ``Authorization`` that answers a challenge (RFC 7617, RFC 7616), None if unknown."""
    scheme, _, parameters = challenge.partition(" ")
    if scheme.lower() == "basic":
        pair = f"{server.user}:{server.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
    asked = parse_keqv_list(parse_http_list(parameters))
    known = asked.get("algorithm", "MD5").upper() == "MD5"
    if scheme.lower() != "digest" or not known or not {"realm", "nonce"} <= asked.keys():
        return None
    return _digest(server, asked)


def _digest(server: _Server, asked: dict[str, str]) -> str:
    who = _md5(f"{server.user}:{asked['realm']}:{server.password}")
    what = _md5(f"{server.method}:{server.uri}")
    fields = {"username": server.user, "realm": asked["realm"], "nonce": asked["nonce"]}
    fields["uri"] = server.uri
    middle = asked["nonce"]
    if "auth" in asked.get("qop", "").replace(" ", "").split(","):
        fields["cnonce"] = secrets.token_hex(8)
        middle += f":00000001:{fields['cnonce']}:auth"
    fields["response"] = _md5(f"{who}:{middle}:{what}")
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    text = ", ".join(f'{name}="{value}"' for name, value in fields.items())
    return f"Digest {text}" + (", qop=auth, nc=00000001" if "cnonce" in fields else "")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
