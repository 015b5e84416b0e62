"""PASCAL VOC as it was published.

::

    ROOT/JPEGImages/2007_000032.jpg
    ROOT/SegmentationClass/2007_000032.png      palette PNG, index = class, 255 = void
    ROOT/ImageSets/Segmentation/train.txt       one name a line; val.txt, trainval.txt

Everingham et al., "The PASCAL Visual Object Classes Challenge" (2010) and the development kit of
2012, from which names, numbers and colours are taken. The pictures of ``test`` come without masks.
``SegmentationObject`` is not read: its objects are of twenty classes, not of one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgeseg.card import ClassMap, Rgb
from edgeseg.data.layout import Layout, Pairing
from edgeseg.data.sample import Sample
from edgeseg.errors import DatasetError

SPLITS = ("train", "val", "trainval")

_NAMES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_LISTS = Path("ImageSets", "Segmentation")


def colour(index: int) -> Rgb:
    """RGB of a palette index, as ``VOClabelcolormap.m`` of the development kit makes it.

    Bits 0, 1, 2 of the index are the highest bits of red, green, blue; bits 3, 4, 5 the next.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    red, green, blue = channels
    return red, green, blue


CLASSES = ClassMap(names=_NAMES, palette=tuple(map(colour, range(len(_NAMES)))), ignore=255)


def find(root: Path) -> Layout | None:
    """The layout of ``root`` if its folders are named as VOC's."""
    if not all((root / part).is_dir() for part in ("JPEGImages", "SegmentationClass", _LISTS)):
        return None
    splits = tuple(name for name in SPLITS if (root / _LISTS / f"{name}.txt").is_file())
    return Layout("PASCAL VOC", splits, partial(_pair, root), CLASSES)


def _pair(root: Path, split: str) -> Pairing:
    listed = root / _LISTS / f"{split}.txt"
    try:
        lines = listed.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{listed}: expected a list of names, one a line: {error}") from error
    names = sorted({line.split()[0] for line in lines if line.strip()})
    samples, faults = [], []
    for name in names:
        image = root / "JPEGImages" / f"{name}.jpg"
        mask = root / "SegmentationClass" / f"{name}.png"
        missing = [path for path in (image, mask) if not path.is_file()]
        if missing:
            faults.append(DatasetError(f"{listed}: {name} is listed, and {missing[0]} is missing"))
        else:
            samples.append(Sample(image, mask=mask))
    if not names:
        faults.append(DatasetError(f"{listed}: expected names of pictures, found none"))
    return Pairing(tuple(samples), tuple(faults))
