"""A folder to make artefacts in, moved into place when all of it is there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import UsageError
from edgeseg.sidecar import sidecar_path


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A temporary folder in ``folder``, on the same disk, gone when the block ends.

    Raises:
        UsageError: ``folder`` cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shop = tempfile.TemporaryDirectory(prefix=".build-", dir=folder)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}",
            mend="choose a folder that you can write",
        ) from error
    with shop as path:
        yield Path(path)


def install(artifact: Path, folder: Path) -> Path:
    """Move an artefact and its side-car into ``folder``; the artefact's new path.

    The artefact goes first: between the two moves the old side-car refuses the new bytes,
    while the other order would let a new side-car stand beside nothing.
    """
    for path in (artifact, sidecar_path(artifact)):
        path.replace(folder / path.name)
    return folder / artifact.name
