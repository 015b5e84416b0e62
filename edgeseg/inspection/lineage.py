"""Find what an artefact was made from, and check that it is still there and unchanged.

Range files and calibration manifests are read without the onnx package, so that only what is shown
of them is modelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.card import ModelCard, Sha256
from edgeseg.artifacts.documents import Document, load, parse
from edgeseg.artifacts.files import is_file, sha256_file
from edgeseg.artifacts.headers import read_onnx
from edgeseg.artifacts.sidecar import MAX_ARTIFACT_BYTES, SideCar
from edgeseg.errors import EdgesegError, RuntimeMissing
from edgeseg.inspection.document import Link


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
        from edgeseg.precision.calibration_set import CalibrationSet
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


Role = Literal["checkpoint", "network"]

_SUFFIX: dict[Role, str] = {"checkpoint": ".safetensors", "network": ".onnx"}


def lineage(path: Path, card: ModelCard, sidecar: SideCar | None) -> tuple[Link, ...]:
    """The parents of an artefact, the nearest first, then its calibration set."""
    links = list(_parents(path, card))
    if sidecar is not None and sidecar.calibration_set is not None:
        links.append(_calibration(path, sidecar.calibration_set))
    return tuple(links)


def network_link(path: Path, sha256: str) -> Link:
    """The network on which the range file ``path`` was measured."""
    return _link("network", path, (f"{_stem(path)}.onnx",), sha256)


def set_link(manifests: Iterable[Path], found: str | None, sha256: str) -> Link:
    """The calibration set of a range file: its manifest, and the hash that states."""
    for path in manifests:
        if is_file(path):
            state: Literal["matches", "differs"] = "matches" if found == sha256 else "differs"
            return Link(role="calibration set", sha256=sha256, state=state, path=str(path))
    return Link(role="calibration set", sha256=sha256, state="absent")


def _parents(path: Path, card: ModelCard) -> Iterator[Link]:
    while card.parent_sha256 is not None and path.suffix in (".onnx", ".engine"):
        role, names = _parent(path, card)
        link = _link(role, path, names, card.parent_sha256)
        yield link
        if link.state != "matches" or link.path is None or role == "checkpoint":
            return
        path = Path(link.path)
        try:
            text = read_onnx(path)[1]
            above = parse(ModelCard, text, str(path)) if text is not None else None
        except EdgesegError:
            return
        if above is None or above.parent_sha256 == card.parent_sha256:
            return  # Of hashes that lead in a circle none was made by edgeseg.
        card = above


def _parent(path: Path, card: ModelCard) -> tuple[Role, tuple[str, ...]]:
    """What this was made from, and the names that it has where edgeseg made it."""
    stem = _stem(path)
    if path.suffix == ".engine" and card.precision != "fp32":
        precision = card.precision
        return "network", (f"{stem}.{precision}.tensorrt.onnx", f"{stem}.{precision}.onnx")
    if path.suffix == ".engine" or card.precision != "fp32":
        return "network", (f"{stem}.onnx",)
    return "checkpoint", (f"{stem}.safetensors",)


def _link(role: Role, path: Path, names: tuple[str, ...], sha256: str) -> Link:
    expected = [path.with_name(name) for name in names if is_file(path.with_name(name))]
    # Under another name it is found by what the side-cars say; hashing all would take long.
    claimed = [p for p in sorted(path.parent.glob(f"*{_SUFFIX[role]}")) if _claims(p, sha256)]
    for candidate in (*expected, *claimed):
        if candidate.stat().st_size <= MAX_ARTIFACT_BYTES and sha256_file(candidate) == sha256:
            return Link(role=role, sha256=sha256, state="matches", path=str(candidate))
    if expected:
        return Link(role=role, sha256=sha256, state="differs", path=str(expected[0]))
    return Link(role=role, sha256=sha256, state="absent")


def _claims(path: Path, sha256: str) -> bool:
    try:
        made = sidecars.read(path) if is_file(path) else None
    except EdgesegError:
        return False
    return made is not None and made.artifact_sha256 == sha256


def _calibration(path: Path, sha256: str) -> Link:
    ranges = path.with_name(f"{_stem(path)}.ranges.json")
    try:
        found = read_ranges(ranges).set_sha256
    except EdgesegError:
        found = None
    return set_link([ranges], found, sha256)


def _stem(path: Path) -> str:
    """``model`` of ``model.int8.tensorrt.onnx``."""
    return path.name.split(".")[0]
