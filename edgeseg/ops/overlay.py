"""Draw label maps as pictures: class colours, overlays, a legend; and count class areas."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, Rgb
from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels
from edgeseg.ops.preprocess import inside, nearest, nearest_indices

UNNAMED_COLOUR: Rgb = (224, 224, 192)
"""Colour of ids beyond the palette, such as ignore; "void" in PASCAL VOC."""

_GREY: Rgb = (90, 90, 90)
"""Swatch colour of hidden classes."""

_COUNTED = 1 << 22  # pixels at once


def colourise(labels: NDArray[np.uint8], palette: Sequence[Rgb]) -> NDArray[np.uint8]:
    """Colour each pixel by its class.

    Args:
        labels: uint8 (H, W), class ids.
        palette: RGB colours by class id; ids beyond it get ``UNNAMED_COLOUR``.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    _check_labels(labels)
    coloured = cv2.applyColorMap(labels, _colour_table(tuple(palette)))
    return np.asarray(coloured, np.uint8)


@dataclass(frozen=True)
class Look:
    """Style of an overlay.

    Attributes:
        palette: RGB colours by class id; ids beyond it get ``UNNAMED_COLOUR``.
        alpha: Opacity of the colours, from 0 to 1, in steps of 1/256.
        outline: Draw a one-pixel opaque outline inside each region.
        clear: Ids that are left clear, such as the background and hidden classes.

    Raises:
        UsageError: ``alpha`` is not in 0…1.
    """

    palette: Sequence[Rgb]
    alpha: float = 0.5
    outline: bool = False
    clear: AbstractSet[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha must be within 0 and 1, not {self.alpha}")

    @property
    def weight(self) -> int:
        """Opacity of the colours in units of 1/256."""
        return round(self.alpha * 256)

    def table(self) -> NDArray[np.uint8]:
        """Return the colours of all ids, uint8 (256, 4) BGRA: A is 0 of clear ids, else 255."""
        return _painted(tuple(self.palette), frozenset(self.clear))


def overlay(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    palette: Sequence[Rgb],
    alpha: float = 0.5,
    out: NDArray[np.uint8] | None = None,
    *,
    outline: bool = False,
    clear: AbstractSet[int] = frozenset(),
) -> NDArray[np.uint8]:
    """Blend class colours over a picture.

    Args:
        frame: uint8 (H, W, 3) BGR, or (H, W) grey.
        labels: uint8 (H, W), class ids.
        palette: As in :class:`Look`, like ``alpha`` and ``outline``.
        alpha: Opacity of the colours, from 0 to 1.
        out: uint8 (H, W, 3), C-contiguous, to write into; may be ``frame`` itself.
        outline: Draw the outline of each region.
        clear: Ids that are left clear, e.g. ``card.classes.clear``.

    Returns:
        ``out``, or a new array: uint8 (H, W, 3) BGR.

    Raises:
        UsageError: A dtype, shape or layout is invalid, or ``alpha`` is not in 0…1.
    """
    _check_labels(labels)
    look = Look(palette, alpha, outline, clear)
    if frame.shape[:2] != labels.shape:
        raise UsageError(f"labels {labels.shape} need a frame of that size, not {frame.shape}")
    return _lay_over(frame, labels, look, out)


def overlay_restored(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    spec: InputSpec,
    look: Look,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw an :func:`overlay` from a label map at the network's size, without resizing it first.

    Args:
        frame: uint8 (H, W, 3) BGR, or (H, W) grey.
        labels: uint8 (height, width) of ``spec``, class ids.
        spec: The card's ``input``, with which the frame was preprocessed.
        out: uint8 (H, W, 3), C-contiguous, to write into; may be ``frame`` itself.

    Returns:
        The same as ``overlay(frame, restore_labels(labels, (H, W), spec), …)``.

    Raises:
        UsageError: A dtype, shape or layout is invalid.
    """
    return _lay_over(frame, inside(labels, frame.shape[:2], spec), look, out)


def lay_reference(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], look: Look, out: NDArray[np.uint8]
) -> None:
    """Reference for drawing an overlay of ``labels`` on a frame (H, W, 3).

    A blended value is ``(frame * (256 - weight) + colour * weight + 128) // 256``. Weights in
    1/256 and the 1/1024 that breaks ties are exact in float32, so every version of addWeighted
    gives these bits, whatever its order of operations.
    """
    if out is not frame:
        np.copyto(out, frame)
    labels = nearest(labels, (out.shape[0], out.shape[1]))
    colours = colourise(labels, look.palette)
    share = look.weight / 256
    blended = cv2.addWeighted(out, 1 - share, colours, share, 1 / 1024)
    shown = cv2.LUT(labels, np.ascontiguousarray(look.table()[:, 3]))
    cv2.copyTo(blended, shown, out)
    if look.outline:
        rim = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        cv2.copyTo(colours, cv2.min(rim, shown), out)


def lay_native(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    look: Look,
    out: NDArray[np.uint8],
    threads: int = 1,
) -> None:
    """C++ version of :func:`lay_reference`; releases the GIL."""
    assert kernels is not None
    frame, labels = _packed(frame), _packed(labels)
    taken = nearest_indices(labels.shape, (out.shape[0], out.shape[1]))
    kernels.overlay(frame, out, labels, taken, (look.table(), look.weight, look.outline), threads)


def draw_legend(
    frame: NDArray[np.uint8], classes: ClassMap, hidden: AbstractSet[int] = frozenset()
) -> tuple[int, int]:
    """Draw a legend of class names and colours in the upper left corner, in place.

    The background is omitted, as overlays leave it clear; hidden classes are grey. Text scales
    with the height of the frame; a last line counts the names that do not fit.

    Args:
        frame: uint8 (H, W, 3) BGR, writeable and C-contiguous.
        hidden: Class ids that are hidden in the picture.

    Returns:
        (height, width) of the legend.

    Raises:
        UsageError: ``frame`` has another dtype, shape or layout.
    """
    check_canvas(frame, "frame")
    rows = tuple(
        (name, _GREY if label in hidden else colour)
        for label, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True))
        if label not in classes.clear
    )
    panel, swatches = _legend(rows, frame.shape[0])
    height, width = min(panel.shape[0], frame.shape[0]), min(panel.shape[1], frame.shape[1])
    box, panel = frame[:height, :width], panel[:height, :width]
    np.right_shift(box, 2, out=box)  # dark enough for white text on any picture
    cv2.max(box, panel, box)
    strip = swatches[:height, :width]
    cv2.copyTo(panel[:, : strip.shape[1]], strip, box[:, : strip.shape[1]])
    return height, width


@functools.lru_cache(maxsize=64)
def _legend(
    rows: tuple[tuple[str, Rgb], ...], height: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render a legend of names and colours for a frame height, and the mask of its swatches.

    Returns:
        uint8 (h, w, 3) BGR on black; uint8 (h, n) of its first n columns.
    """
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, height / 1000)
    line = max(12, round(30 * scale))
    room = max(1, (height - line) // line)
    if len(rows) > room:
        rest = len(rows) - room + 1
        rows = (*rows[: room - 1], (f"+{rest} more", UNNAMED_COLOUR))
    texts = [drawable(name) for name, _ in rows]
    widths = [cv2.getTextSize(text, font, scale, 1)[0][0] for text in texts]
    panel = np.zeros((line * len(rows) + line // 2, max(widths) + 2 * line, 3), np.uint8)
    swatches = np.zeros((panel.shape[0], line + 1), np.uint8)
    for index, (text, (_, (red, green, blue))) in enumerate(zip(texts, rows, strict=True)):
        top = line // 4 + index * line
        (left, upper), (right, lower) = (line // 4, top + line // 8), (line, top + line - line // 8)
        cv2.rectangle(panel, (left, upper), (right, lower), (blue, green, red), cv2.FILLED)
        swatches[upper : lower + 1, left:] = 1
        start = (line + line // 2, top + line - line // 4)
        cv2.putText(panel, text, start, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    panel.flags.writeable = swatches.flags.writeable = False
    return panel, swatches


def class_areas(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class: int64 (num_classes,); other ids are not counted.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    _check_labels(labels)
    # NumPy copies to eight bytes per pixel, so large pictures are counted in parts.
    rows = max(1, _COUNTED // max(1, labels.shape[1]))
    counts = np.zeros(256, np.int64)
    for top in range(0, len(labels), rows):
        counts += np.bincount(labels[top : top + rows].ravel(), minlength=256)
    return counts[:num_classes]


def restored_areas(
    labels: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec, num_classes: int
) -> NDArray[np.int64]:
    """Compute :func:`class_areas` at the picture's ``size`` (H, W) from a network's label map.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    part = inside(labels, size, spec)
    taken = nearest_indices(part.shape, size)
    if kernels is not None:
        areas = np.zeros(256, np.int64)
        kernels.count_areas(_packed(part), taken, areas)
        return areas[:num_classes]
    rows, columns = (
        np.bincount(indices, minlength=length)
        for indices, length in zip(taken, part.shape, strict=True)
    )
    # Exact: the products and their sums are integers far below 2^53.
    counts = np.bincount(part.ravel(), np.outer(rows, columns).ravel(), minlength=256)
    return counts[:num_classes].astype(np.int64)


@functools.lru_cache(maxsize=16)
def _colour_table(palette: tuple[Rgb, ...]) -> NDArray[np.uint8]:
    """Make a lookup table for applyColorMap, uint8 (256, 1, 3) BGR."""
    table = np.empty((256, 1, 3), np.uint8)
    table[:] = UNNAMED_COLOUR[::-1]
    table[: len(palette), 0] = np.array(palette, np.uint8)[:, ::-1]
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=64)
def _painted(palette: tuple[Rgb, ...], clear: frozenset[int]) -> NDArray[np.uint8]:
    table = np.full((256, 4), 255, np.uint8)
    table[:, :3] = _colour_table(palette)[:, 0]
    table[list(clear), 3] = 0
    table.flags.writeable = False
    return table


def _lay_over(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], look: Look, out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or frame.shape[2:] not in ((), (3,)):
        raise UsageError(
            f"frame must be uint8 (H, W, 3) BGR or (H, W) grey, not {frame.dtype} {frame.shape}"
        )
    base = frame if frame.ndim == 3 else np.repeat(frame[..., np.newaxis], 3, axis=2)
    if out is None:
        out = np.empty(base.shape, np.uint8)
    check_canvas(out, "out")
    if out.shape != base.shape:
        raise UsageError(f"out must have the frame's shape {base.shape}, not {out.shape}")
    if out is not base and np.may_share_memory(out, base):
        base = base.copy()
    if np.may_share_memory(out, labels):
        labels = labels.copy()
    lay = lay_reference if kernels is None else lay_native
    lay(base, labels, look, out)
    return out


def _packed(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the array, or a copy if its rows are not contiguous."""
    return array if array[0].flags.c_contiguous else array.copy()


def drawable(name: str) -> str:
    """Convert a name to what putText can draw: ASCII without accents before OpenCV 5."""
    if int(cv2.__version__.partition(".")[0]) >= 5:
        return name
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _check_labels(labels: NDArray[np.uint8]) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise UsageError(f"a label map is uint8 (H, W), not {labels.dtype} {labels.shape}")


def check_canvas(frame: NDArray[np.uint8], what: str) -> None:
    """Raise UsageError unless ``frame`` can be drawn on; the message calls it ``what``."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UsageError(f"{what} must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    if not (frame.flags.c_contiguous and frame.flags.writeable):
        raise UsageError(f"{what} must be writeable and C-contiguous")
