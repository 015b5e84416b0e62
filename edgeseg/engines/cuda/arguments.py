"""Argument structures and lookup tables of the kernels in ``native/cuda/frame.cu``.

The processor makes the tables, once a size: taps of the resize, values of the grey levels,
colours. Addresses are the device's.
"""

from __future__ import annotations

from ctypes import Structure, c_int32, c_int64, c_uint64
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.ops.overlay import Look
from edgeseg.ops.preprocess import normalisation

Layout = Literal["gray", "bgr", "bgra", "nv12-bt601", "nv12-bt709"]
"""How a frame lies in memory: bytes of a pixel side by side, or NV12 (a plane of luma over one of
U and V at half the size, limited range) with the matrix that the camera used. Which one that is
the stream says or it is a convention: BT.601 up to 576 lines, BT.709 above."""

_FORMATS = {"gray": 1, "bgr": 3, "bgra": 4, "nv12-bt601": 12, "nv12-bt709": 12}

# Luma, blue of U, green of U and V, red of V. The first as OpenCV rounds ITU-R BT.601 for
# COLOR_YUV2BGR_NV12; the second from the definition of ITU-R BT.709.
_BT601 = (1220542, 2116026, -409993, -852492, 1673527)
_BT709 = tuple(
    round(value * 2**20) for value in (1.164384, 2.112402, -0.213249, -0.532909, 1.792741)
)


class Matrix(Structure):
    """Colours of NV12 in 2^-20."""

    _fields_ = [(name, c_int32) for name in ("luma", "blue_u", "green_u", "green_v", "red_v")]


class Picture(Structure):
    """Frames of a batch, each of ``height`` × ``width`` pixels."""

    _fields_ = [
        ("data", c_uint64),
        ("pitch", c_int64),
        ("next", c_int64),
        ("height", c_int32),
        ("width", c_int32),
        ("format", c_int32),
        ("matrix", Matrix),
    ]


class Preprocess(Structure):
    """Arguments of ``preprocess_f32``, ``_f16`` and ``_u8``."""

    _fields_ = [
        ("picture", Picture),
        *((name, c_uint64) for name in ("down", "across", "table", "out")),
        *((name, c_int32) for name in ("channels", "height", "width")),
        *((name, c_int32) for name in ("top", "left", "rows", "columns", "rgb", "area")),
    ]


class Argmax(Structure):
    """Arguments of ``argmax_f32``, ``_f16`` and ``_i8``."""

    _fields_ = [
        ("logits", c_uint64),
        ("out", c_uint64),
        ("channels", c_int32),
        ("pixels", c_int32),
    ]


class Labels(Structure):
    """Label maps of a batch, from the first label of the region that the picture fills."""

    _fields_ = [
        ("data", c_uint64),
        ("pitch", c_int64),
        ("next", c_int64),
        ("rows", c_uint64),
        ("columns", c_uint64),
    ]


class Overlay(Structure):
    """Arguments of ``overlay``."""

    _fields_ = [
        ("picture", Picture),
        ("labels", Labels),
        ("colours", c_uint64),
        ("out", c_uint64),
        ("weight", c_int32),
        ("outline", c_int32),
    ]


class Areas(Structure):
    """Arguments of ``areas``."""

    _fields_ = [
        ("labels", Labels),
        ("out", c_uint64),
        ("height", c_int32),
        ("width", c_int32),
    ]


def frame_shape(size: tuple[int, int], layout: Layout) -> tuple[int, ...]:
    """Shape of the uint8 array for a frame of ``size`` (H, W); NV12 needs both to be even."""
    if layout.startswith("nv12"):
        return size[0] * 3 // 2, size[1]
    channels = _FORMATS[layout]
    return size if channels == 1 else (*size, channels)


def picture(data: int, size: tuple[int, int], layout: Layout) -> Picture:
    """Packed frames of ``size`` (H, W), one after the other from ``data`` on."""
    shape = frame_shape(size, layout)
    pitch = shape[1] * (shape[2] if len(shape) == 3 else 1)
    matrix = Matrix(*(_BT709 if layout == "nv12-bt709" else _BT601))
    return Picture(data, pitch, shape[0] * pitch, *size, _FORMATS[layout], matrix)


def taps(source: int, target: int) -> NDArray[np.int32]:
    """Int32 (target, 2): first pixel, and weight of the next in 1/256, as INTER_LINEAR_EXACT.

    The same roundings as the C++ twin's: the ratio the other way round, then its inverse.
    """
    scale = 1.0 / (target / source)
    position = scale * (np.arange(target) + 0.5) - 0.5
    first = np.floor(position)
    weight = np.rint((position - first) * 256)
    weight[(first < 0) | (first >= source - 1)] = 0
    pairs = np.stack([np.clip(first, 0, source - 1), weight], axis=1)
    return pairs.astype(np.int32)


def value_table(spec: InputSpec, dtype: DTypeLike) -> NDArray[np.generic]:
    """(C, 257) of the tensor's dtype: what each grey level becomes, and a letterbox's border.

    Uint8 is for networks that normalise by themselves: levels stay, the border is the mean colour.
    """
    if np.dtype(dtype) == np.uint8:
        border = np.clip(np.rint(np.array(spec.mean) / spec.scale), 0, 255)
        levels = np.broadcast_to(np.arange(256.0), (spec.channels, 256))
    else:
        border, levels = np.zeros(spec.channels), normalisation(spec)
    table = np.concatenate([levels, border[:, np.newaxis]], axis=1)
    return np.ascontiguousarray(table, dtype)


def colours(look: Look) -> NDArray[np.uint32]:
    """Uint32 (256,): ``blue | green << 8 | red << 16 | alpha << 24``, as :meth:`Look.table`."""
    return look.table().view("<u4")[:, 0]


def counts(indices: NDArray[np.int32], source: int) -> NDArray[np.int32]:
    """Int32 (source,): how many of ``indices`` are each of 0 … source - 1."""
    return np.bincount(indices, minlength=source).astype(np.int32)
