"""Relay between FFmpeg and a network camera: FFmpeg connects to 127.0.0.1, we to the camera.

FFmpeg verifies certificates as well or badly as it was built: with OpenSSL it checks no name
where a URL has an address, for RTSP over TLS it takes no option to verify, it follows redirects
of RTSP with the password, and it resolves names without a time-out. So TLS, names, time-outs
and redirects are dealt with here, in Python, once for PyAV and every OpenCV, and what the
server answered is known without asking it again.

A conversation is relayed message by message until the video begins, then byte by byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from edgeseg.sources.deadline import call_in_time
from edgeseg.sources.server import Server, split_url
from edgeseg.sources.spec import SourceSpec

_LONGEST_HEAD = 1 << 16
_LONGEST_BODY = 1 << 20
_CHUNK = 1 << 16
_MOST = 8
"""Connections at once; players of HTTP open a few."""

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"(?:(?:RTSP|HTTP)/\d\.\d|ICY) (\d{3})(?!\d)")
_STARTS = (b"RTSP/", b"HTTP/", b"ICY ")
"""An answer begins so; servers of radio say ICY."""


class Relay:
    """Listens for FFmpeg and relays its traffic to and from the server of a source.

    Connects immediately, so that network and certificate errors are known before FFmpeg starts.

    Args:
        spec: Source of the kind ``url``.
        deadline: When opening must be over, monotonic seconds; all connections are cut then
            unless :meth:`opened` was called.
        publishing: Relay bytes from the start, for one who sends video.

    Attributes:
        url: URL for FFmpeg to open; includes user and password.
        status: The last one that the server answered, None for none.
        location: URL that the server redirected to; the relay does not follow it.
        talked_nonsense: Whether an answer violated the protocol.
        expired: Whether the deadline passed.

    Raises:
        OSError: The server cannot be reached: ``socket.gaierror``, ``ConnectionRefusedError``,
            ``TimeoutError``, ``ssl.SSLCertVerificationError`` and so on.
        UsageError: The certificates of ``spec.trust`` cannot be read.
    """

    def __init__(self, spec: SourceSpec, deadline: float, *, publishing: bool = False) -> None:
        self.server = server = Server.of(spec.target)
        self.status: int | None = None
        self.location: str | None = None
        self.talked_nonsense = False
        self.expired = False
        self._spec = spec
        self._deadline = deadline
        self._publishing = publishing
        self._context = spec.trust.context() if server.secure else None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._waiting: socket.socket | None = self._connect(deadline)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=_MOST)
        userinfo, _, rest = split_url(spec.target)
        port = self._listening.getsockname()[1]
        self.url = f"{server.protocol}://{userinfo}127.0.0.1:{port}{rest}"
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._expire)
        self._timer.daemon = True
        self._timer.start()
        self._start(self._accept)

    def opened(self) -> None:
        """Lift the deadline after the source was opened."""
        self._timer.cancel()

    def close(self) -> None:
        """Cut all connections; its threads end."""
        self._timer.cancel()
        with self._lock:
            self._closed = True
            connections = [*self._open, self._listening]
            connections += [self._waiting] if self._waiting else []
        for connection in connections:
            _cut(connection)

    def _expire(self) -> None:
        self.expired = True
        self.close()

    def _start(self, what: Callable[..., None], *arguments: socket.socket) -> None:
        name = f"edgeseg relay of {self._spec.label}"
        threading.Thread(target=what, args=arguments, name=name, daemon=True).start()

    def _accept(self) -> None:
        with self._listening:
            while not self._closed:
                try:
                    client, _ = self._listening.accept()
                except OSError:  # closed
                    break
                if len(self._open) >= 2 * _MOST:
                    client.close()
                    continue
                self._start(self._serve, client)
        if self._waiting is not None:
            self._waiting.close()

    def _serve(self, client: socket.socket) -> None:
        """One connection of FFmpeg's, to its end."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, suppress(OSError, EOFError), contextlib.closing(self._upstream()) as server:
            if not self._keep(client, server.connection):
                return
            deadline = max(self._deadline, time.monotonic() + self._spec.limits.open_s)
            try:
                if not self._publishing:
                    self._converse(_Side(client), server, deadline)
                client.settimeout(None)  # a consumer may take its time
                server.connection.settimeout(self._spec.limits.read_s)
                _pump(client, server.connection)
            except _Nonsense:
                self.talked_nonsense = True
            finally:
                with self._lock:
                    self._open -= {client, server.connection}

    def _keep(self, *connections: socket.socket) -> bool:
        """Note what :meth:`close` is to cut; whether it is not closed yet."""
        with self._lock:
            if not self._closed:
                self._open |= {*connections}
            return not self._closed

    def _upstream(self) -> _Side:
        """A connection to the server: the one made in advance, or another."""
        with self._lock:
            first, self._waiting = self._waiting, None
        return _Side(first or self._connect(time.monotonic() + self._spec.limits.open_s))

    def _connect(self, deadline: float) -> socket.socket:
        return call_in_time(
            self._spec, lambda: connect(self.server, self._context, deadline), deadline
        )

    def _converse(self, client: _Side, server: _Side, deadline: float) -> None:
        """Carry requests and answers until what follows is video."""
        while True:
            request = self._as_meant(client.head(deadline))
            self._ask(client, server, request, deadline)
            if self.server.protocol == "http" or (
                request.startswith(b"PLAY ") and self.status == 200
            ):
                client.send(server.rest(), deadline)
                server.send(client.rest(), deadline)
                return

    def _ask(self, client: _Side, server: _Side, request: bytes, deadline: float) -> None:
        """Carry a request and its answer, over again where the server hung up after a 401."""
        challenged = self.status == 401
        try:
            server.send(request, deadline)
            self._answer(client, server, deadline)
        except (ConnectionError, EOFError):
            if not challenged or self.location:
                raise
            before = server.connection
            server.renew(self._connect(deadline))
            with self._lock:
                self._open -= {before}
            if self._keep(server.connection):
                server.send(request, deadline)
                self._answer(client, server, deadline)

    def _as_meant(self, request: bytes) -> bytes:
        """A request of FFmpeg's with the server's name in place of ours."""
        if self.server.protocol == "http":
            host = f"Host: {self.server.authority}".encode()
            request = re.sub(rb"(?im)^Host:[^\r\n]*", lambda _: host, request, count=1)
            # One answer a connection, so that none goes by unseen.
            return re.sub(rb"(?im)^Connection:[^\r\n]*", b"Connection: close", request, count=1)
        if self.server.secure and b"client_port" in request:
            raise _Nonsense  # UDP would carry the pictures in the clear
        return request

    def _answer(self, client: _Side, server: _Side, deadline: float) -> None:
        """Carry one answer, and what was interleaved before it."""
        while server.starts_frame(deadline):
            frame = server.take(4, deadline)
            client.send(frame + server.take(int.from_bytes(frame[2:], "big"), deadline), deadline)
        head = server.head(deadline)
        found = _STATUS.match(head)
        if found is None:
            raise _Nonsense
        self.status = int(found[1])
        location = _header(head, b"location")
        if 300 <= self.status < 400 and location:
            self.location = location.decode("latin-1")
            raise EOFError
        client.send(head, deadline)
        if self.server.protocol == "rtsp":
            length = _header(head, b"content-length") or b"0"
            if not length.isdigit() or int(length) > _LONGEST_BODY:
                raise _Nonsense
            client.send(server.take(int(length), deadline), deadline)


