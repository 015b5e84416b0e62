"""Contact sheets of pictures without labels, and what all contact sheets are drawn with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.figures import require_png
from edgeseg.artifacts.files import write_atomic
from edgeseg.ops.overlay import drawable

Colour = tuple[int, int, int]
"""Blue, green, red."""

HEIGHT, WIDTH = 150, 200
GAP = 8
BACKGROUND: Colour = (32, 32, 32)
INK: Colour = (230, 230, 230)

_COLUMNS = 8
_QUALITY = 85


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Encode a small JPEG for :func:`save_thumbnails`; ``image`` is uint8 (H, W, 3) BGR."""
    box = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    place(box, image)
    return cv2.imencode(".jpg", box, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def save_thumbnails(path: Path, sections: Mapping[str, Sequence[tuple[str, bytes]]]) -> None:
    """Save a contact sheet of unlabelled pictures, in sections, as a PNG.

    Args:
        sections: Caption and :func:`thumbnail` of each picture, by section title.

    Raises:
        UsageError: ``path`` is no PNG or cannot be written.
    """
    require_png(path, "a contact sheet")
    width = _COLUMNS * (WIDTH + GAP) + GAP
    strips = []
    for title, pictures in sections.items():
        strips.append(line(title, width, scale=0.6))
        strips += rows([captioned(_decoded(jpeg), caption) for caption, jpeg in pictures], width)
    write_atomic(path, cv2.imencode(".png", np.concatenate(strips))[1].tobytes())


def _decoded(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def place(box: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Scale a picture to fit a box, centred."""
    scale = min(box.shape[0] / image.shape[0], box.shape[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    top, left = (box.shape[0] - height) // 2, (box.shape[1] - width) // 2
    box[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=method
    )


def captioned(picture: NDArray[np.uint8], caption: str, colour: Colour = INK) -> NDArray[np.uint8]:
    """Append a caption below a picture, uint8 (H, W, 3) BGR."""
    strip = np.full((18, picture.shape[1], 3), BACKGROUND, np.uint8)
    write(strip, caption, (2, 13), colour)
    return np.concatenate([picture, strip])


def rows(cells: Sequence[NDArray[np.uint8]], width: int) -> list[NDArray[np.uint8]]:
    """Arrange cells of one size in rows of ``width`` pixels, with gaps between them."""
    strips = []
    columns = width // (cells[0].shape[1] + GAP) if cells else 1
    for start in range(0, len(cells), columns):
        row = np.full((cells[0].shape[0] + GAP, width, 3), BACKGROUND, np.uint8)
        for number, cell in enumerate(cells[start : start + columns]):
            left = GAP + number * (cell.shape[1] + GAP)
            row[: cell.shape[0], left : left + cell.shape[1]] = cell
        strips.append(row)
    return strips


def line(text: str, width: int, scale: float = 0.45) -> NDArray[np.uint8]:
    """Return a line of text, uint8 (28, ``width``, 3) BGR."""
    strip = np.full((28, width, 3), BACKGROUND, np.uint8)
    write(strip, text, (GAP, 20), INK, scale)
    return strip


def write(
    canvas: NDArray[np.uint8],
    text: str,
    start: tuple[int, int],
    colour: Colour,
    scale: float = 0.38,
) -> None:
    """Write a text, with the left end of its base line at ``start``, as (x, y)."""
    where = cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA
    cv2.putText(canvas, drawable(text), start, *where)
