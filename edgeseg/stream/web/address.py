"""Where the page and the metrics listen, and the address at which a browser finds them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

from edgeseg.errors import EdgesegError, OutputError, UsageError

_BACKLOG = 64
_SEND_BUFFER = 256 * 1024
"""Bytes that the kernel keeps of what a client has not read yet, about; more makes pictures old."""

_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True)
class Address:
    """A host, by name or number, without brackets, and a port; 0 is any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether it can be reached from this machine only, whatever names resolve to."""
        ip = ip_of(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``8080`` (of 127.0.0.1), ``0.0.0.0:8080``, ``[::1]:8080``, ``box.local:8080``.

    Raises:
        UsageError: It is none of those.
    """
    found = re.fullmatch(
        r"(?:(?P<host>[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>\d{1,5})", text
    )
    if found is None or int(found["port"]) > 65535:
        raise UsageError(
            f"expected [HOST:]PORT, not {text!r}", hint="e.g. 8080, 0.0.0.0:8080 or [::1]:8080"
        )
    return Address((found["host"] or "127.0.0.1").strip("[]").lower(), int(found["port"]))


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The number that ``host`` is, None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def listen(address: Address, unread_s: float, option: str = "--web") -> socket.socket:
    """A socket that listens; connections made from here on wait until they are accepted.

    Args:
        unread_s: The kernel cuts a connection whose other end takes nothing for so long.
        option: What the user gave the address with, for the error.

    Raises:
        OutputError: The port is in use, or the host is not of this machine.
        UsageError: The port is not allowed.
    """
    try:
        family, *_, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        everywhere = family == socket.AF_INET6 and address.host == "::"
        listening = socket.create_server(
            where[:2],
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=everywhere and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise _cannot_listen(address, error, option) from error
    # Connections inherit both.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(unread_s * 1000))
        )
    return listening


def _cannot_listen(address: Address, error: OSError, option: str) -> EdgesegError:
    if error.errno == errno.EADDRINUSE:
        other = Address(address.host, address.port + 1 if address.port < 65535 else 8080)
        return OutputError(
            f"{address} is already in use",
            hint=f"choose another port, such as {option} {other}, or any that is "
            f"free: {option} {Address(address.host, 0)}",
        )
    if error.errno == errno.EACCES:
        return UsageError(
            f"{address}: only the administrator may use ports below 1024",
            hint=f"{option} {Address(address.host, 8080)}",
        )
    if isinstance(error, socket.gaierror) or error.errno in _NOT_HERE:
        return OutputError(
            f"{address}: this machine has no such address",
            hint=f"{option} {address.port} for this machine only, or "
            f"{option} 0.0.0.0:{address.port} for all that can reach it",
        )
    return OutputError(
        f"cannot listen at {address}: {error.strerror}", hint=f"choose another port with {option}"
    )


def browse_to(address: Address) -> Address:
    """What to type into a browser: as it is, or for "all addresses" one that others can reach."""
    ip = ip_of(address.host)
    if ip is None or not ip.is_unspecified:
        return address
    host = "127.0.0.1"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Connecting a datagram socket sends nothing; the kernel chooses the way out.
        probe.connect(("192.0.2.1", 9))
        host = probe.getsockname()[0]
    return Address(host, address.port)
