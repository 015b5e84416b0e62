"""Label maps as pictures: class colours, see-through overlays, a legend, areas."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.card import ClassMap, Rgb
from edgeseg.errors import UsageError

UNNAMED_COLOUR: Rgb = (224, 224, 192)
"""Colour of ids past the palette such as ignore: that of "void" in PASCAL VOC."""


def colourise(labels: NDArray[np.uint8], palette: Sequence[Rgb]) -> NDArray[np.uint8]:
    """Each pixel in the colour of its class.

    Args:
        labels: uint8 (H, W), class ids.
        palette: RGB, one a class; ids past it become ``UNNAMED_COLOUR``.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    _check_labels(labels)
    coloured = cv2.applyColorMap(labels, _colour_table(tuple(palette)))
    return np.asarray(coloured, np.uint8)


def overlay(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    palette: Sequence[Rgb],
    alpha: float = 0.5,
    out: NDArray[np.uint8] | None = None,
    *,
    outline: bool = False,
) -> NDArray[np.uint8]:
    """The picture with its classes laid over it; class 0, the background, stays clear.

    Args:
        frame: uint8 (H, W, 3) BGR, or (H, W) grey.
        labels: uint8 (H, W), class ids.
        palette: RGB, one a class.
        alpha: 0 shows the picture alone, 1 the colours alone.
        out: uint8 (H, W, 3), C-contiguous, to write into; may be ``frame`` itself.
        outline: Draw the rim of each region in its full colour, a pixel wide, inside it.

    Returns:
        ``out``, or a new array: uint8 (H, W, 3) BGR.

    Raises:
        UsageError: A dtype, shape or layout is another, or ``alpha`` is not in 0…1.
    """
    _check_labels(labels)
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha must be within 0 and 1, not {alpha}")
    if frame.dtype != np.uint8 or frame.shape not in (labels.shape, (*labels.shape, 3)):
        raise UsageError(
            f"labels {labels.shape} need a frame uint8 of that size, BGR or grey, "
            f"not {frame.dtype} {frame.shape}"
        )
    base = frame if frame.ndim == 3 else np.repeat(frame[..., np.newaxis], 3, axis=2)
    out = _start_from(base, out)
    colours = colourise(labels, palette)
    blended = cv2.addWeighted(out, 1 - alpha, colours, alpha, 0)
    # The label map is its own mask: background is 0, and copyTo takes what is not 0.
    cv2.copyTo(blended, labels, out)
    if outline:
        rim = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        cv2.copyTo(colours, cv2.min(rim, labels), out)
    return out


def draw_legend(frame: NDArray[np.uint8], classes: ClassMap) -> None:
    """Write the class names beside their colours into the upper left corner, in place.

    Class 0 is left out, as overlays leave it clear. Text follows the height of the frame;
    names that find no room are counted in a last line.

    Args:
        frame: uint8 (H, W, 3) BGR, writeable and C-contiguous.
        classes: Names and palette.

    Raises:
        UsageError: ``frame`` has another dtype, shape or layout.
    """
    _check_canvas(frame, "frame")
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, frame.shape[0] / 1000)
    line = max(12, round(30 * scale))
    room = max(1, (frame.shape[0] - line) // line)
    rows = list(zip(classes.names, classes.palette, strict=True))[1:]
    if len(rows) > room:
        hidden = len(rows) - room + 1
        rows = [*rows[: room - 1], (f"+{hidden} more", UNNAMED_COLOUR)]
    texts = [drawable(name) for name, _ in rows]
    widths = [cv2.getTextSize(text, font, scale, 1)[0][0] for text in texts]
    box = frame[: line * len(rows) + line // 2, : max(widths) + 2 * line]
    box //= 4  # dark enough for white text on any picture
    for index, (text, (_, (red, green, blue))) in enumerate(zip(texts, rows, strict=True)):
        top = line // 4 + index * line
        swatch = (line // 4, top + line // 8), (line, top + line - line // 8)
        cv2.rectangle(frame, *swatch, (blue, green, red), cv2.FILLED)
        start = (line + line // 2, top + line - line // 4)
        cv2.putText(frame, text, start, font, scale, (255, 255, 255), 1, cv2.LINE_AA)


def class_areas(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Pixels of each class: int64 (num_classes,); ids past it (ignore) are not counted.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    _check_labels(labels)
    return np.bincount(labels.ravel(), minlength=256)[:num_classes]


@functools.lru_cache(maxsize=16)
def _colour_table(palette: tuple[Rgb, ...]) -> NDArray[np.uint8]:
    """Uint8 (256, 1, 3) BGR, as applyColorMap takes it."""
    table = np.empty((256, 1, 3), np.uint8)
    table[:] = UNNAMED_COLOUR[::-1]
    table[: len(palette), 0] = np.array(palette, np.uint8)[:, ::-1]
    table.flags.writeable = False
    return table


def _start_from(base: NDArray[np.uint8], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """``out`` holding ``base``."""
    if out is None:
        return base.copy(order="C")
    _check_canvas(out, "out")
    if out.shape != base.shape:
        raise UsageError(f"out must have the frame's shape {base.shape}, not {out.shape}")
    if out is not base:
        np.copyto(out, base)
    return out


def drawable(name: str) -> str:
    """What putText can draw: anything since OpenCV 5; before, ASCII, so accents are dropped."""
    if int(cv2.__version__.partition(".")[0]) >= 5:
        return name
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _check_labels(labels: NDArray[np.uint8]) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise UsageError(f"a label map is uint8 (H, W), not {labels.dtype} {labels.shape}")


def _check_canvas(frame: NDArray[np.uint8], what: str) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UsageError(f"{what} must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    if not (frame.flags.c_contiguous and frame.flags.writeable):
        raise UsageError(f"{what} must be writeable and C-contiguous")
