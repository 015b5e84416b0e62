"""Cache of compiled GPU code in the user's folder, loaded only if it is our own and intact.

Such a file is native code, so it starts with the SHA-256 of the rest. Files that are damaged or
that others could have written are ignored, which costs only time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

from edgeseg.artifacts.files import stranger, write_atomic
from edgeseg.errors import OutputError, UsageError
from edgeseg.machine import expanded

logger = logging.getLogger(__name__)

MAX_BYTES = 512 * 1024 * 1024
"""Larger files are ignored."""


def folder() -> Path:
    """The cache folder of the XDG specification; for a user without a home, in ``/tmp``."""
    roots = (os.environ.get("XDG_CACHE_HOME", ""), "~/.cache", tempfile.gettempdir())
    return next(root for root in map(expanded, roots) if root.is_absolute()) / "edgeseg"


def read(path: Path) -> tuple[bytes, str]:
    """Read cached data; returns it with the reason not to use it, empty if it is usable.

    Raises:
        FileNotFoundError: Nothing is cached.
    """
    try:
        return _vouched(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return b"", str(error.strerror)


def write(path: Path, data: bytes) -> None:
    """Cache ``data`` atomically; if that fails, a warning says so."""
    try:
        write_atomic(path, hashlib.sha256(data).digest() + data)
    except (UsageError, OutputError) as error:
        logger.warning("compiled kernels are not cached: %s", error)


def _vouched(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
            return b"", "no file of ours"
        if stranger(facts) is not None:
            return b"", "others can write it"
        data = stream.read()
    digest, rest = data[:32], data[32:]
    return rest, "" if rest and hashlib.sha256(rest).digest() == digest else "damaged"
