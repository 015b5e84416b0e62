"""Reject files with passwords if other users may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from edgeseg.errors import UsageError


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
