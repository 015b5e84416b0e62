"""The weight map that teaches a network to separate touching objects: U-Net paper, equation 2.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation"
(2015): the closer a background pixel is to two objects, the higher its weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

_NEGLIGIBLE = 1e-6
"""Share of ``w0`` below which a weight is set to zero, so that far objects cost nothing."""


def border_weights(
    instances: NDArray[np.integer], w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """Compute the second term of equation 2, ``w0 * exp(-(d1 + d2)² / (2 sigma²))``.

    ``d1`` and ``d2`` are the Euclidean distances, in pixels, from a pixel of the background to
    the nearest pixel of the nearest and of the second nearest object. The term is zero on
    objects, in pictures with fewer than two objects, and where it would be below ``1e-6 * w0``.
    The first term, which balances the classes, is part of the loss.

    Args:
        instances: Object ids, integers (H, W); 0 is the background.
        w0: Maximum weight, the limit for a pixel at distance 0 from two objects.
        sigma: Width of the border in pixels, above 0; 5 in the paper.

    Returns:
        float32 (H, W) of 0…``w0``.
    """
    reach = sigma * math.sqrt(-2 * math.log(_NEGLIGIBLE))
    background = instances == 0
    nearest = np.full((2, *instances.shape), np.inf, np.float32)
    # Only pixels with d1 + d2 <= reach count, and d1 is at least 1.
    for label, window in _windows(instances, ~background, margin=max(1, int(reach - 1))):
        elsewhere = (instances[window] != label).astype(np.uint8)
        distance = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # The last bit differs between calls, but trainings must be reproducible; squared
        # distances between pixels are whole numbers.
        distance = np.sqrt(np.rint(np.square(distance)))
        first, second = nearest[:, window[0], window[1]]
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    total = nearest.sum(axis=0)
    between = background & (total <= reach)
    weights = np.zeros(instances.shape, np.float32)
    weights[between] = w0 * np.exp(-np.square(total[between]) / (2 * sigma**2))
    return weights


def _windows(
    instances: NDArray[np.integer], objects: NDArray[np.bool_], margin: int
) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield each object's id and its bounding box, enlarged by ``margin`` on all sides."""
    rows, columns = np.nonzero(objects)
    labels = instances[rows, columns]
    order = np.argsort(labels, kind="stable")
    labels, rows, columns = labels[order], rows[order], columns[order]
    starts = np.flatnonzero(np.diff(labels, prepend=0))
    if not len(starts):
        return
    tops, bottoms = (f.reduceat(rows, starts) for f in (np.minimum, np.maximum))
    lefts, rights = (f.reduceat(columns, starts) for f in (np.minimum, np.maximum))
    boxes = zip(labels[starts], tops, bottoms, lefts, rights, strict=True)
    for label, top, bottom, left, right in boxes:
        yield (
            int(label),
            (
                slice(max(0, top - margin), bottom + margin + 1),
                slice(max(0, left - margin), right + margin + 1),
            ),
        )
