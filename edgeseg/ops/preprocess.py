"""Convert pictures to input tensors, and resize label maps and masks.

Training, evaluation, calibration and streaming all use this module, so they cannot differ in how
they resize or normalise.

The bilinear resize is OpenCV's ``INTER_LINEAR_EXACT``: 8-bit weights, one rounding at the
end, the same bits on every machine. Plain ``INTER_LINEAR`` takes another path for each CPU.
A card may ask for :func:`average` instead.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels
from edgeseg.tiling import cut

Tensor: TypeAlias = NDArray[Any]
"""Array of float32, float16 or uint8, according to its :class:`Form`."""


@dataclass(frozen=True)
class Form:
    """Storage format of an input tensor; each engine has one.

    Attributes:
        dtype: ``float32`` or ``float16``, normalised as the card specifies, or ``uint8``: raw grey
            levels, for a graph that normalises.
        layout: ``chw``, (C, height, width), or ``hwc``, (height, width, C).
    """

    dtype: Literal["float32", "float16", "uint8"] = "float32"
    layout: Literal["chw", "hwc"] = "chw"

    def shape(self, spec: InputSpec) -> tuple[int, int, int]:
        """Return the shape of one input tensor."""
        channels, height, width = spec.shape
        return spec.shape if self.layout == "chw" else (height, width, channels)

    def planes(self, tensor: Tensor) -> Tensor:
        """View a tensor of this form as (C, height, width)."""
        return tensor if self.layout == "chw" else tensor.transpose(2, 0, 1)


FLOAT32 = Form()
"""Default form, which the networks of this package take."""


@dataclass(frozen=True)
class Placement:
    """The rectangle of the network's input that the picture fills, in input pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def region(self) -> tuple[slice, slice]:
        """Slices of the rectangle in an array (height, width)."""
        return (slice(self.top, self.top + self.height), slice(self.left, self.left + self.width))


