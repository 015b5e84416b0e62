"""Who a URL names: the server of a network camera."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
_PLAIN = {"rtsps": "rtsp", "https": "http"}


@dataclass(frozen=True)
class Server:
    """Scheme, host and port of a URL that was parsed as a source."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Server:
        """The server that ``url`` names; credentials in it are left out."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.scheme in _PLAIN

    @property
    def protocol(self) -> str:
        """``rtsp`` or ``http``, with or without TLS."""
        return _PLAIN.get(self.scheme, self.scheme)

    @property
    def authority(self) -> str:
        """As a ``Host`` header names it: without the scheme's own port."""
        return self._host if self.has_own_port else str(self)

    @property
    def has_own_port(self) -> bool:
        """Whether its port is the one of its scheme."""
        return self.port == _PORTS[self.scheme]

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def names(self) -> tuple[str, str, str]:
        """What a user may call it, the most exact first: ``HOST:PORT``, ``HOST``, ``[HOST]``."""
        return str(self).lower(), self.host.lower(), f"[{self.host}]".lower()

    def __str__(self) -> str:
        return f"{self._host}:{self.port}"


def split_url(url: str) -> tuple[str, str, str]:
    """``scheme://user@host/path`` → ``user@``, ``host``, ``/path`` and all that follows."""
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    userinfo, at, host = authority.rpartition("@")
    return userinfo + at, host, rest[len(authority) :]
