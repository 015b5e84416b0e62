"""Verification of the certificates of cameras over TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import UsageError


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

    def context(self) -> ssl.SSLContext:
        """Return the SSL context for connections.

        Raises:
            UsageError: ``ca`` cannot be read or holds no certificate.
        """
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            _load(context, self.ca)
        return context


def _load(context: ssl.SSLContext, ca: Path) -> None:
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
