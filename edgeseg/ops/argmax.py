"""Convert logits to label maps, at the network's size or, with smoother edges, the picture's.

For engines that output logits; exported networks have the argmax in their graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels
from edgeseg.ops.preprocess import placement_of

MAX_CLASSES = 256
"""Maximum number of classes in a uint8 label map."""

_ROWS = 16
"""Rows that the NumPy version interpolates at a time, to stay in the cache."""


def argmax(
    logits: NDArray[np.floating | np.int8],
    out: NDArray[np.uint8] | None = None,
    *,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Return the class of the largest logit; ties and NaNs are resolved as in ``np.argmax``.

    Args:
        logits: float32, float16 or int8, (C, H, W) or (N, C, H, W), any strides.
        out: C-contiguous uint8 (H, W) or (N, H, W) to write into.
        threads: Number of threads for the C++ kernel.

    Returns:
        ``out``, or a new array: uint8 (H, W) or (N, H, W), class ids.

    Raises:
        UsageError: A dtype, shape or layout is invalid, or there are more than 256 classes.
    """
    _check_logits(logits, (np.float32, np.float16, np.int8), (3, 4))
    shape = (*logits.shape[:-3], *logits.shape[-2:])
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.dtype != np.uint8 or out.shape != shape:
        raise UsageError(f"out must be uint8 {shape}, not {out.dtype} {out.shape}")
    elif not (out.flags.c_contiguous and out.flags.writeable):
        raise UsageError("out must be writeable and C-contiguous")
    if kernels is None:
        out[...] = np.argmax(logits, axis=-3)
        return out
    batch = logits if logits.ndim == 4 else logits[np.newaxis]
    for planes, target in zip(batch, out.reshape(-1, *shape[-2:]), strict=True):
        _argmax_native(np.ascontiguousarray(planes), target, threads)
    return out


def argmax_upsampled(
    logits: NDArray[np.float32], size: tuple[int, int], spec: InputSpec, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Upsample logits to the picture's size and return the label map, with smooth edges.

    Bilinear with half-pixel centres, after cropping a letterbox border. If a pixel's four
    neighbours have the same class, the pixel gets that class without interpolation.

    Args:
        logits: float32 (C, height, width) of ``spec``, any strides.
        size: (H, W) of the picture that was preprocessed.
        spec: The card's ``input``.
        threads: Number of threads for the C++ kernel.

    Returns:
        uint8 (H, W), class ids.

    Raises:
        UsageError: ``logits`` has another dtype or shape.
    """
    _check_logits(logits, (np.float32,), (3,))
    if logits.shape[1:] != (spec.height, spec.width):
        raise UsageError(
            f"logits of this network are (C, {spec.height}, {spec.width}), not {logits.shape}"
        )
    rows, columns = placement_of(size, spec).region
    part = logits[:, rows, columns]
    if kernels is None:
        return upsampled_reference(part, size)
    return upsampled_native(part, size, threads)


def upsampled_reference(part: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Reference for upsampling logits (C, h, w) to a label map of ``size``."""
    top, bottom, down = _taps(part.shape[1], size[0])
    left, right, across = _taps(part.shape[2], size[1])
    wide = part[:, :, left] * (1 - across) + part[:, :, right] * across
    labels = np.argmax(part, axis=0).astype(np.uint8)
    result = np.empty(size, np.uint8)
    for start in range(0, size[0], _ROWS):
        rows = slice(start, start + _ROWS)
        weight = down[rows, np.newaxis]
        blended = wide[:, top[rows]] * (1 - weight) + wide[:, bottom[rows]] * weight
        first = labels[np.ix_(top[rows], left)]
        agree = np.ones(first.shape, np.bool_)
        for corner in ((top, right), (bottom, left), (bottom, right)):
            agree &= labels[np.ix_(corner[0][rows], corner[1])] == first
        result[rows] = np.where(agree, first, np.argmax(blended, axis=0))
    return result


def upsampled_native(
    part: NDArray[np.float32], size: tuple[int, int], threads: int = 1
) -> NDArray[np.uint8]:
    """C++ version of :func:`upsampled_reference`; releases the GIL."""
    assert kernels is not None
    if not part[0, 0].flags.c_contiguous:
        part = np.ascontiguousarray(part)
    result = np.empty(size, np.uint8)
    kernels.argmax_upsampled(part, result, threads)
    return result


def _argmax_native(
    planes: NDArray[np.floating | np.int8], out: NDArray[np.uint8], threads: int
) -> None:
    assert kernels is not None
    if planes.dtype == np.float32:
        kernels.argmax_float(planes, out, threads)
    elif planes.dtype == np.float16:
        kernels.argmax_half(planes.view(np.int16), out, threads)
    else:
        kernels.argmax_int8(planes, out, threads)


def _taps(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return each target pixel's two neighbours and the weight of the second."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = position.astype(np.int64)
    return first, np.minimum(first + 1, source - 1), (position - first).astype(np.float32)


def _check_logits(
    logits: NDArray[np.floating | np.int8], dtypes: tuple[type, ...], axes: tuple[int, ...]
) -> None:
    known = logits.dtype in dtypes and logits.ndim in axes
    if not known or logits.size == 0 or logits.shape[-3] > MAX_CLASSES:
        names = ", ".join(np.dtype(dtype).name for dtype in dtypes)
        shapes = "(C, H, W)" if axes == (3,) else "(C, H, W) or (N, C, H, W)"
        raise UsageError(
            f"logits are {names}, {shapes} with 1 to {MAX_CLASSES} classes, "
            f"not {logits.dtype} {logits.shape}"
        )
