"""One labelled picture: the paths of its files, and strict reading."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import plural
from edgeseg.data.decode import load_header, load_ids, load_image, upright
from edgeseg.data.headers import Header
from edgeseg.data.instances import class_mask
from edgeseg.errors import DatasetError


@dataclass(frozen=True)
class Pairing:
    """The files of a split, paired.

    Attributes:
        samples: Labelled pictures, sorted.
        faults: Errors such as a picture without mask.
        passed_over: Files that were skipped, with reasons.
    """

    samples: tuple[Sample, ...]
    faults: tuple[DatasetError, ...] = ()
    passed_over: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """The layout of a data set.

    Attributes:
        splits: Names of the splits; one empty name if the data set has no splits.
        pair: Function from the name of a split to its files.
        classes: Classes that the layout defines, None if they come from masks or
            ``classes.json``.
    """

    kind: str
    splits: tuple[str, ...]
    pair: Callable[[str], Pairing]
    classes: ClassMap | None = None


def same_name(name: str) -> str:
    """Normalise a name to NFC, so that names can be compared.

    macOS and some archives store ``é`` as ``e`` plus an accent, which looks the same.
    """
    return unicodedata.normalize("NFC", name)


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
    """Format the message for labels that do not follow their picture's orientation.

    Viewers and OpenCV rotate a picture as its EXIF data say; some labelling tools do not, so that
    their masks fit the stored pixels. If the orientation swaps width and height, the sizes tell. If
    it does not (a half turn, a flip, a square), the borders of labels tell: they should coincide
    with edges in the picture.
    """
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


@dataclass(frozen=True)
class Sample:
    """Paths of one picture and its labels: a mask of class ids, a map of object ids, or both.

    Attributes:
        mask: PNG of class ids, which takes precedence over object ids for classes.
        instances: PNG of object ids; 0 is the background.
        relabel: Lookup table from ids in the mask file to class ids, for data sets that number
            classes differently; None if the stored ids are class ids.
    """

    image: Path
    mask: Path | None = None
    instances: Path | None = None
    relabel: bytes | None = None

    def __post_init__(self) -> None:
        if self.mask is None and self.instances is None:
            raise ValueError(f"{self.image}: a labelled picture has a mask, instances or both")


def load_sample(sample: Sample, classes: ClassMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one picture and its mask.

    Without a mask file, the mask is made from the object map
    (:func:`edgeseg.data.instances.class_mask`).

    Returns:
        Picture uint8 (H, W, 3) BGR and mask uint8 (H, W) of class ids or ``classes.ignore``.

    Raises:
        DatasetError: A file is unreadable, the sizes differ, or the mask holds an id that is
            neither a class nor the ignore value.
    """
    image = load_image(sample.image)
    if sample.mask is None:
        instances = load_instances(sample)
        _check_size(instances, image, sample.instances, sample.image)
        return image, class_mask(instances, classes)
    mask = load_mask(sample)
    _check_size(mask, image, sample.mask, sample.image)
    stray = mask[(mask >= len(classes)) & (mask != classes.ignore)]
    if stray.size:
        raise DatasetError(
            f"{sample.mask}: expected ids 0…{len(classes) - 1} or {classes.ignore} (ignore), "
            f"found {stray.max()} in {plural(stray.size, 'pixel')}",
            hint="name all classes in classes.json, or set those pixels to the ignore value",
        )
    return image, mask.astype(np.uint8)


def load_mask(sample: Sample) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a sample's mask and relabel it, without validating the ids.

    Returns:
        uint8 (H, W), uint16 where the file has 16 bits.

    Raises:
        DatasetError: The sample has no mask, or the file is invalid.
    """
    if sample.mask is None:
        raise DatasetError(f"{sample.image}: expected a mask of class ids, found only objects")
    ids = load_ids(sample.mask)
    if sample.relabel is None:
        return ids
    table = np.frombuffer(sample.relabel, np.uint8)
    if ids.max(initial=0) >= len(table):
        raise DatasetError(
            f"{sample.mask}: expected ids below {len(table)}, found {ids.max()}",
            hint="take the label files of the data set as they were published",
        )
    return table[ids]


def load_instances(sample: Sample) -> NDArray[np.int32]:
    """Read the object ids of a sample.

    Returns:
        int32 (H, W); 0 is the background.

    Raises:
        DatasetError: The sample has no object map, or the file is invalid or of another size than
            the class mask.
    """
    if sample.instances is None:
        raise DatasetError(
            f"{sample.image}: expected a map of objects, found only a mask of classes",
            hint="put a PNG with one id an object into instances/ beside images/",
        )
    instances = load_ids(sample.instances).astype(np.int32)
    if sample.mask is not None:
        _check_size(instances, load_ids(sample.mask), sample.instances)
    return instances


def _check_size(
    labels: NDArray[np.integer],
    other: NDArray[np.integer],
    path: Path | None,
    picture: Path | None = None,
) -> None:
    if labels.shape[:2] == other.shape[:2]:
        return
    header = load_header(picture) if picture else None
    if picture and header and follows_stored(labels.shape[:2], header):
        raise DatasetError(turned_away(picture, path, header.orientation), hint=REMOVE_TURN)
    expected, found = (f"{array.shape[1]}×{array.shape[0]}" for array in (other, labels))
    raise DatasetError(
        f"{path}: expected the size of its {'picture' if picture else 'mask'} {expected}, "
        f"found {found}",
        hint="make the labels again from the picture",
    )
