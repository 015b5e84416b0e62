"""Argument structures and lookup tables of the kernels in ``native/cuda/frame.cu``.

The processor makes the tables, once a size: taps of the resize, values of the grey levels,
colours. Addresses are the device's.
"""

from __future__ import annotations

from ctypes import Structure, c_int32, c_int64, c_uint64

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.ops.overlay import Look
from edgeseg.ops.preprocess import normalisation


class FrameBatch(Structure):
    """BGR frames of a batch, each of ``height`` × ``width`` pixels."""

    _fields_ = [
        ("data", c_uint64),
        ("pitch", c_int64),
        ("next", c_int64),
        ("height", c_int32),
        ("width", c_int32),
    ]


class Preprocess(Structure):
    """Arguments of ``preprocess``."""

    _fields_ = [
        ("frames", FrameBatch),
        *((name, c_uint64) for name in ("down", "across", "table", "out")),
        *((name, c_int32) for name in ("channels", "height", "width")),
        *((name, c_int32) for name in ("top", "left", "rows", "columns", "rgb", "area")),
    ]


class Argmax(Structure):
    """Arguments of ``argmax``."""

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
        ("frames", FrameBatch),
        ("labels", Labels),
        ("colours", c_uint64),
        ("out", c_uint64),
        ("weight", c_int32),
        ("outline", c_int32),
    ]


def packed_frames(data: int, size: tuple[int, int]) -> FrameBatch:
    """BGR frames of ``size`` (H, W), one after the other from ``data`` on."""
    pitch = 3 * size[1]
    return FrameBatch(data, pitch, size[0] * pitch, *size)


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


def value_table(spec: InputSpec) -> NDArray[np.float32]:
    """Float32 (C, 257): what each grey level becomes, and a letterbox's border, which is 0."""
    table = np.concatenate([normalisation(spec), np.zeros((spec.channels, 1))], axis=1)
    return np.ascontiguousarray(table, np.float32)


def colours(look: Look) -> NDArray[np.uint32]:
    """Uint32 (256,): ``blue | green << 8 | red << 16 | alpha << 24``, as :meth:`Look.table`."""
    return look.table().view("<u4")[:, 0]
