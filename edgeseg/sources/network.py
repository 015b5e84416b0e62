"""Network cameras: reached, opened by FFmpeg, and followed where they redirect to.

Everything ends in ``limits.open_s``, whatever the server does. A user and a password are given
to the server that the user named and to no other: a redirect to another is followed without
them, one from TLS to none is not followed.

FFmpeg gives the same message for every cause, and it may hold the URL, so errors are explained
here. What a server wrote is shown with its control characters escaped, and cut short.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.errors import AuthFailed, OpenFailed, SourceError, UsageError
from edgeseg.sources.frames import Frames
from edgeseg.sources.relay import Relay, fingerprint
from edgeseg.sources.server import Server, Trust, split_url
from edgeseg.sources.spec import SourceLimits, SourceSpec, parse_source

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
        return _open_failed(spec, f"the name {server.host} does not resolve", "check the host name")
    if isinstance(error, ConnectionRefusedError):
        return _open_failed(
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
    return _open_failed(
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
        return _open_failed(spec, f"{server} has nothing at that path (404)", "check the path")
    if 200 <= status < 300:
        return _open_failed(
            spec, f"{server} answers, but sends no video that OpenCV can decode", "check the path"
        )
    return _open_failed(spec, f"{server} answered with status {status}", "check the URL")


def no_answer(spec: SourceSpec) -> OpenFailed:
    """The error of a server that takes longer than the open time-out."""
    server = Server.of(spec.target)
    return _open_failed(
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
    return _open_failed(spec, f"{certificate} is not trusted: {why}", f"{cure}; {insecure}")


def _other_protocol(spec: SourceSpec, error: OSError | None) -> OpenFailed:
    server = Server.of(spec.target)
    reason = f" ({_reason(error)})" if error is not None else ""
    return _open_failed(
        spec, f"{server} does not speak {server.scheme}{reason}", "check scheme and port of the URL"
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return printable(str(error.reason or "TLS").replace("_", " ").lower(), 80)
    return (error.strerror or type(error).__name__).lower()


def _open_failed(spec: SourceSpec, what: str, hint: str) -> OpenFailed:
    return OpenFailed(f"{spec.label}: {what}", hint=hint)


_REDIRECTS = 5


def open_url(spec: SourceSpec, open_it: Callable[[SourceSpec], Frames | None]) -> Frames:
    """Open a source of the kind ``url`` in its ``limits.open_s``.

    Args:
        spec: The source.
        open_it: Has FFmpeg open the ``target`` of such a source; None where it cannot.

    Raises:
        OpenFailed: The server is not there, silent, not to be trusted, or sends no video.
        AuthFailed: It wants other credentials.
    """
    deadline = time.monotonic() + spec.limits.open_s
    if "://" not in spec.target and (frames := open_it(spec)):  # a recording read like a camera
        return frames
    at = spec
    for _ in range(_REDIRECTS + 1):
        try:
            relay = Relay(at, deadline)
        except OSError as error:
            raise explain_connection(at, error, deadline) from None
        try:
            frames = open_it(replace(at, target=relay.url, limits=_rest(at, deadline)))
        except BaseException:
            relay.close()
            raise
        if frames is not None and not relay.expired:
            relay.opened()
            return cast(Frames, _Relayed(frames, relay))
        relay.close()
        if relay.location is None:
            # FFmpeg may give up a moment before the relay does.
            silent = relay.status is None and time.monotonic() >= deadline - 0.01
            raise no_answer(at) if silent else _judged(spec, at, relay)
        at = redirected(at, relay.location)
        if time.monotonic() >= deadline:
            raise no_answer(spec)
    raise OpenFailed(
        f"{spec.label}: {Server.of(spec.target)} redirects more than {_REDIRECTS} times",
        hint="write the URL that it ends at as the source",
    )


def redirected(spec: SourceSpec, location: str) -> SourceSpec:
    """``spec`` at the URL that its server redirected to, with its credentials or without.

    Raises:
        OpenFailed: It is not a network camera, or one without TLS where there was TLS.
    """
    before = Server.of(spec.target)
    userinfo, host, rest = split_url(spec.target)
    try:
        there = parse_source(urljoin(f"{before.scheme}://{host}{rest}", location))
        after = Server.of(there.target) if there.kind == "url" else None
    except (UsageError, ValueError):
        after = None
    if after is None or after.protocol != before.protocol:
        raise OpenFailed(
            f"{spec.label}: {before} redirects to what is no {before.protocol}:// camera",
            hint="write the URL of the video itself as the source",
        )
    if before.secure and not after.secure:
        raise OpenFailed(
            f"{spec.label}: {before} redirects from {before.scheme}:// to {there.label}, which "
            "is not encrypted",
            hint=f"write that URL as the source if you trust the network to {after}",
        )
    _, new_host, new_rest = split_url(there.target)
    ours = _is_same(before, after)
    return replace(
        spec,
        target=f"{after.scheme}://{userinfo if ours else ''}{new_host}{new_rest}",
        trust=spec.trust if ours else Trust(spec.trust.ca),
    )


def _is_same(before: Server, after: Server) -> bool:
    """Whether ``after`` is the server that the user named, perhaps with TLS now."""
    if before.host.lower() != after.host.lower():
        return False
    upgraded = before.scheme == after.protocol and after.secure
    return before == after or (
        upgraded and before.has_own_port and (after.has_own_port or after.port == before.port)
    )


def _rest(spec: SourceSpec, deadline: float) -> SourceLimits:
    """Its limits with the time that is left to open it."""
    return replace(spec.limits, open_s=max(0.05, deadline - time.monotonic()))


def _judged(spec: SourceSpec, at: SourceSpec, relay: Relay) -> SourceError:
    """What to say of the server's answer, at the URL or where that redirected to."""
    error = explain_answer(at, relay)
    named = Server.of(spec.target)
    if relay.server == named or "@" not in spec.target or not isinstance(error, AuthFailed):
        return error
    return AuthFailed(
        f"{spec.label}: {named} redirects to {relay.server}, which answered {relay.status}; "
        "passwords follow no redirect to another host",
        hint=f"if you trust {relay.server}, write its URL as the source",
    )


class _Relayed:
    """Frames whose relay ends with them; all else is theirs."""

    def __init__(self, frames: Frames, relay: Relay) -> None:
        self._frames = frames
        self._relay = relay

    def read(self) -> NDArray[np.uint8] | None:
        return self._frames.read()

    def close(self) -> None:
        try:
            self._frames.close()
        finally:
            self._relay.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frames, name)