def placement_of(size: tuple[int, int], spec: InputSpec) -> Placement:
    """Compute where a picture of ``size`` (H, W) is placed: the full input, or a letterbox.

    A letterbox keeps the aspect ratio to the nearest pixel; an odd remainder goes to the
    bottom and to the right.
    """
    if spec.resize == "stretch":
        return Placement(0, 0, spec.height, spec.width)
    scale = min(spec.height / size[0], spec.width / size[1])
    height = min(spec.height, max(1, round(size[0] * scale)))
    width = min(spec.width, max(1, round(size[1] * scale)))
    return Placement((spec.height - height) // 2, (spec.width - width) // 2, height, width)


def preprocess(
    image: NDArray[np.uint8],
    spec: InputSpec,
    out: NDArray[np.float32] | None = None,
    *,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Convert one picture to an input tensor: resize, reorder channels and normalise.

    Args:
        image: uint8 (H, W) grey, (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA (alpha is left
            out), any strides.
        spec: The card's ``input``.
        out: C-contiguous float32 (C, height, width) to write into, e.g. one item of a batch.
        threads: Number of threads for the C++ kernel.

    Returns:
        ``out``, or a new array: float32 (C, height, width), ``(value * scale - mean) / std``
        per channel. The border of a letterbox is 0, the mean colour.

    Raises:
        UsageError: ``image`` or ``out`` has another dtype, shape or layout.
    """
    return preprocess_as(FLOAT32, image, spec, out, threads=threads)


def preprocess_tile(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Do :func:`preprocess`, for networks with ``tiles`` on the tile in the middle of the picture.

    For calibrating and comparing networks, which need typical tensors rather than all pixels.
    """
    if spec.tiles:
        tile = spec.height, spec.width
        top, left = ((whole - side) // 2 for whole, side in zip(image.shape, tile, strict=False))
        planes = cut(np.moveaxis(np.atleast_3d(image), -1, 0), (top, left), tile)
        image = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    return preprocess(image, spec)


def preprocess_as(
    form: Form,
    image: NDArray[np.uint8],
    spec: InputSpec,
    out: Tensor | None = None,
    *,
    threads: int = 1,
) -> Tensor:
    """Do :func:`preprocess` into a tensor of a given form.

    Args:
        image: Picture, as for :func:`preprocess`.
        spec: The card's ``input``.
        out: C-contiguous array of that form to write into, e.g. one item of a batch.
        threads: Number of threads for the C++ kernel.

    Returns:
        ``out``, or a new array. float16 is rounded from float64; in uint8 the border of a
        letterbox is the grey level closest to the mean colour.

    Raises:
        UsageError: ``image`` or ``out`` has another dtype, shape or layout.
    """
    pixels = _check_image(image)
    if out is None:
        out = np.empty(form.shape(spec), form.dtype)
    else:
        _check_out(out, spec, form)
    planes = form.planes(out)
    placement = placement_of(pixels.shape[:2], spec)
    if (placement.height, placement.width) != (spec.height, spec.width):
        planes[...] = border(spec, form.dtype)
    if kernels is None:
        fill_reference(pixels, planes, placement, spec)
    else:
        fill_native(pixels, planes, placement, spec, threads)
    return out


def restore_labels(
    labels: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec
) -> NDArray[np.uint8]:
    """Resize a network's label map to the picture's size.

    Args:
        labels: uint8 (height, width) of ``spec``.
        size: (H, W) of the picture that was preprocessed.
        spec: The card's ``input``.

    Returns:
        uint8 (H, W): nearest label (half-pixel centres), without the letterbox border.

    Raises:
        UsageError: ``labels`` has another dtype or shape.
    """
    return nearest(inside(labels, size, spec), size)


def inside(labels: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec) -> NDArray[np.uint8]:
    """View the part of a network's label map that a picture of ``size`` (H, W) fills.

    Raises:
        UsageError: ``labels`` is not uint8 of the size in ``spec``.
    """
    _check_labels(labels, (spec.height, spec.width))
    return labels[placement_of(size, spec).region]


def fit_mask(mask: NDArray[np.uint8], spec: InputSpec, ignore: int = 255) -> NDArray[np.uint8]:
    """Resize a mask to the network's size, matching what ``preprocess`` does to the picture.

    Args:
        mask: uint8 (H, W), class ids.
        spec: The card's ``input``.
        ignore: Value for the border of a letterbox.

    Returns:
        uint8 (height, width): nearest value (half-pixel centres).

    Raises:
        UsageError: ``mask`` has another dtype or shape.
    """
    _check_labels(mask, None)
    placement = placement_of(mask.shape[:2], spec)
    fitted = np.full((spec.height, spec.width), ignore, np.uint8)
    fitted[placement.region] = nearest(mask, (placement.height, placement.width))
    return fitted


def fill_reference(
    pixels: NDArray[np.uint8], planes: Tensor, placement: Placement, spec: InputSpec
) -> None:
    """Reference for resizing and normalising a picture into its part of ``planes``."""
    size = (placement.width, placement.height)
    if spec.reduce == "area":
        resized = average(pixels[..., :3], size[::-1])
    else:
        linear = cv2.resize(pixels[..., :3], size, interpolation=cv2.INTER_LINEAR_EXACT)
        resized = np.asarray(linear, np.uint8)
    channels = list(cv2.split(resized))
    if spec.color == "gray" and len(channels) == 3:
        channels = [cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY)]
    elif len(channels) < spec.channels:
        channels = channels * 3
    elif spec.color == "rgb":
        channels = channels[::-1]
    tables = normalisation(spec, planes.dtype.name)
    for channel, table, target in zip(channels, tables, planes, strict=True):
        # float16 values are looked up by their bit patterns.
        bits = table.view(np.uint16) if table.dtype == np.float16 else table
        target[placement.region] = cv2.LUT(channel, bits).view(table.dtype)


def average(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture (H, W, C) to ``size`` (h, w) by averaging the area of each pixel.

    Like OpenCV's ``INTER_AREA``, but with exact sums and halves rounded up on every machine. When
    enlarging, an output pixel covers one or two input pixels.
    """
    total = pixels.shape[0] * pixels.shape[1]
    sums = _covered(_covered(pixels.astype(np.int64), size[0], 0), size[1], 1)
    return np.asarray((2 * sums + total) // (2 * total), np.uint8)


def _covered(values: NDArray[np.int64], target: int, axis: int) -> NDArray[np.int64]:
    """Sum the values that each of ``target`` pixels covers, in units of 1/``target`` value."""
    source = values.shape[axis]
    whole, part = np.divmod(np.arange(target + 1) * source, target)
    shape = [-1 if each == axis else 1 for each in range(values.ndim)]
    before = np.insert(np.cumsum(values, axis), 0, 0, axis).take(whole, axis)
    begun = values.take(np.minimum(whole, source - 1), axis)
    upto = before * target + begun * part.reshape(shape)
    return np.asarray(np.diff(upto, axis=axis), np.int64)


def fill_native(
    pixels: NDArray[np.uint8],
    planes: Tensor,
    placement: Placement,
    spec: InputSpec,
    threads: int = 1,
) -> None:
    """C++ version of :func:`fill_reference`; releases the GIL."""
    assert kernels is not None
    if not pixels[0].flags.c_contiguous:
        pixels = np.ascontiguousarray(pixels)
    region = (placement.top, placement.left, placement.height, placement.width)
    table = normalisation(spec, planes.dtype.name)
    rgb, area = spec.color == "rgb", spec.reduce == "area"
    fill, with_lines = kernels.preprocess_levels, None
    if planes.dtype == np.float32:
        fill, with_lines = kernels.preprocess_float, lines(spec)
    elif planes.dtype == np.float16:
        fill = kernels.preprocess_half
        planes, table = planes.view(np.uint16), table.view(np.uint16)
    fill(pixels, planes, table, region, rgb, threads, with_lines, area)


@functools.lru_cache(maxsize=16)
def normalisation(spec: InputSpec, dtype: str = "float32") -> Tensor:
    """Make the lookup table (C, 256) that normalises grey levels per channel.

    Computed in float64 and rounded once, so that all implementations use identical values.
    """
    levels = np.arange(256, dtype=np.float64)
    if dtype == "uint8":
        table = np.tile(levels.astype(np.uint8), (spec.channels, 1))
    else:
        mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
        with np.errstate(over="ignore"):  # float16 overflows past 65504
            table = ((levels * spec.scale - mean) / std).astype(dtype)
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=16)
def lines(spec: InputSpec) -> NDArray[np.float32] | None:
    """Express the float32 table of :func:`normalisation` exactly as arithmetic: (C, 4), or None.

    A level becomes ``(level * slope + offset) + (level * slope_rest + offset_rest)``. Slope and
    offset are so coarse that the first bracket is exact, and the second adds the remainder, so that
    usually a single rounding gives the table's value. None if any of the 256 values differs.
    """
    slopes, offsets = spec.scale / np.array(spec.std), -np.array(spec.mean) / np.array(spec.std)
    with np.errstate(over="ignore", invalid="ignore"):
        most = np.maximum(255 * np.abs(slopes), np.abs(offsets))
        step = np.exp2(np.ceil(np.log2(most)) - 24)  # of the 24 bits of a float's fraction
        coarse = [np.round(part / step) * step for part in (slopes, offsets)]
        rests = [part - near for part, near in zip((slopes, offsets), coarse, strict=True)]
        result = np.stack([*coarse, *rests], axis=1).astype(np.float32)
        slope, offset, slope_rest, offset_rest = (part[:, None] for part in result.T)
        levels = np.arange(256, dtype=np.float32)
        values = (levels * slope + offset) + (levels * slope_rest + offset_rest)
    if values.tobytes() != normalisation(spec).tobytes():
        return None
    result.flags.writeable = False
    return result


def border(spec: InputSpec, dtype: str) -> Tensor:
    """Return the mean colour that fills a letterbox border, (C, 1, 1)."""
    if dtype != "uint8":
        return np.zeros((spec.channels, 1, 1), dtype)
    levels = np.round(np.array(spec.mean) / spec.scale)
    return np.clip(levels, 0, 255).astype(np.uint8)[:, None, None]


def nearest(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a label map, uint8 (h, w), to ``size`` (H, W): nearest, half-pixel centres."""
    if labels.shape == size:
        return labels
    resized = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8)


@functools.lru_cache(maxsize=16)
def nearest_indices(
    source: tuple[int, int], target: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the rows (H,) and columns (W,) of ``source`` that :func:`nearest` samples.

    They are obtained from OpenCV itself, since its versions may round differently.
    """
    indices = []
    for old, new in zip(source, target, strict=True):
        ramp = np.arange(old, dtype=np.float32)[np.newaxis]  # exact up to 2^24
        taken = cv2.resize(ramp, (new, 1), interpolation=cv2.INTER_NEAREST_EXACT)
        indices.append(taken[0].astype(np.int32))
        indices[-1].flags.writeable = False
    return indices[0], indices[1]


def _check_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture as (H, W, 1, 3 or 4); raises UsageError if it is invalid."""
    shape = getattr(image, "shape", None)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = f"{image.dtype} {shape}" if shape is not None else type(image).__name__
        raise UsageError(f"a picture is a uint8 array (H, W, 3) BGR or (H, W) grey, not {found}")
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise UsageError(
            f"a picture has shape (H, W), (H, W, 3) or (H, W, 4) with at least a pixel, not {shape}"
        )
    return image


def _check_out(out: Tensor, spec: InputSpec, form: Form) -> None:
    shape = form.shape(spec)
    if out.dtype != form.dtype or out.shape != shape:
        raise UsageError(f"out must be {form.dtype} {shape}, not {out.dtype} {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise UsageError("out must be writeable and C-contiguous")


def _check_labels(labels: NDArray[np.uint8], shape: tuple[int, int] | None) -> None:
    expected = "uint8 (H, W)" if shape is None else f"uint8 {shape}"
    wrong_shape = labels.ndim != 2 or labels.size == 0
    if labels.dtype != np.uint8 or wrong_shape or shape not in (None, labels.shape):
        raise UsageError(f"a label map is {expected}, not {labels.dtype} {labels.shape}")
