"""Detect whether labels follow the EXIF orientation of their picture.

Cameras store pixels as the sensor reads them and note in EXIF how to rotate them. Viewers and
OpenCV rotate the picture; some labelling tools do not, so their masks fit the stored pixels.
If the orientation swaps width and height, the sizes tell. If it does not (a half turn, a flip, a
square), the borders of labels tell: they should coincide with edges in the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.decode import upright
from edgeseg.data.headers import Header

REMOVE_TURN = "take the turn out of the pictures: exiftool -Orientation=1 -n PICTURES"
"""Hint for labels that fit the stored pixels."""

SETTLE_TURN = (
    "look at them with --sheet; where the labels fit, store the pixels turned "
    "(mogrify -auto-orient PICTURES), where not, take the turn out "
    "(exiftool -Orientation=1 -n PICTURES)"
)
"""Hint for labels whose orientation is unclear."""

CLEAR = 1.25
"""Ratio of mean gradients from which one orientation clearly fits better."""

_UNDO = {6: 8, 8: 6}  # all others are their own inverses


def turned_away(picture: object, labels: object, orientation: int) -> str:
    """Format the message for labels that do not follow their picture's orientation."""
    return (
        f"{picture}: carries an EXIF turn (orientation {orientation}) that its labels {labels} "
        "do not follow: they fit the pixels as stored"
    )


def follows_stored(labels: tuple[int, ...], header: Header) -> bool:
    """Whether labels of this (height, width) can fit only the stored pixels."""
    return labels == (header.height, header.width) != header.shown


def borders_of_stored(
    image: NDArray[np.uint8], labels: NDArray[np.integer], orientation: int
) -> float | None:
    """Compare how well labels fit the stored pixels and the rotated picture.

    Args:
        image: uint8 (H, W, 3) BGR, with EXIF rotation applied.
        labels: Integers (H, W) of the same size.
        orientation: EXIF orientation, 2 to 8.

    Returns:
        Mean gradient of the stored picture at label borders, divided by that of the rotated one;
        above 1 the labels fit the stored pixels better. None if the sizes differ or the labels
        have no borders.
    """
    stored = upright(image, _UNDO.get(orientation, orientation))
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    ids = labels.astype(np.float32)
    borders = cv2.dilate(ids, cross) != cv2.erode(ids, cross)
    if stored.shape != image.shape or not borders.any():
        return None
    at_stored, at_shown = (float(_change(picture)[borders].mean()) for picture in (stored, image))
    return (at_stored + 1) / (at_shown + 1)


def _change(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the gradient magnitude of the smoothed picture, float32 (H, W)."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt((across**2 + down**2).sum(axis=-1)), np.float32)
