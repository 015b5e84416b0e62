"""Segment picture files with any engine and write label maps and overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.files import refuse_to_replace, write_atomic
from edgeseg.console import Track, silent
from edgeseg.data.folders import load_image
from edgeseg.data.png import with_palette
from edgeseg.engines.base import Engine
from edgeseg.engines.tiles import segment_tiled
from edgeseg.errors import DatasetError, UsageError
from edgeseg.ops.obscure import obscure
from edgeseg.ops.overlay import class_areas, draw_legend, overlay
from edgeseg.options.inference import Outputs

Segment: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""From a picture as OpenCV reads it to its label map, at its own size."""


@dataclass(frozen=True)
class Segmented:
    """Result of one picture: its files, and the fraction of the picture that each class covers."""

    picture: str
    labels: str
    overlay: str | None
    class_shares: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A picture that could not be read, with the error and a hint."""

    picture: str
    message: str
    hint: str | None


def segment_files(
    engine: Engine,
    pictures: Iterable[Path],
    outputs: Outputs,
    *,
    segment: Segment | None = None,
    overwrite: bool = False,
    failed: list[Failed] | None = None,
    track: Track = silent,
) -> list[Segmented]:
    """Segment pictures and write label maps and overlays, named after the pictures.

    The label map holds class ids, uint8 at the picture's own size.

    Args:
        pictures: Picture files; duplicates are processed once.
        segment: How to segment a picture, see :func:`segmenter`; None is ``engine.segment``.
        overwrite: Allow replacing results of an earlier run; pictures are never replaced.
        failed: List to which unreadable pictures are appended; None to raise an error instead.
        track: Progress callback, one item per picture.

    Raises:
        DatasetError: A picture cannot be read, and ``failed`` is None.
        UsageError: Two pictures have the same name, a result would replace a file that is there,
            a class to obscure does not exist, or the folder cannot be written. All but the last
            is found before any work.
    """
    pictures = list(dict.fromkeys(pictures))
    refuse_conflicts(pictures, outputs, overwrite=overwrite)
    segment = segment or engine.segment
    engine.warm_up()
    outputs.styles(engine.card.classes)  # raises before anything is written
    results = []
    for path in track(pictures, "segmenting", len(pictures)):
        try:
            image = load_image(path)
        except DatasetError as error:
            if failed is None:
                raise
            failed.append(Failed(str(path), error.message, error.hint))
            continue
        labels = segment(image)
        written = write_result(engine.card.classes, image, labels, path.stem, outputs)
        results.append(_segmented(engine.card.classes, path, labels, *written))
    return results


def segmenter(engine: Engine, *, tiles: bool = False, margin: int | None = None) -> Segment:
    """``engine.segment``, or with ``tiles`` :func:`segment_tiled` with that margin."""
    return partial(segment_tiled, engine, margin=margin) if tiles else engine.segment


def write_result(
    classes: ClassMap,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    name: str,
    outputs: Outputs,
) -> tuple[Path, Path | None]:
    """Write one picture's files atomically and return their paths.

    Args:
        image: uint8 (H, W, 3) BGR.
        labels: uint8 (H, W), class ids.
        name: File name without suffix; may contain folders, which are created.

    Raises:
        UsageError: A file cannot be written.
    """
    label_path, overlay_path = outputs.paths(name)
    styles = outputs.styles(classes)
    write_atomic(label_path, _label_png(labels, classes if outputs.coloured else None))
    if overlay_path is None:
        return label_path, None
    image = image.copy() if styles else image
    for style, ids in styles.items():
        found = np.isin(labels, ids).view(np.uint8)
        obscure(image, found, style, outputs.blur_margin)
    painted = overlay(image, labels, classes.palette, outputs.opacity, clear=classes.clear)
    draw_legend(painted, classes)
    write_atomic(overlay_path, _png(painted))
    return label_path, overlay_path


def _segmented(
    classes: ClassMap, path: Path, labels: NDArray[np.uint8], at: Path, overlaid: Path | None
) -> Segmented:
    shares = class_areas(labels, len(classes)) / labels.size
    return Segmented(
        picture=str(path),
        labels=str(at),
        overlay=str(overlaid) if overlaid else None,
        class_shares={
            name: round(float(s), 6) for name, s in zip(classes.names, shares, strict=True)
        },
    )


def _label_png(labels: NDArray[np.uint8], coloured_as: ClassMap | None) -> bytes:
    encoded = _png(labels)
    return with_palette(encoded, coloured_as.palette) if coloured_as is not None else encoded


def _png(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", image)
    return data.tobytes()


def refuse_conflicts(pictures: Iterable[Path], outputs: Outputs, *, overwrite: bool) -> None:
    """Refuse pictures whose results would overwrite each other, a picture or existing files.

    Raises:
        UsageError: They would; ``overwrite`` lets results of an earlier run be replaced alone.
    """
    made: dict[Path, Path] = {}
    for path in pictures:
        for result in filter(None, outputs.paths(path.stem)):
            other = made.setdefault(result, path)
            if other is not path:
                raise UsageError(
                    f"{other} and {path} would be written to the same file",
                    hint="segment them in two calls with different --out folders",
                )
    read = {path.resolve() for path in made.values()}
    for result, path in made.items():
        if result.resolve() in read:
            raise UsageError(
                f"the result of {path} would replace {result}, which is one of the pictures",
                hint="choose another --out folder",
            )
    refuse_to_replace(*made, overwrite=overwrite)
