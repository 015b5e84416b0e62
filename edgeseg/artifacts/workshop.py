"""Build artefacts in a temporary folder and move them into place when complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgeseg.artifacts.files import FULL, cannot_write
from edgeseg.artifacts.partials import partial_folder
from edgeseg.artifacts.sidecar import sidecar_path


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """Create a temporary folder in ``folder``, on the same disk, deleted after the block.

    Raises:
        UsageError: ``folder`` cannot be made or written.
        OutputError: Its disk is full.
    """
    try:
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                shop = stack.enter_context(partial_folder(folder))
            except OSError as error:
                raise cannot_write(folder, error) from error
            yield shop
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise cannot_write(folder, error) from error


def install(artifact: Path, folder: Path) -> Path:
    """Move an artefact and its side-car into ``folder`` and return the artefact's new path.

    The artefact goes first: between the two moves the old side-car refuses the new bytes,
    while the other order would let a new side-car stand beside nothing.
    """
    for path in (artifact, sidecar_path(artifact)):
        path.replace(folder / path.name)
    return folder / artifact.name
