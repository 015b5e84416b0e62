"""Network cameras: reached, opened by FFmpeg, and followed where they redirect to.

Everything ends in ``limits.open_s``, whatever the server does. A user and a password are given
to the server that the user named and to no other: a redirect to another is followed without
them, one from TLS to none is not followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import AuthFailed, OpenFailed, SourceError, UsageError
from edgeseg.sources.diagnosis import explain_answer, explain_connection, no_answer
from edgeseg.sources.frames import Frames
from edgeseg.sources.relay import Relay
from edgeseg.sources.server import Server, split_url
from edgeseg.sources.spec import SourceLimits, SourceSpec, parse_source
from edgeseg.sources.trust import Trust

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
            raise _judged(spec, at, relay)
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
        OpenFailed: It is no network camera, or one without TLS where there was TLS.
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
