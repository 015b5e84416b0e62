"""The server that a URL names, and the verification of its certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext

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


@dataclass(frozen=True)
class Trust:
    """How to verify the certificates of ``https://`` and ``rtsps://`` cameras.

    Attributes:
        ca: PEM file with certificates, of authorities or cameras, to trust in addition to the
            system's.
        verify: Verify the certificate: its chain, its dates and its host name.
    """

    ca: Path | None = None
    verify: bool = True

    def context(self) -> SSLContext:
        """Return the SSL context for connections.

        Raises:
            UsageError: ``ca`` cannot be read or holds no certificate.
        """
        import ssl  # which most streams do without

        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            _load(context, self.ca)
        return context


def _load(context: SSLContext, ca: Path) -> None:
    import ssl

    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise UsageError(
            f"{ca}: expected certificates in PEM format, found none",
            hint=f"openssl x509 -inform der -in {ca} -out ca.pem converts one from DER",
        ) from error
    except OSError as error:
        raise UsageError(f"{ca}: {(error.strerror or 'cannot be read').lower()}") from error
    # The file may hold a camera's own certificate, and those that people make for their
    # cameras seldom have all that RFC 5280 asks of an authority on the Internet.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
