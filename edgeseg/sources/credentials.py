"""Users, passwords and certificates of network cameras; passwords are never shown.

Credentials in a URL take precedence over the file, and the file over the environment. Every user
of the machine can see a URL on a command line (``ps``), but not the other two.
"""

from __future__ import annotations

import netrc
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.sources.server import Server, Trust
from edgeseg.sources.spec import SourceSpec


def require_private(
    file: Path, what: str = "the passwords in it", environ: Mapping[str, str] = os.environ
) -> None:
    """Check that only the owner may read ``file``.

    What systemd hands a service as a credential it gives to the service's user by an access
    list, which shows as a right of the group (systemd.exec(5), ``LoadCredential=``): below
    ``$CREDENTIALS_DIRECTORY`` that right passes.

    Raises:
        UsageError: Its mode lets others read, write or run it.
        OSError: It cannot be looked at.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    handed = environ.get("CREDENTIALS_DIRECTORY")
    ours = handed is not None and file.resolve().is_relative_to(Path(handed).resolve())
    if mode & (0o037 if ours else 0o077):
        raise UsageError(
            f"{file}: others may read {what} (mode {mode:03o})", hint=f"chmod 600 {file}"
        )


USER = "EDGESEG_CAMERA_USER"
PASSWORD = "EDGESEG_CAMERA_PASSWORD"
LINE = "machine HOST[:PORT] login USER password PASSWORD"


@dataclass(frozen=True)
class Credentials:
    """A user and a password; the password is in no repr."""

    user: str
    password: str = field(repr=False)


def with_credentials(
    spec: SourceSpec, file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> SourceSpec:
    """Return ``spec`` with missing credentials added; the label is unchanged.

    Only network cameras whose URL contains no user receive credentials.

    Args:
        spec: Any source.
        file: In netrc format; an entry ``HOST:PORT`` goes before ``HOST``, that before
            ``default``.
        environ: Where ``EDGESEG_CAMERA_USER`` and ``EDGESEG_CAMERA_PASSWORD`` are looked up.

    Raises:
        UsageError: The file is missing, readable by others or no netrc file, or one of the
            two variables is set and the other is not. No part of a password is in it.
    """
    if spec.kind != "url" or not spec.live:
        return spec
    parts = urlsplit(spec.target)
    if "@" in parts.netloc:
        return spec
    found = _of_file(file, parts.netloc) if file is not None else None
    found = found or _of_environment(environ)
    if found is None:
        return spec
    userinfo = f"{quote(found.user, safe='')}:{quote(found.password, safe='')}"
    return replace(spec, target=parts._replace(netloc=f"{userinfo}@{parts.netloc}").geturl())


def with_trust(
    specs: Sequence[SourceSpec], ca: Path | None, insecure: Sequence[str]
) -> list[SourceSpec]:
    """``specs`` with the certificates that count for them.

    Args:
        specs: Any sources.
        ca: PEM file; its certificates count beside those of the system.
        insecure: Names of cameras, ``HOST`` or ``HOST:PORT``, whose certificate is not looked at.

    Raises:
        UsageError: ``ca`` does not exist, or a name is not that of a source over TLS.
    """
    if ca is not None:
        Trust(ca).context()  # is said before a camera is asked
    wanted = {name.lower() for name in insecure}
    met: set[str] = set()
    trusting = []
    for spec in specs:
        secure = spec.kind == "url" and spec.target.startswith(("https://", "rtsps://"))
        names = wanted & {*Server.of(spec.target).names} if secure else set()
        met |= names
        trusting.append(replace(spec, trust=Trust(ca, verify=not names)))
    if unknown := sorted(wanted - met):
        raise UsageError(
            f"--insecure-camera {printable(unknown[0])}: no https:// or rtsps:// source has "
            "this host",
            hint="write the HOST or HOST:PORT of a source, as its URL has it",
        )
    return trusting


def _of_environment(environ: Mapping[str, str]) -> Credentials | None:
    user, password = environ.get(USER, ""), environ.get(PASSWORD, "")
    if bool(user) != bool(password):
        there, absent = (USER, PASSWORD) if user else (PASSWORD, USER)
        raise UsageError(f"{there} is set and {absent} is not", hint=f"export {absent}=…")
    return Credentials(user, password) if user else None


def _of_file(file: Path, netloc: str) -> Credentials | None:
    """The entry of ``netloc``, HOST or HOST:PORT, None where the file has none."""
    _check_private(file)
    entries, why = _read(file)
    if entries is None:
        raise UsageError(
            f"{file}: expected lines {LINE!r} (netrc format); {why}",
            hint="percent-encode nothing in it; a password with blanks goes in double quotes",
        )
    hosts = {host.lower(): entry for host, entry in entries.hosts.items()}
    netloc = netloc.lower()
    host = (urlsplit(f"//{netloc}").hostname or "").lower()
    for name in (netloc, host, f"[{host}]", "default"):
        if name in hosts:
            login, _, password = hosts[name]
            return Credentials(login or "", password or "")
    return None


def _check_private(file: Path) -> None:
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(
            f"{file}: {(error.strerror or 'cannot be read').lower()}",
            hint=f"write lines {LINE!r} into it, then chmod 600 {file}",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{file}: expected a file with lines {LINE!r}")
    require_private(file)


def _read(file: Path) -> tuple[netrc.netrc | None, str]:
    """The entries, or None and where they end to make sense.

    The parser's own words quote the file, so that no error of ours may have it as its context.
    """
    try:
        return netrc.netrc(str(file)), ""
    except netrc.NetrcParseError as error:
        return None, f"found something else near line {error.lineno}"
    except UnicodeDecodeError:
        return None, "it is not valid UTF-8"
    except OSError as error:
        return None, (error.strerror or "it cannot be read").lower()