class _Nonsense(Exception):
    """An answer that violates the protocol."""


class _Side:
    """A connection of which messages are read."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = b""

    def renew(self, connection: socket.socket) -> None:
        """Continue with another connection."""
        self.connection.close()
        self.connection, self._read = connection, b""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def head(self, deadline: float) -> bytes:
        """A message up to the blank line."""
        while (end := _BLANK_LINE.search(self._read)) is None:
            if len(self._read) > _LONGEST_HEAD:
                raise _Nonsense
            self._more(deadline)
        return self.take(end.end(), deadline)

    def starts_frame(self, deadline: float) -> bool:
        """Whether interleaved data comes next, and no answer (RFC 2326, 10.12)."""
        while len(self._read) < 5:
            self._more(deadline)
        if self._read.startswith(b"$"):
            return True
        if not self._read.startswith(_STARTS):
            raise _Nonsense
        return False

    def take(self, count: int, deadline: float) -> bytes:
        """Read and return ``count`` bytes."""
        while len(self._read) < count:
            self._more(deadline)
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    def rest(self) -> bytes:
        """Return the bytes that were read but not taken."""
        taken, self._read = self._read, b""
        return taken

    def send(self, data: bytes, deadline: float) -> None:
        self.connection.settimeout(_left(deadline))
        self.connection.sendall(data)

    def _more(self, deadline: float) -> None:
        self.connection.settimeout(_left(deadline))
        data = self.connection.recv(_CHUNK)
        if not data:
            raise EOFError
        self._read += data


def connect(server: Server, context: ssl.SSLContext | None, deadline: float) -> socket.socket:
    """A connection to ``server``, over TLS where there is a ``context``.

    Raises:
        OSError: See :class:`Relay`.
    """
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    failure: OSError = TimeoutError()
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            # A black hole at one address leaves time for the others.
            connection.settimeout(_left(deadline) / (len(addresses) - number))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            failure = error
            connection.close()
            continue
        return connection if context is None else _secured(connection, server, context, deadline)
    raise failure


def _secured(
    connection: socket.socket, server: Server, context: ssl.SSLContext, deadline: float
) -> ssl.SSLSocket:
    try:
        connection.settimeout(_left(deadline))  # of the handshake as a whole
        return context.wrap_socket(connection, server_hostname=server.host)
    except BaseException:
        connection.close()
        raise


def fingerprint(server: Server, deadline: float) -> str | None:
    """SHA-256 of the certificate that ``server`` shows, as browsers write it; None if it fails."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connect(server, context, deadline) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            shown = connection.getpeercert(binary_form=True) or b""
    except OSError:
        return None
    return hashlib.sha256(shown).digest().hex(":").upper()


def _pump(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    poller = select.poll()
    poller.register(client, select.POLLIN)
    poller.register(server, select.POLLIN)
    sides = {client.fileno(): (client, server), server.fileno(): (server, client)}
    buffer = memoryview(bytearray(_CHUNK))
    while True:
        pending = isinstance(server, ssl.SSLSocket) and server.pending()
        ready = [server.fileno()] if pending else [number for number, _ in poller.poll()]
        for number in ready:
            source, sink = sides[number]
            count = source.recv_into(buffer)
            if not count:
                return
            sink.sendall(buffer[:count])


def _header(head: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"(?im)^" + name + rb":[ \t]*([^\r\n]*)", head)
    return found[1].strip() if found else None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _cut(connection: socket.socket) -> None:
    """Shut down both directions, even while another thread uses the connection."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
