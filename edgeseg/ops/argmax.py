"""Convert logits to label maps.

For engines that output logits; exported networks have the argmax in their graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels

MAX_CLASSES = 256
"""Maximum number of classes in a uint8 label map."""


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
    _check_logits(logits)
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


def _check_logits(logits: NDArray[np.floating | np.int8]) -> None:
    known = logits.dtype in (np.float32, np.float16, np.int8) and logits.ndim in (3, 4)
    if not known or logits.size == 0 or logits.shape[-3] > MAX_CLASSES:
        raise UsageError(
            "logits are float32, float16 or int8, (C, H, W) or (N, C, H, W) with 1 to "
            f"{MAX_CLASSES} classes, not {logits.dtype} {logits.shape}"
        )
