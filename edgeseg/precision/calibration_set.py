"""Calibration sets: the pictures on which INT8 ranges are measured.

A set is a manifest, ``calib/NAME.json``: the files by path and hash, where they came from, how
they were picked and what was left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from edgeseg.artifacts.card import Sha256
from edgeseg.artifacts.documents import Document, load
from edgeseg.artifacts.files import sha256_file
from edgeseg.data.selection import Reason
from edgeseg.errors import MismatchedArtifact
from edgeseg.options.building import Select

Grey = Annotated[float, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0)]


class CalibrationFile(Document):
    """One picture: its path, relative to the manifest where it lies below it, and its hash.

    ``brightness`` is its mean grey level, 0 to 255.
    """

    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    brightness: Grey


class Selection(Document):
    """How the pictures were picked: the number of candidates, and of those rejected by reason."""

    select: Select
    wanted: Annotated[int, Field(ge=1)]
    candidates: Annotated[int, Field(ge=1)]
    left_out: dict[Reason, Count]


class Brightness(Document):
    """Mean grey level over a set's pictures, and of its darkest and brightest picture."""

    mean: Grey
    lowest: Grey
    highest: Grey


class CalibrationSet(Document):
    """The pictures on which INT8 ranges are measured; ``set_sha256`` hashes their hashes.

    ``class_shares`` is the share of the labelled pixels that each class has, None where the
    pictures have no labels beside them.
    """

    schema_version: Literal[2] = 2
    source: str
    seed: int
    selection: Selection
    brightness: Brightness
    class_shares: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    files: Annotated[tuple[CalibrationFile, ...], Field(min_length=1)]
    set_sha256: Sha256
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.set_sha256 != set_hash(self.files):
            raise ValueError("set_sha256 is not that of the files listed; collect the set again")
        return self


def set_hash(files: Iterable[CalibrationFile]) -> str:
    """Hash of the pictures' hashes, in order; paths do not matter."""
    return hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()


def load_set(manifest: Path) -> tuple[CalibrationSet, list[Path]]:
    """Read a manifest and check each of its pictures.

    Returns:
        The set, and its pictures' paths in order.

    Raises:
        UsageError: The manifest does not exist.
        CorruptArtifact: The file is not a manifest.
        MismatchedArtifact: Another version of edgeseg wrote it, or a picture is missing or has
            changed.
    """
    try:
        made = load(CalibrationSet, manifest)
    except MismatchedArtifact as error:
        hint = f"collect the set again: `edgeseg calibrate --from DIR --out {manifest} --overwrite`"
        raise MismatchedArtifact(error.message, hint=hint) from error
    paths = []
    for file in made.files:
        path = manifest.parent / file.path
        if not path.is_file():
            raise MismatchedArtifact(
                f"{manifest}: picture {file.path} is gone", hint=_again(made, manifest)
            )
        if sha256_file(path) != file.sha256:
            raise MismatchedArtifact(
                f"{manifest}: picture {file.path} changed since the set was made",
                hint=_again(made, manifest),
            )
        paths.append(path)
    return made, paths


def _again(made: CalibrationSet, manifest: Path) -> str:
    return f"collect the set again: `edgeseg calibrate --from {made.source} --out {manifest}`"
