"""Collect the pictures of a calibration set.

A contact sheet beside its manifest, ``calib/NAME.png``, shows the pictures picked and those left
out. Frames of a video or a camera are saved as PNG in ``calib/NAME/``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.workshop import workshop
from edgeseg.console import Track, silent
from edgeseg.data.folders import SPLITS, read_split
from edgeseg.data.sample import load_sample
from edgeseg.data.selection import REASONS, Description, Reason, choose, describe, sort_out
from edgeseg.data.thumbnails import save_thumbnails
from edgeseg.errors import ArtifactError, SourceError, UsageError
from edgeseg.options.building import Select
from edgeseg.precision.calibration_set import (
    Brightness,
    CalibrationFile,
    CalibrationSet,
    Selection,
    set_hash,
)
from edgeseg.precision.candidates import open_pool
from edgeseg.sources.spec import SourceSpec, parse_source

logger = logging.getLogger(__name__)

SHOWN_LEFT_OUT = 8
"""Rejected pictures shown in the contact sheet, per reason."""


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
            folder = out.parent / out.stem
            folder.mkdir(parents=True, exist_ok=True)
            paths = [path.replace(folder / path.name) for path in paths]
    pictures = [seen[number] for number in chosen]
    made = _document(spec.label, seed, selection, paths, pictures, out.parent)
    save_thumbnails(sheet_path(out), _sections(made, pictures, seen, left_out))
    made.save(out)
    return made


def _say(selection: Selection, good: int, label: str) -> None:
    """Log what was rejected, and whether enough remains."""
    pictures = plural(selection.candidates, "picture")
    why = ", ".join(f"{count} {reason}" for reason, count in selection.left_out.items() if count)
    if why:
        logger.info("of %s of %s are excluded: %s", pictures, label, why)
    if not good:
        raise SourceError(
            f"{label}: none of {pictures} can be used ({why or 'none came'})",
            hint="check whether the lens is covered, or name another source",
        )
    if good < selection.wanted:
        logger.warning(
            "%s requested, %s has %d that can be used%s",
            plural(selection.wanted, "picture"),
            label,
            good,
            f" (left out: {why})" if why else "",
        )


def _document(
    source: str,
    seed: int,
    selection: Selection,
    paths: Sequence[Path],
    pictures: Sequence[Description],
    base: Path,
) -> CalibrationSet:
    files = tuple(
        CalibrationFile(
            path=_portable(path, base),
            sha256=sha256_file(path),
            brightness=round(picture.brightness, 2),
        )
        for path, picture in zip(paths, pictures, strict=True)
    )
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
        f"{len(pictures)} of {plural(chosen.candidates, 'picture')} of {made.source}, "
        f"{chosen.select}, brightness {made.brightness.lowest:.0f} to {made.brightness.highest:.0f}"
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


def class_shares(pictures: Sequence[Path]) -> dict[str, float] | None:
    """Share of the labelled pixels that belongs to each class.

    Labels are found if the pictures lie in ``…/images/`` with ``masks/`` or ``instances/``
    beside it. Unreadable labels only cause a warning.

    Returns:
        Fraction of 1 by class name, in the order of the classes; None without labels.
    """
    folders = {picture.parent.resolve() for picture in pictures}
    folder = folders.pop().parent
    if folders or not any((folder / part).is_dir() for part in ("masks", "instances")):
        return None
    root, name = (folder.parent, folder.name) if folder.name in SPLITS else (folder, "")
    try:
        return _count(root, name, {picture.resolve() for picture in pictures})
    except (ArtifactError, UsageError) as error:
        logger.warning("the classes of the calibration set were not counted: %s", error)
        return None


def _count(root: Path, name: str, pictures: set[Path]) -> dict[str, float] | None:
    split = read_split(root, name)
    counts = np.zeros(256, np.int64)
    for sample in split:
        if sample.image.resolve() in pictures:
            _, mask = load_sample(sample, split.classes)
            counts += np.bincount(mask.ravel(), minlength=256)
    counts = counts[: len(split.classes)]
    if not counts.any():
        return None
    shares = (counts / counts.sum()).round(6).tolist()
    return dict(zip(split.classes.names, shares, strict=True))
