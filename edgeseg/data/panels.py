"""Draw the pictures that an engine segments worst, with its errors marked."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, Rgb, css_colour
from edgeseg.errors import UsageError
from edgeseg.ops.overlay import colourise

PANELS = ("picture", "truth", "engine", "difference")
WRONG: Rgb = (230, 40, 60)
"""Colour of wrongly labelled pixels."""

_UNLABELLED = 0.35
_WIDEST = 360


@dataclass(frozen=True)
class Drawn:
    """One picture, by its name in the benchmark, and JPEG files of its panels, as ``PANELS``.

    Its score is not here: a page takes it from the benchmark.
    """

    name: str
    panels: tuple[bytes, ...]


@dataclass(frozen=True)
class WorstPictures:
    """The worst pictures of one engine, the worst first; ``engine`` as in the benchmark's rows."""

    engine: str
    classes: ClassMap
    pictures: tuple[Drawn, ...]

    def colours(self) -> list[tuple[str, str]]:
        """Name and CSS colour of each class, and of wrong pixels."""
        pairs = zip(self.classes.names, self.classes.palette, strict=True)
        return [(name, css_colour(colour)) for name, colour in (*pairs, ("wrong", WRONG))]


def draw_panels(
    name: str,
    picture: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    classes: ClassMap,
) -> Drawn:
    """Picture, truth, what the engine made of it, and where they differ, ≤ 360 pixels wide.

    Args:
        name: Name of the picture, as in the benchmark.
        picture: uint8 (H, W, 3) BGR or (H, W) grey.
        truth: uint8 (H, W), class ids and ``classes.ignore``.
        labels: uint8 (H, W), class ids predicted by the engine.

    Raises:
        UsageError: The sizes differ.
    """
    if not picture.shape[:2] == truth.shape == labels.shape:
        raise UsageError(
            f"{name}: picture {picture.shape[:2]}, truth {truth.shape} and labels {labels.shape} "
            "must have one size"
        )
    coloured = [colourise(each, classes.palette) for each in (truth, labels)]
    drawn = (brightened(picture), *coloured, difference(picture, truth, labels, classes.ignore))
    return Drawn(name, tuple(map(_jpeg, drawn)))


def difference(
    picture: NDArray[np.uint8], truth: NDArray[np.uint8], labels: NDArray[np.uint8], ignore: int
) -> NDArray[np.uint8]:
    """The picture in pale grey, wrong pixels in red, those without a label darkened.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    bright = brightened(picture)
    grey = cv2.cvtColor(bright, cv2.COLOR_BGR2GRAY) if bright.ndim == 3 else bright
    pale = 110 + grey.astype(np.float32) * 0.5
    pale[truth == ignore] *= _UNLABELLED
    drawn = np.repeat(np.rint(pale).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    drawn[(truth != labels) & (truth != ignore)] = WRONG[::-1]
    return drawn


def brightened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dark pictures stretched to be seen: microscopes deliver 10 of 255 levels."""
    top = max(float(np.percentile(image, 99.5)), 1.0)
    return np.asarray(cv2.convertScaleAbs(image, alpha=max(1.0, 255 / top)), np.uint8)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    if image.shape[1] > _WIDEST:
        size = _WIDEST, max(1, round(image.shape[0] * _WIDEST / image.shape[1]))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
