"""Calibration sets: the pictures on which INT8 ranges are measured.

A set is a manifest, ``calib/NAME.json``: the files by path and hash, where they came from, how
they were picked and what was left out. A contact sheet, ``calib/NAME.png``, shows both. Frames
of a video or a camera are saved as PNG in ``calib/NAME/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from edgeseg.artifacts.card import Sha256
from edgeseg.artifacts.documents import Document, load
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.workshop import workshop
from edgeseg.console import Track, silent
from edgeseg.data.selection import REASONS, Description, Reason, choose, describe, sort_out
from edgeseg.data.sheet import save_thumbnails
from edgeseg.errors import MismatchedArtifact, SourceError, UsageError
from edgeseg.options.building import Select
from edgeseg.precision.candidates import open_pool
from edgeseg.precision.shares import class_shares
from edgeseg.sources.spec import SourceSpec, parse_source

logger = logging.getLogger(__name__)

SHOWN_LEFT_OUT = 8
"""Rejected pictures shown in the contact sheet, per reason."""

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


def sheet_path(manifest: Path) -> Path:
    """Path of a set's contact sheet."""
    return manifest.with_suffix(".png")


def outputs_of(source: str | Path, out: Path) -> tuple[Path, ...]:
    """Paths that :func:`collect` writes: manifest, contact sheet, and the frame folder if any."""
    frames = () if parse_source(source).kind == "pictures" else (out.parent / out.stem,)
    return (out, sheet_path(out), *frames)


def collect(
    source: str | Path | SourceSpec,
    out: Path,
    *,
    count: int = 128,
    select: Select = "k-centre",
    seed: int = 0,
    track: Track = silent,
) -> CalibrationSet:
    """Pick representative pictures of a source, and write their manifest and contact sheet.

    Candidates are spread over the source, a few for each picture wanted. Uniform, blurred
    and nearly duplicate candidates are rejected; of the rest
    :func:`edgeseg.data.selection.choose` takes ``count``, or all where there are fewer.

    Args:
        source: Picture folder, glob, picture, video file, ``camera:N`` or stream URL.
        out: The manifest to write, e.g. ``calib/NAME.json``.
        count: Pictures wanted.
        select: ``k-centre``, ``random``, ``first`` or ``spread``.
        seed: Seed of the random draws.
        track: Shows progress, one step per candidate.

    Raises:
        UsageError: ``count`` is below 1, ``out`` is not a ``.json`` file, or the source holds
            no pictures.
        DatasetError: No picture can be read. Single unreadable ones are skipped and logged.
        SourceError: The video, camera or stream cannot be opened, or gives no usable frame.
    """
    if count < 1:
        raise UsageError(f"a calibration set holds at least 1 picture, not {count}")
    if out.suffix != ".json":
        raise UsageError(f"{out}: a manifest is written as .json, not {out.suffix!r}")
    spec = parse_source(source)
    with contextlib.ExitStack() as stack:
        saved = spec.kind != "pictures"
        shop = stack.enter_context(workshop(out.parent)) if saved else out.parent
        pool = open_pool(spec, shop, count, select, seed)
        seen = [describe(*each) for each in track(pool, "looking at pictures", len(pool))]
        left_out = sort_out(seen)
        good = [number for number in range(len(seen)) if number not in left_out]
        selection = Selection(
            select=select,
            wanted=count,
            candidates=max(1, len(seen)),
            left_out={reason: list(left_out.values()).count(reason) for reason in REASONS},
        )
        _say(selection, len(good), spec.label)
        embeddings = np.stack([seen[number].embedding for number in good])
        chosen = [good[place] for place in choose(select, embeddings, count, seed)]
        paths = pool.keep(chosen)
        if saved:
            paths = _install(paths, out.parent / out.stem)
    pictures = [seen[number] for number in chosen]
    made = _document(spec.label, seed, selection, _listed(paths, pictures, out.parent), paths)
    save_thumbnails(sheet_path(out), _sections(made, pictures, seen, left_out))
    made.save(out)
    return made


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


def _say(selection: Selection, good: int, label: str) -> None:
    """Log what was rejected, and whether enough remains."""
    why = ", ".join(f"{count} {reason}" for reason, count in selection.left_out.items() if count)
    if why:
        logger.info("of %d pictures of %s are excluded: %s", selection.candidates, label, why)
    if not good:
        raise SourceError(
            f"{label}: none of {selection.candidates} pictures can be used ({why or 'none came'})",
            hint="check whether the lens is covered, or name another source",
        )
    if good < selection.wanted:
        logger.warning(
            "%d pictures requested, %s has %d that can be used%s",
            selection.wanted,
            label,
            good,
            f" (left out: {why})" if why else "",
        )


def _install(saved: Sequence[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [path.replace(folder / path.name) for path in saved]


def _listed(
    paths: Sequence[Path], pictures: Sequence[Description], base: Path
) -> tuple[CalibrationFile, ...]:
    return tuple(
        CalibrationFile(
            path=_portable(path, base),
            sha256=sha256_file(path),
            brightness=round(picture.brightness, 2),
        )
        for path, picture in zip(paths, pictures, strict=True)
    )


def _document(
    source: str,
    seed: int,
    selection: Selection,
    files: tuple[CalibrationFile, ...],
    paths: Sequence[Path],
) -> CalibrationSet:
    levels = [file.brightness for file in files]
    return CalibrationSet(
        source=source,
        seed=seed,
        selection=selection,
        brightness=Brightness(
            mean=round(float(np.mean(levels)), 2), lowest=min(levels), highest=max(levels)
        ),
        class_shares=class_shares(paths),
        files=files,
        set_sha256=set_hash(files),
    )


def _sections(
    made: CalibrationSet,
    pictures: Sequence[Description],
    seen: Sequence[Description],
    left_out: Mapping[int, Reason],
) -> dict[str, list[tuple[str, bytes]]]:
    """Titles and thumbnails of the contact sheet: the chosen pictures, and some rejected ones."""
    chosen = made.selection
    title = (
        f"{len(pictures)} of {chosen.candidates} pictures of {made.source}, {chosen.select}, "
        f"brightness {made.brightness.lowest:.0f} to {made.brightness.highest:.0f}"
    )
    sections = {title: [_captioned(picture) for picture in pictures]}
    for reason in REASONS:
        those = [seen[number] for number, why in left_out.items() if why == reason]
        if those:
            shown = those[:SHOWN_LEFT_OUT]
            more = f", {len(shown)} of them" if len(shown) < len(those) else ""
            sections[f"left out, {reason}: {len(those)}{more}"] = list(map(_captioned, shown))
    return sections


def _captioned(picture: Description) -> tuple[str, bytes]:
    return f"{picture.name[-18:]}  {picture.brightness:.0f}", picture.thumbnail


def _portable(path: Path, base: Path) -> str:
    path, base = path.resolve(), base.resolve()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
