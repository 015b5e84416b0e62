"""Read range files and calibration manifests without the onnx package.

Only what is told of them is modelled; where :mod:`edgeseg.precision` can be imported its own
classes have the last word on whether a file is sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from edgeseg.artifacts.card import Sha256
from edgeseg.artifacts.documents import Document, load
from edgeseg.artifacts.files import is_file, sha256_file
from edgeseg.errors import RuntimeMissing


class RangesSummary(Document):
    """The fields of a range file that are shown; others are ignored."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int
    onnx_sha256: Sha256
    set_sha256: Sha256
    method: str
    pictures: Annotated[int, Field(ge=1)]
    manifest: str
    ranges: dict[str, Any]


class PictureSummary(Document):
    """One picture of a manifest."""

    model_config = ConfigDict(extra="ignore")

    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256


class SetSummary(Document):
    """The fields of a manifest that are shown; others are ignored."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int
    source: str
    seed: int
    files: Annotated[tuple[PictureSummary, ...], Field(min_length=1)]
    set_sha256: Sha256


def read_ranges(path: Path) -> RangesSummary:
    """Read a range file; raises the errors of ``documents.load``."""
    summary = load(RangesSummary, path)
    try:
        from edgeseg.precision.ranges import Ranges
    except (RuntimeMissing, ModuleNotFoundError):
        return summary
    load(Ranges, path)
    return summary


def read_set(path: Path) -> SetSummary:
    """Read a calibration manifest; raises the errors of ``documents.load``."""
    summary = load(SetSummary, path)
    try:
        from edgeseg.precision.calibration import CalibrationSet
    except (RuntimeMissing, ModuleNotFoundError):
        return summary
    load(CalibrationSet, path)
    return summary


def gone_or_changed(made: SetSummary, manifest: Path) -> tuple[int, int]:
    """Count the missing and the changed pictures of a set."""
    missing = changed = 0
    for file in made.files:
        path = manifest.parent / file.path
        if not is_file(path):
            missing += 1
        elif sha256_file(path) != file.sha256:
            changed += 1
    return missing, changed
