"""Pictures on disk → label maps and overlays on disk, with any engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts import write_atomic
from edgeseg.console import Track, silent
from edgeseg.data.folders import load_image
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.ops.overlay import class_areas, draw_legend, overlay


@dataclass(frozen=True)
class Segmented:
    """One picture's result: where it lies, and the share of the picture each class covers."""

    picture: str
    labels: str
    overlay: str
    class_shares: dict[str, float]


def segment_files(
    engine: Engine,
    pictures: Iterable[Path],
    out: Path,
    *,
    opacity: float = 0.5,
    track: Track = silent,
) -> list[Segmented]:
    """Segment each picture and write ``out/NAME.labels.png`` and ``out/NAME.overlay.png``.

    The label map holds class ids, uint8 at the picture's own size.

    Raises:
        DatasetError: A picture cannot be read.
        UsageError: Two pictures have the same name, or ``out`` cannot be written.
    """
    pictures = list(pictures)
    _refuse_equal_names(pictures)
    engine.warm_up()
    results = []
    for path in track(pictures, "segmenting", len(pictures)):
        image = load_image(path)
        labels = engine.segment(image)
        results.append(_write(engine, path, image, labels, out, opacity))
    return results


def _write(
    engine: Engine,
    path: Path,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    out: Path,
    opacity: float,
) -> Segmented:
    classes = engine.card.classes
    painted = overlay(image, labels, classes.palette, opacity)
    draw_legend(painted, classes)
    label_path = out / f"{path.stem}.labels.png"
    overlay_path = out / f"{path.stem}.overlay.png"
    write_atomic(label_path, _png(labels))
    write_atomic(overlay_path, _png(painted))
    shares = class_areas(labels, len(classes)) / labels.size
    return Segmented(
        picture=str(path),
        labels=str(label_path),
        overlay=str(overlay_path),
        class_shares={
            name: round(float(s), 6) for name, s in zip(classes.names, shares, strict=True)
        },
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", image)
    return data.tobytes()


def _refuse_equal_names(pictures: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in pictures:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise UsageError(
                f"{other} and {path} would be written to the same file",
                mend="segment them in two calls with different --out folders",
            )
