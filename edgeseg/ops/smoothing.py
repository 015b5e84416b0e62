"""Votes of earlier frames on the label of each pixel.

A pixel has the label that it shows and up to 255 votes for it. Each frame adds ``step`` votes where
the network gives the shown label, and takes ``step`` away where it gives another. When no vote is
left, the pixel shows the network's label, with 128 votes. This is the majority vote of Boyer and
Moore (MJRTY, 1981) with a bounded count, so that it forgets: a label that the network gives in
``ceil(255 / step)`` successive frames is shown in the last of them at the latest.

A limit caps the votes beforehand. Where it is at most ``step``, another label is shown at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops.native import kernels

Map = NDArray[np.uint8]

FRESH = 128
"""Votes for a label when it is first shown."""


def smooth(labels: Map, memory: Map, limits: Map, step: int) -> None:
    """Let a frame vote, and update the memory in place.

    Args:
        labels: uint8 (H, W), class ids that the network gives, any strides.
        memory: uint8 (2, H, W), C-contiguous: shown labels and their votes; zeros at first.
        limits: uint8 (h, w), the largest count of votes that is kept; pixel (y, x) belongs to
            block ``(y * h // H, x * w // W)``.
        step: Votes of this frame, 1 to 255.

    Raises:
        UsageError: An argument has another dtype, shape, layout or range.
    """
    _check(labels, memory, limits, step)
    if kernels is None:
        smooth_reference(labels, memory, limits, step)
    else:
        smooth_native(labels, memory, limits, step)


def smooth_reference(labels: Map, memory: Map, limits: Map, step: int) -> None:
    """Reference for :func:`smooth`."""
    (height, width), (rows, columns) = labels.shape, limits.shape
    below = np.arange(height) * rows // height
    across = np.arange(width) * columns // width
    shown, votes = memory
    held = np.minimum(votes, limits[below][:, across]).astype(np.int16)
    left = np.clip(np.where(labels == shown, held + step, held - step), 0, 255)
    shown[...] = np.where(left == 0, labels, shown)
    votes[...] = np.where(left == 0, FRESH, left)


def smooth_native(labels: Map, memory: Map, limits: Map, step: int) -> None:
    """C++ version of :func:`smooth_reference`; releases the GIL."""
    assert kernels is not None
    packed = labels if labels[0].flags.c_contiguous else labels.copy()
    kernels.smooth(packed, memory, np.ascontiguousarray(limits), step)


def _check(labels: Map, memory: Map, limits: Map, step: int) -> None:
    for name, array in (("labels", labels), ("limits", limits)):
        if array.dtype != np.uint8 or array.ndim != 2 or array.size == 0:
            raise UsageError(f"{name} are uint8 (H, W), not {array.dtype} {array.shape}")
    if memory.dtype != np.uint8 or memory.shape != (2, *labels.shape):
        expected = (2, *labels.shape)
        raise UsageError(f"the memory is uint8 {expected}, not {memory.dtype} {memory.shape}")
    if not memory.flags.c_contiguous or not memory.flags.writeable:
        raise UsageError("the memory is C-contiguous and writeable")
    if not 1 <= step <= 255:
        raise UsageError(f"step is within 1 and 255, not {step}")
