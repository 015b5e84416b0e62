"""Calibration sets: which pictures the INT8 ranges are measured on.

A set is a manifest, ``calib/NAME.json``: the files by path and hash, where they came from
and how they were picked. Frames of a video or a camera are saved as PNG in ``calib/NAME/``.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from edgeseg.artifacts import sha256_file, write_atomic
from edgeseg.card import Sha256
from edgeseg.console import Track, silent
from edgeseg.data.folders import list_images, load_image
from edgeseg.documents import Document, load
from edgeseg.errors import MismatchedArtifact, SourceError, UsageError
from edgeseg.stream.capture import open_frames
from edgeseg.stream.source import SourceSpec, parse_source

logger = logging.getLogger(__name__)

LIVE_STRIDE = 10
"""Of a live source every tenth frame is taken: neighbours say nothing new of the ranges."""


class CalibrationFile(Document):
    """One picture: its path, relative to the manifest where it lies below it, and its hash."""

    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256


class CalibrationSet(Document):
    """The pictures that INT8 ranges are measured on; ``set_sha256`` is over their hashes."""

    schema_version: Literal[1] = 1
    source: str
    seed: int
    files: Annotated[tuple[CalibrationFile, ...], Field(min_length=1)]
    set_sha256: Sha256
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.set_sha256 != set_hash(self.files):
            raise ValueError("set_sha256 is not that of the files listed; collect the set again")
        return self


def set_hash(files: Iterable[CalibrationFile]) -> str:
    """Hash over the hashes of the pictures, in their order; paths do not matter."""
    return hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()


def collect(
    source: str | Path, out: Path, *, count: int = 64, seed: int = 0, track: Track = silent
) -> CalibrationSet:
    """Pick ``count`` pictures spread over a source and write their manifest.

    The source is cut into ``count`` equal parts and one picture is drawn from each, so that
    neither a sorted folder nor a slow video is represented by its beginning.

    Args:
        source: Picture folder, glob, picture, video file, ``camera:N`` or stream URL.
        out: The manifest to write, e.g. ``calib/NAME.json``.
        count: Pictures wanted; all are taken where there are fewer.
        seed: Of the draw.

    Raises:
        UsageError: ``count`` is below 1, or the source holds no picture.
        DatasetError: A picture cannot be read.
        SourceError: The video, camera or stream cannot be opened or gives no frame.
    """
    if count < 1:
        raise UsageError(f"a calibration set holds at least 1 picture, not {count}")
    spec = parse_source(source)
    if spec.kind == "pictures":
        paths = list_images(Path(spec.target))
        picked = [paths[index] for index in spread(len(paths), count, seed)]
        for path in track(picked, "reading pictures"):
            load_image(path)  # An unreadable one is refused now, not at the hundredth range.
    else:
        picked = list(_save_frames(spec, out.parent / out.stem, count, seed, track))
    if len(picked) < count:
        logger.warning("%d pictures wanted, %s has %d", count, spec.label, len(picked))
    files = tuple(
        CalibrationFile(path=_portable(path, out.parent), sha256=sha256_file(path))
        for path in picked
    )
    made = CalibrationSet(source=spec.label, seed=seed, files=files, set_sha256=set_hash(files))
    made.save(out)
    return made


def spread(total: int, count: int, seed: int) -> list[int]:
    """``count`` of ``total`` indices, ascending: one at random from each of ``count`` equal parts.

    All indices where ``total`` <= ``count``.
    """
    if total <= count:
        return list(range(total))
    edges = np.linspace(0, total, count + 1).astype(int)
    random = np.random.default_rng(seed)
    return [int(random.integers(low, high)) for low, high in itertools.pairwise(edges)]


def load_set(manifest: Path) -> tuple[CalibrationSet, list[Path]]:
    """Read a manifest and check every picture of it.

    Returns:
        The set, and its pictures' paths in order.

    Raises:
        UsageError: There is no such manifest.
        CorruptArtifact: It is no manifest.
        MismatchedArtifact: A picture is gone or has changed.
    """
    made = load(CalibrationSet, manifest)
    paths = []
    for file in made.files:
        path = manifest.parent / file.path
        if not path.is_file():
            raise MismatchedArtifact(
                f"{manifest}: picture {file.path} is gone", mend=_again(made, manifest)
            )
        if sha256_file(path) != file.sha256:
            raise MismatchedArtifact(
                f"{manifest}: picture {file.path} changed since the set was made",
                mend=_again(made, manifest),
            )
        paths.append(path)
    return made, paths


def _again(made: CalibrationSet, manifest: Path) -> str:
    return f"collect the set again: `edgeseg calibrate --from {made.source} --out {manifest}`"


def _portable(path: Path, base: Path) -> str:
    path, base = path.resolve(), base.resolve()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _save_frames(
    spec: SourceSpec, folder: Path, count: int, seed: int, track: Track
) -> Iterator[Path]:
    frames = open_frames(spec)
    try:
        if frames.declared and not spec.live:
            wanted = spread(frames.declared, count, seed)
        else:
            wanted = list(range(0, count * LIVE_STRIDE, LIVE_STRIDE))
        place = 0
        for index in track(wanted, "taking frames", len(wanted)):
            frame = frames.read()
            while frame is not None and place < index:
                frame, place = frames.read(), place + 1
            if frame is None:
                break
            place += 1
            yield _save_png(folder / f"{index:06d}.png", frame)
        if not place:
            raise SourceError(f"{spec.label} was opened but gave no frame")
    finally:
        frames.close()


def _save_png(path: Path, frame: NDArray[np.uint8]) -> Path:
    write_atomic(path, cv2.imencode(".png", frame)[1].tobytes())
    return path
