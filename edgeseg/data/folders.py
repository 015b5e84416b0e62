"""Labelled pictures in folders.

::

    ROOT/classes.json                    {"names": ["background", "nucleus"]}, may be left out
    ROOT/train/images/a.png  b.jpg       pictures
    ROOT/train/masks/a.png   b.png       PNG of class ids, the ignore value (255) left out
    ROOT/val/…           ROOT/test/…

``instances/`` may stand for ``masks/``: PNG of up to 16 bits with one id an object; all of
them are class 1. Where both are there, ``masks/`` counts. A ROOT that holds ``images/``
itself is one split without a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.card import ClassMap
from edgeseg.data.decode import PICTURE_SUFFIXES, load_ids, load_image
from edgeseg.documents import load
from edgeseg.errors import DatasetError, UsageError

__all__ = [
    "Sample",
    "Split",
    "bundled_sample",
    "list_images",
    "load_image",
    "load_sample",
    "read_split",
]

SPLITS = ("train", "val", "test")
IGNORE = 255
_LAYOUT = "lay it out as DIR/{train,val}/{images,masks} with one PNG mask a picture"


@dataclass(frozen=True)
class Sample:
    """One picture and its mask; ``instances`` says that the mask holds object ids."""

    image: Path
    mask: Path
    instances: bool


@dataclass(frozen=True)
class Split:
    """The labelled pictures of one split, sorted by name.

    ``declared`` says that the classes come from ``classes.json``; otherwise the number of
    classes was read off the masks and the names are made up.
    """

    root: Path
    name: str
    samples: tuple[Sample, ...]
    classes: ClassMap
    declared: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def bundled_sample() -> Path:
    """Root of the nuclei pictures that come with edgeseg: 46 to train on, 14 to validate on."""
    return Path(__file__).parent / "nuclei"


def read_split(root: Path, split: str) -> Split:
    """Find the pictures and masks of one split, reading masks only where classes are not named.

    Args:
        root: The folder described above.
        split: ``train``, ``val`` or ``test``; of no effect where ``root`` has no split folders.

    Raises:
        UsageError: ``root`` is no folder.
        DatasetError: No such split, no pictures, a picture without mask or the reverse, two
            files for one name, or masks from which no two classes can be read.
        ArtifactError: ``classes.json`` is not valid.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder of pictures and masks", mend=_LAYOUT)
    folders = _split_folders(root)
    if split not in folders and "" not in folders:
        found = ", ".join(folders) or "no folder images/ at all"
        raise DatasetError(f"{root}: expected the split {split!r}, found {found}", mend=_LAYOUT)
    name = split if split in folders else ""
    samples = _pair(folders[name])
    named = root / "classes.json"
    if named.exists():
        return Split(root, name, samples, load(ClassMap, named), declared=True)
    everything = [sample for folder in folders.values() for sample in _pair(folder)]
    return Split(root, name, samples, _infer_classes(root, everything))


def load_sample(sample: Sample, classes: ClassMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one picture and its mask.

    Returns:
        Picture uint8 (H, W, 3) BGR and mask uint8 (H, W) of class ids and ``classes.ignore``.

    Raises:
        DatasetError: A file is unreadable, the sizes differ, or the mask holds an id that is
            neither a class nor the ignore value.
    """
    image, ids = load_image(sample.image), load_ids(sample.mask)
    if ids.shape != image.shape[:2]:
        raise DatasetError(
            f"{sample.mask}: expected the size of its picture {_size(image)}, found {_size(ids)}",
            mend=f"make the mask again from {sample.image}",
        )
    if sample.instances:
        return image, (ids > 0).astype(np.uint8)
    stray = ids[(ids >= len(classes)) & (ids != classes.ignore)]
    if stray.size:
        raise DatasetError(
            f"{sample.mask}: expected ids 0…{len(classes) - 1} or {classes.ignore} (ignore), "
            f"found {stray.max()} in {stray.size} pixels",
            mend="name all classes in classes.json, or set those pixels to the ignore value",
        )
    return image, ids.astype(np.uint8)


def list_images(path: Path) -> list[Path]:
    """The pictures that a path means, sorted by name.

    Args:
        path: A folder, a glob such as ``frames/*.png``, or one file.

    Raises:
        UsageError: It means no picture.
    """
    path = Path(path)
    if path.is_dir():
        found = _pictures(path)
    elif path.is_file():
        found = [path]
    else:
        found = [match for match in _matches(path) if _is_picture(match)]
    if not found:
        raise UsageError(
            f"{path}: no picture there ({' '.join(sorted(PICTURE_SUFFIXES))})",
            mend="name a folder of pictures, a glob in quotes, or one file",
        )
    return sorted(found)


def _matches(pattern: Path) -> Iterator[Path]:
    """What a glob matches; ``Path.glob`` takes relative patterns only."""
    anchor = Path(pattern.anchor or ".")
    relative = pattern.relative_to(pattern.anchor) if pattern.anchor else pattern
    return anchor.glob(str(relative)) if relative.parts else iter(())


def _split_folders(root: Path) -> dict[str, Path]:
    """Split name → folder; the name is empty where ``root`` holds the pictures itself."""
    folders = {name: root / name for name in SPLITS if (root / name / "images").is_dir()}
    return folders or ({"": root} if (root / "images").is_dir() else {})


def _pair(folder: Path) -> tuple[Sample, ...]:
    """Each picture of ``folder/images`` with the mask of the same name."""
    instances = not (folder / "masks").is_dir()
    labels = folder / ("instances" if instances else "masks")
    if not labels.is_dir():
        raise DatasetError(f"{folder}: expected a folder masks or instances beside images")
    images, masks = _by_stem(folder / "images"), _by_stem(labels)
    if not images:
        raise DatasetError(f"{folder / 'images'}: expected pictures, found none", mend=_LAYOUT)
    for stem in sorted(images.keys() ^ masks.keys()):
        if stem in images:
            raise DatasetError(f"{images[stem]}: expected its mask {labels / stem}.png, found none")
        raise DatasetError(
            f"{masks[stem]}: expected its picture in {folder / 'images'}, found none"
        )
    return tuple(Sample(images[stem], masks[stem], instances) for stem in sorted(images))


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        if path.stem in found:
            raise DatasetError(
                f"{path}: expected one file named {path.stem}, found {found[path.stem].name} too"
            )
        found[path.stem] = path
    return found


def _pictures(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_picture(path)]


def _is_picture(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()


def _infer_classes(root: Path, samples: list[Sample]) -> ClassMap:
    """Class names made up from the largest id of all splits, so that they agree between splits."""
    if all(sample.instances for sample in samples):
        return ClassMap.model_validate({"names": ("background", "object")})
    largest = 0
    for sample in samples:
        if not sample.instances:
            ids = load_ids(sample.mask)
            largest = max(largest, int(ids[ids != IGNORE].max(initial=0)))
    if not 1 <= largest < IGNORE:
        raise DatasetError(
            f"{root}: expected masks of class ids 0…254 with {IGNORE} for pixels to ignore, found "
            + (f"the id {largest}" if largest else f"only 0 and perhaps {IGNORE}"),
            mend="number the classes 0, 1, 2, …; in masks of 0 and 255 write 1 for 255",
        )
    names = tuple(f"class_{number}" for number in range(largest + 1))
    return ClassMap.model_validate({"names": names})


def _size(array: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    height, width = array.shape[:2]
    return f"{width}×{height}"
