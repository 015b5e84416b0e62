"""Detect exact and near duplicates of pictures."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Height and width of a fingerprint in pixels."""

SIMILAR = 0.97
"""Minimum correlation of the fingerprints of similar pictures.

Pictures saved again as JPEG of quality 50, at half size or with another gamma correlate by 0.96 to
1 with the original, neighbouring slices of one embryo by 0.978, and the most similar frames across
the usual splits of CamVid, recorded on the same street, by 0.95 at most.
"""

_FLAT = 1.0
"""Standard deviation of grey levels below which a picture is too uniform to compare."""


def digest(image: NDArray[np.uint8]) -> str:
    """Return the hex SHA-256 of size and pixels, independent of the file format.

    Args:
        image: uint8 (H, W, 3).
    """
    content = hashlib.sha256(repr(image.shape).encode())
    content.update(np.ascontiguousarray(image).data)
    return content.hexdigest()


def fingerprint(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Reduce a picture to a normalised 32×32 thumbnail, for comparison.

    It is invariant to size, brightness and contrast, but not to flips, rotations or crops. The dot
    product of two fingerprints is the correlation of the pictures, -1 to 1.

    Args:
        image: uint8 (H, W, 3) BGR.

    Returns:
        float32 (1024,) of mean 0 and norm 1; None for a picture of uniform brightness.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return None if length < _FLAT * SIDE else small / length


def most_similar(
    own: NDArray[np.float32] | None, others: NDArray[np.float32]
) -> tuple[int, float] | None:
    """Find the most similar of several pictures.

    Args:
        own: Fingerprint of the picture, or None if it has none.
        others: Fingerprints to compare with, float32 (N, 1024).

    Returns:
        Index and correlation of the best match, or None if no correlation reaches ``SIMILAR``.
    """
    if own is None or not len(others):
        return None
    correlations = others @ own
    best = int(correlations.argmax())
    correlation = float(correlations[best])
    return (best, correlation) if correlation >= SIMILAR else None
