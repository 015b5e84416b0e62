"""Why a network camera could not be opened: FFmpeg says the same of every cause.

The messages are all ours: those of FFmpeg may hold the URL. What a server wrote is shown with
its control characters escaped, and cut short.
"""

from __future__ import annotations

import socket
import ssl

from edgeseg.artifacts.documents import printable
from edgeseg.errors import AuthFailed, OpenFailed, SourceError
from edgeseg.sources.relay import Relay, fingerprint
from edgeseg.sources.server import Server
from edgeseg.sources.spec import SourceSpec

_WRONG_NAME = (62, 63, 64)
_WRONG_TIME = (9, 10)
"""Codes of OpenSSL's verification: X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_CERT_HAS_EXPIRED, …"""


def explain_connection(spec: SourceSpec, error: OSError, deadline: float) -> SourceError:
    """The error that says why the server of ``spec`` could not be reached.

    Args:
        spec: Source of the kind ``url``.
        error: Error raised by :class:`~edgeseg.sources.relay.Relay`.
        deadline: Until when the certificate may be looked at again, monotonic seconds.
    """
    server = Server.of(spec.target)
    if isinstance(error, socket.gaierror):
        return _failed(spec, f"the name {server.host} does not resolve", "check the host name")
    if isinstance(error, ConnectionRefusedError):
        return _failed(
            spec,
            f"{server} refused the connection",
            "check the port, and that the camera's server runs",
        )
    if isinstance(error, TimeoutError):
        return no_answer(spec)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(spec, error, deadline)
    if isinstance(error, ssl.SSLError) or server.secure:
        return _other_protocol(spec, error)
    return _failed(
        spec,
        f"{server} cannot be reached ({_reason(error)})",
        f"check that the camera is on and that this machine reaches {server}",
    )


def explain_answer(spec: SourceSpec, relay: Relay) -> SourceError:
    """The error that says what the server answered in place of a video."""
    server, status = relay.server, relay.status
    if relay.expired:
        return no_answer(spec)
    if status is None or relay.talked_nonsense:
        return _other_protocol(spec, None)
    if status in (401, 403):
        given = "the user and password given" if "@" in relay.url else "a URL without user"
        return AuthFailed(
            f"{spec.label}: {server} answered {status} to {given}",
            hint="set EDGESEG_CAMERA_USER and EDGESEG_CAMERA_PASSWORD, or write "
            f"{server.scheme}://USER:PASSWORD@{server}/…, percent-encoded",
        )
    if status == 404:
        return _failed(spec, f"{server} has nothing at that path (404)", "check the path")
    if 200 <= status < 300:
        return _failed(
            spec, f"{server} answers, but sends no video that OpenCV can decode", "check the path"
        )
    return _failed(spec, f"{server} answered with status {status}", "check the URL")


def no_answer(spec: SourceSpec) -> OpenFailed:
    """The error of a server that takes longer than the open time-out."""
    server = Server.of(spec.target)
    return _failed(
        spec,
        f"{server} did not answer in time",
        f"check that the camera is on and that this machine reaches {server}",
    )


def _distrusted(
    spec: SourceSpec, error: ssl.SSLCertVerificationError, deadline: float
) -> SourceError:
    server = Server.of(spec.target)
    shown = fingerprint(server, deadline)
    certificate = f"the certificate of {server}" + (f" (SHA-256 {shown})" if shown else "")
    why = printable(str(error.verify_message).rstrip("."), 200)
    insecure = f"or take any certificate of this camera: --insecure-camera {server}"
    if error.verify_code in _WRONG_NAME:
        cure = "write the host into the source as the certificate names it"
    elif error.verify_code in _WRONG_TIME:
        cure = "renew the certificate of the camera; check the clocks of camera and machine (date)"
    else:
        cure = (
            "name the authority that signed it, or the certificate itself once you compared its "
            f"SHA-256 with the camera's own: openssl s_client -connect {server} </dev/null | "
            "openssl x509 > camera.pem, then --ca camera.pem"
        )
    return _failed(spec, f"{certificate} is not trusted: {why}", f"{cure}; {insecure}")


def _other_protocol(spec: SourceSpec, error: OSError | None) -> OpenFailed:
    server = Server.of(spec.target)
    reason = f" ({_reason(error)})" if error is not None else ""
    return _failed(
        spec,
        f"{server} does not speak {server.scheme}{reason}",
        "check scheme and port of the URL",
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return printable(str(error.reason or "TLS").replace("_", " ").lower(), 80)
    return (error.strerror or type(error).__name__).lower()


def _failed(spec: SourceSpec, what: str, hint: str) -> OpenFailed:
    return OpenFailed(f"{spec.label}: {what}", hint=hint)
