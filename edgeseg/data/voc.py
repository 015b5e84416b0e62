"""Read PASCAL VOC in its published layout.

::

    ROOT/JPEGImages/2007_000032.jpg
    ROOT/SegmentationClass/2007_000032.png      palette PNG, index = class, 255 = void
    ROOT/ImageSets/Segmentation/train.txt       one name per line; val.txt, trainval.txt

Variations found in other data sets with this layout are accepted: other picture formats, other
list names, and lists in ``ImageSets/Main`` or directly in ``ImageSets``.

Everingham et al., "The PASCAL Visual Object Classes Challenge" (2010) and the development kit of
2012, which defines names, ids and colours. Lists without any mask, such as ``test``, are not
treated as splits.
``SegmentationObject`` is not read, since its objects have twenty classes, not one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from edgeseg.artifacts.card import ClassMap, Rgb
from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.data.sample import Layout, Pairing, Sample, same_name
from edgeseg.errors import DatasetError

SPLITS = ("train", "val", "trainval")

_NAMES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_PICTURES, _MASKS = "JPEGImages", "SegmentationClass"
_LISTS = ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets")


def colour(index: int) -> Rgb:
    """Return the RGB of a palette index, as in ``VOClabelcolormap.m`` of the development kit.

    Bits 0, 1, 2 of the index are the highest bits of red, green, blue; bits 3, 4, 5 the next.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    red, green, blue = channels
    return red, green, blue


CLASSES = ClassMap(names=_NAMES, palette=tuple(map(colour, range(len(_NAMES)))), ignore=255)


def find(root: Path) -> Layout | None:
    """Return the layout of ``root`` if it has the folders of VOC, else None.

    Raises:
        DatasetError: Some of the folders, or all lists, are missing.
    """
    parts = (_PICTURES, _MASKS, "ImageSets")
    missing = [part for part in parts if not (root / part).is_dir()]
    if len(missing) == len(parts):
        return None
    lists = {} if missing else _lists(root)
    if not lists:
        what = f"the folder {missing[0]}" if missing else f"lists of names in {_LISTS[0]}"
        found = ", ".join(part for part in parts if part not in missing)
        raise DatasetError(
            f"{root}: expected folders of pictures, found none that is whole: {found} "
            f"as in PASCAL VOC, without {what}",
            hint=f"add it, with {_LISTS[0]}/train.txt and val.txt, one name a line",
        )
    masks = _by_stem(root / _MASKS, (".png",))
    others = lists.keys() - set(SPLITS)
    labelled = {name for name in others if not masks.keys().isdisjoint(_names(lists[name]))}
    splits = tuple(sorted((lists.keys() & set(SPLITS)) | labelled, key=_rank))
    return Layout("PASCAL VOC", splits, partial(_pair, root, lists), CLASSES)


def _rank(split: str) -> tuple[int, str]:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _lists(root: Path) -> dict[str, Path]:
    """Map split names to list files, from the first folder that has any."""
    for folder in _LISTS:
        if found := {path.stem: path for path in sorted((root / folder).glob("*.txt"))}:
            return found
    return {}


def _by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    return {
        same_name(path.stem): path
        for path in sorted(folder.iterdir(), reverse=True)
        if path.suffix.lower() in suffixes and path.is_file()
    }


def _names(listed: Path) -> list[str]:
    """Read the names in a list; raises DatasetError."""
    try:
        lines = listed.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{listed}: expected a list of names, one a line: {error}") from error
    return sorted({same_name(line.strip()) for line in lines if line.strip()})


def _entry(line: str, files: Mapping[str, Path]) -> str:
    """Extract the name from a line, which may add a suffix or an object label."""
    for name in (line, line.rsplit(".", 1)[0], line.split(maxsplit=1)[0]):
        if name in files:
            return name
    return line.split(maxsplit=1)[0]


def _pair(root: Path, lists: Mapping[str, Path], split: str) -> Pairing:
    listed = lists[split]
    images = _by_stem(root / _PICTURES, PICTURE_SUFFIXES)
    masks = _by_stem(root / _MASKS, (".png",))
    names = sorted({_entry(line, images) for line in _names(listed)})
    samples, faults = [], []
    for name in names:
        if name in images and name in masks:
            samples.append(Sample(images[name], mask=masks[name]))
            continue
        folder, suffix = (_MASKS, ".png") if name in images else (_PICTURES, ".jpg")
        missing = root / folder / f"{name}{suffix}"
        faults.append(DatasetError(f"{listed}: {name} is listed, and {missing} is missing"))
    if not names:
        faults.append(DatasetError(f"{listed}: expected names of pictures, found none"))
    return Pairing(tuple(samples), tuple(faults))
