"""Whether labels follow the EXIF orientation of their picture.

Cameras store pixels as the sensor lies and note in EXIF how to turn them. Viewers and OpenCV turn
the picture, some labelling tools do not, and the masks that those write fit the stored pixels.
Sizes tell where the turn exchanges width and height. Where it does not (a half turn, a mirror, a
square), borders of objects tell: the picture changes there, if the labels lie where they belong.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.decode import upright
from edgeseg.data.headers import Header

REMOVE_TURN = "take the turn out of the pictures: exiftool -Orientation=1 -n PICTURES"
"""For labels that fit the pixels as stored."""

SETTLE_TURN = (
    "look at them with --sheet; where the labels fit, store the pixels turned "
    "(mogrify -auto-orient PICTURES), where not, take the turn out "
    "(exiftool -Orientation=1 -n PICTURES)"
)
"""For labels of which nothing tells what they follow."""

CLEAR = 1.25
"""How much stronger the picture must change at the borders of labels one way than the other."""

_UNDO = {6: 8, 8: 6}  # all others are their own inverse


def turned_away(picture: object, labels: object, orientation: int) -> str:
    """The sentence for labels that do not follow the turn of their picture."""
    return (
        f"{picture}: carries an EXIF turn (orientation {orientation}) that its labels {labels} "
        "do not follow: they fit the pixels as stored"
    )


def follows_stored(labels: tuple[int, ...], header: Header) -> bool:
    """Whether labels of that (height, width) can only fit the pixels as stored."""
    return labels == (header.height, header.width) != header.shown


def borders_of_stored(
    image: NDArray[np.uint8], labels: NDArray[np.integer], orientation: int
) -> float | None:
    """How well labels fit the pixels as stored, against the picture as it is shown.

    Args:
        image: uint8 (H, W, 3) BGR, turned as EXIF says.
        labels: Integers (H, W) of the same size.
        orientation: Of EXIF, 2 to 8.

    Returns:
        The mean change of the stored picture at the borders of labels, as a multiple of that of
        the shown one: above 1 the labels fit the stored pixels better. None where the stored
        pixels have another size, or the labels no border.
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
    """The gradient's length, float32 (H, W), of a picture smoothed against noise."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt((across**2 + down**2).sum(axis=-1)), np.float32)
