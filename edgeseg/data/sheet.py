"""Contact sheets of labelled pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.figures import require_png
from edgeseg.artifacts.files import write_atomic
from edgeseg.data.decode import load_image
from edgeseg.data.folders import undeclared_classes
from edgeseg.data.instances import with_boundary
from edgeseg.data.sample import Sample, load_sample
from edgeseg.data.thumbnails import (
    BACKGROUND,
    GAP,
    HEIGHT,
    INK,
    WIDTH,
    captioned,
    line,
    place,
    rows,
    write,
)
from edgeseg.errors import DatasetError
from edgeseg.ops.overlay import drawable, overlay

PER_SPLIT = 24
"""Maximum pictures shown per split, spread evenly."""

_COLUMNS = 4
_BAD = (60, 60, 220)


def save_sheet(
    path: Path, splits: Mapping[str, Sequence[Sample]], classes: ClassMap | None
) -> None:
    """Draw a contact sheet and save it as a PNG; see :func:`draw_sheet`.

    Raises:
        UsageError: ``path`` is no PNG or cannot be written.
    """
    require_png(path, "a contact sheet")
    write_atomic(path, cv2.imencode(".png", draw_sheet(splits, classes))[1].tobytes())


def draw_sheet(
    splits: Mapping[str, Sequence[Sample]], classes: ClassMap | None
) -> NDArray[np.uint8]:
    """Draw up to ``PER_SPLIT`` pictures of each split, with a legend on top.

    For samples with object maps only, object boundaries are drawn too, so that touching objects
    can be told apart. Samples that cannot be read show the error.

    Args:
        classes: Classes of the masks, None if unknown.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    classes = classes or undeclared_classes()
    width = _COLUMNS * (2 * WIDTH + GAP) + GAP
    strips = list(_legend(classes, width))
    for name, samples in splits.items():
        title = f"{name or 'all'}: {plural(len(samples), 'picture')}"
        strips.append(line(title, width, scale=0.6))
        strips += rows([_cell(sample, classes) for sample in _spread(samples)], width)
    return np.concatenate(strips)


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    places = np.linspace(0, len(samples) - 1, min(PER_SPLIT, len(samples)))
    return [samples[int(place)] for place in places.round()]


def _cell(sample: Sample, classes: ClassMap) -> NDArray[np.uint8]:
    """Draw picture and overlay side by side, with the name below."""
    if sample.mask is None and len(classes) == 2:
        classes = with_boundary(classes)
    cell = np.full((HEIGHT, 2 * WIDTH, 3), BACKGROUND, np.uint8)
    wrong = ""
    try:
        image, mask = load_sample(sample, classes)
        shown = overlay(image, mask, classes.palette, outline=True, clear=classes.clear)
        place(cell[:, WIDTH:], shown)
    except DatasetError as error:
        wrong = error.message.removeprefix(f"{sample.mask or sample.instances}: ")
        image = _or_nothing(sample)
        _wrapped(cell[:, WIDTH:], wrong)
    place(cell[:, :WIDTH], image)
    return captioned(cell, sample.image.name, _BAD if wrong else INK)


def _or_nothing(sample: Sample) -> NDArray[np.uint8]:
    try:
        return load_image(sample.image)
    except DatasetError:
        return np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)


def _legend(classes: ClassMap, width: int) -> Iterator[NDArray[np.uint8]]:
    """Draw the colour and name of each class, as many per line as fit."""
    strip, left = line("", width), GAP
    for name, (red, green, blue) in zip(classes.names, classes.palette, strict=True):
        text = drawable(name)
        needed = 30 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
        if left > GAP and left + needed > width:
            yield strip
            strip, left = line("", width), GAP
        corners = (left, 7), (left + 14, 21)
        cv2.rectangle(strip, *corners, (blue, green, red), cv2.FILLED)
        cv2.rectangle(strip, *corners, INK)
        write(strip, text, (left + 20, 19), INK, 0.45)
        left += needed + GAP
    yield strip


def _wrapped(box: NDArray[np.uint8], text: str) -> None:
    lines = textwrap.wrap(text, box.shape[1] // 7)
    for number, part in enumerate(lines[: box.shape[0] // 16]):
        write(box, part, (2, 14 + 16 * number), _BAD)
