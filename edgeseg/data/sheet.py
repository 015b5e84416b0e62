"""Contact sheets of pictures, with or without label overlays."""

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
from edgeseg.errors import DatasetError
from edgeseg.ops.overlay import drawable, overlay

PER_SPLIT = 24
"""Maximum pictures shown per split, spread evenly."""

_COLUMNS = 4
_HEIGHT, _WIDTH = 150, 200
_GAP, _TEXT = 8, 18
_THUMBNAILS = 8
_QUALITY = 85
_BACK, _INK, _BAD = (32, 32, 32), (230, 230, 230), (60, 60, 220)


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
        splits: Samples by split name.
        classes: Classes of the masks, None if unknown.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    classes = classes or undeclared_classes()
    width = _COLUMNS * (2 * _WIDTH + _GAP) + _GAP
    strips = list(_legend(classes, width))
    for name, samples in splits.items():
        title = f"{name or 'all'}: {plural(len(samples), 'picture')}"
        strips.append(_line(title, width, scale=0.6))
        cells = [_cell(sample, classes) for sample in _spread(samples)]
        strips += [_row(cells[at : at + _COLUMNS], width) for at in range(0, len(cells), _COLUMNS)]
    return np.concatenate(strips)


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Encode a small JPEG for :func:`save_thumbnails`; ``image`` is uint8 (H, W, 3) BGR."""
    box = np.full((_HEIGHT, _WIDTH, 3), _BACK, np.uint8)
    _place(box, image)
    return cv2.imencode(".jpg", box, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def save_thumbnails(path: Path, sections: Mapping[str, Sequence[tuple[str, bytes]]]) -> None:
    """Save a contact sheet of unlabelled pictures, in sections, as a PNG.

    Args:
        path: PNG file to write.
        sections: Caption and :func:`thumbnail` of each picture, by section title.

    Raises:
        UsageError: ``path`` is no PNG or cannot be written.
    """
    require_png(path, "a contact sheet")
    width = _THUMBNAILS * (_WIDTH + _GAP) + _GAP
    strips = []
    for title, pictures in sections.items():
        strips.append(_line(title, width, scale=0.6))
        cells = [_captioned(*picture) for picture in pictures]
        rows = range(0, len(cells), _THUMBNAILS)
        strips += [_row(cells[at : at + _THUMBNAILS], width) for at in rows]
    write_atomic(path, cv2.imencode(".png", np.concatenate(strips))[1].tobytes())


def _captioned(caption: str, jpeg: bytes) -> NDArray[np.uint8]:
    cell = np.full((_HEIGHT + _TEXT, _WIDTH, 3), _BACK, np.uint8)
    cell[:_HEIGHT] = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    _write(cell, caption, (2, _HEIGHT + 13), _INK)
    return cell


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    places = np.linspace(0, len(samples) - 1, min(PER_SPLIT, len(samples)))
    return [samples[int(place)] for place in places.round()]


def _cell(sample: Sample, classes: ClassMap) -> NDArray[np.uint8]:
    """Draw picture and overlay side by side, with the name below."""
    if sample.mask is None and len(classes) == 2:
        classes = with_boundary(classes)
    cell = np.full((_HEIGHT + _TEXT, 2 * _WIDTH, 3), _BACK, np.uint8)
    wrong = ""
    try:
        image, mask = load_sample(sample, classes)
        shown = overlay(image, mask, classes.palette, outline=True, clear=classes.clear)
        _place(cell[:_HEIGHT, _WIDTH:], shown)
    except DatasetError as error:
        wrong = error.message.removeprefix(f"{sample.mask or sample.instances}: ")
        image = _or_nothing(sample)
        _wrapped(cell[:_HEIGHT, _WIDTH:], wrong)
    _place(cell[:_HEIGHT, :_WIDTH], image)
    _write(cell, sample.image.name, (2, _HEIGHT + 13), _BAD if wrong else _INK)
    return cell


def _or_nothing(sample: Sample) -> NDArray[np.uint8]:
    try:
        return load_image(sample.image)
    except DatasetError:
        return np.full((_HEIGHT, _WIDTH, 3), _BACK, np.uint8)


def _place(box: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Scale a picture to fit a box, centred."""
    scale = min(box.shape[0] / image.shape[0], box.shape[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    top, left = (box.shape[0] - height) // 2, (box.shape[1] - width) // 2
    box[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=method
    )


def _row(cells: Sequence[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    row = np.full((cells[0].shape[0] + _GAP, width, 3), _BACK, np.uint8)
    for number, cell in enumerate(cells):
        left = _GAP + number * (cell.shape[1] + _GAP)
        row[: cell.shape[0], left : left + cell.shape[1]] = cell
    return row


def _legend(classes: ClassMap, width: int) -> Iterator[NDArray[np.uint8]]:
    """Draw the colour and name of each class, as many per line as fit."""
    line, left = _line("", width), _GAP
    for name, (red, green, blue) in zip(classes.names, classes.palette, strict=True):
        text = drawable(name)
        needed = 30 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
        if left > _GAP and left + needed > width:
            yield line
            line, left = _line("", width), _GAP
        corners = (left, 7), (left + 14, 21)
        cv2.rectangle(line, *corners, (blue, green, red), cv2.FILLED)
        cv2.rectangle(line, *corners, _INK)
        _write(line, text, (left + 20, 19), _INK, 0.45)
        left += needed + _GAP
    yield line


def _line(text: str, width: int, scale: float = 0.45) -> NDArray[np.uint8]:
    line = np.full((28, width, 3), _BACK, np.uint8)
    _write(line, text, (_GAP, 20), _INK, scale)
    return line


def _wrapped(box: NDArray[np.uint8], text: str) -> None:
    lines = textwrap.wrap(text, box.shape[1] // 7)
    for number, line in enumerate(lines[: box.shape[0] // 16]):
        _write(box, line, (2, 14 + 16 * number), _BAD)


def _write(
    canvas: NDArray[np.uint8],
    text: str,
    start: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float = 0.38,
) -> None:
    where = cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA
    cv2.putText(canvas, drawable(text), start, *where)
