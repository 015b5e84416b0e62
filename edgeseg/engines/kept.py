"""Compiled GPU code in the user's cache folder, handed to a driver only where it is ours and whole.

Such a file is native code: the SHA-256 of what follows stands before it, and what others could
have written, or what is damaged, is left aside. Leaving it aside costs time, never an inference.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from edgeseg.artifacts import write_atomic
from edgeseg.ownership import stranger

MAX_BYTES = 512 * 1024 * 1024
"""A larger file is none of ours."""


def folder() -> Path:
    """``~/.cache/edgeseg``, by the XDG base directory specification."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "edgeseg"


def read(path: Path) -> tuple[bytes, str]:
    """What was kept, and why it is not to be used; empty where it may.

    Raises:
        FileNotFoundError: Nothing was kept.
    """
    try:
        return _vouched(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return b"", str(error.strerror)


def write(path: Path, data: bytes) -> None:
    """Keep ``data``, whole or not at all.

    Raises:
        UsageError: The folder or the disk refuses.
    """
    write_atomic(path, hashlib.sha256(data).digest() + data)


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
