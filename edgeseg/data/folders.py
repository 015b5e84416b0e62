"""Find the labelled pictures of a data set in folders.

::

    ROOT/classes.json                    {"names": ["background", "nucleus"]}, optional
    ROOT/train/images/a.png  b.jpg       pictures
    ROOT/train/masks/a.png   b.png       PNG of class ids; 255 is the ignore value
    ROOT/val/…           ROOT/test/…

``instances/`` can replace or accompany ``masks/``: PNG of up to 16 bits with one id per object.
Without ``masks/`` all objects are class 1, or 0 where 1 is the background; with both, classes come
from ``masks/`` and objects from ``instances/``. A ROOT that contains ``images/`` directly is one
unnamed split.

PASCAL VOC (:mod:`edgeseg.data.voc`) and Cityscapes (:mod:`edgeseg.data.cityscapes`) are read in
their published layouts and recognised by the names of their folders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import load, printable
from edgeseg.data import cityscapes, voc
from edgeseg.data.decode import PICTURE_SUFFIXES, load_image
from edgeseg.data.sample import (
    Layout,
    Pairing,
    Sample,
    load_instances,
    load_mask,
    load_sample,
    same_name,
)
from edgeseg.errors import CorruptArtifact, DatasetError, UsageError

__all__ = [
    "Sample",
    "Split",
    "bundled_sample",
    "list_images",
    "load_image",
    "load_instances",
    "load_sample",
    "read_split",
]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
IGNORE = 255
NUMBERED = "number the classes 0, 1, 2, …; in masks of 0 and 255 write 1 for 255"
_CLASSES = 'write it like {"names": ["background", "scratch"]}, a name for each id from 0 on'
_LAYOUT = "lay it out as DIR/{train,val}/{images,masks} with one PNG mask a picture"


@dataclass(frozen=True)
class Split:
    """The labelled pictures of one split, sorted by name.

    ``declared`` is True if the classes are named by the data set; otherwise their number was
    inferred from the masks and the names are made up.
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

    def numbered_as(self, classes: ClassMap) -> Split:
        """Return the split with the ids of ``classes`` if both name the same, in any order."""
        names, wanted = self.classes.names, classes.names
        if not self.declared or names == wanted or sorted(names) != sorted(wanted):
            return self
        ids = list(range(256))
        ids[: len(names)] = [wanted.index(name) for name in names]
        ids[self.classes.ignore] = classes.ignore
        table = bytes(ids)
        samples = (
            replace(sample, relabel=(sample.relabel or bytes(range(256))).translate(table))
            for sample in self.samples
        )
        return replace(self, samples=tuple(samples), classes=classes)


def bundled_sample() -> Path:
    """Return the root of the bundled nuclei data set: 46 training and 14 validation pictures."""
    return Path(__file__).parent / "nuclei"


def read_split(root: Path, split: str) -> Split:
    """Find the pictures and masks of one split; reads the masks only to infer classes.

    Args:
        root: Root folder of the data set.
        split: ``train``, ``val`` or ``test``; ignored if ``root`` has no split folders.

    Raises:
        UsageError: ``root`` is not a folder.
        DatasetError: The split is missing or empty, a picture or mask lacks its counterpart, two
            files have the same name, or fewer than two classes can be inferred.
        ArtifactError: ``classes.json`` is invalid.
    """
    layout = find_layout(root)
    if split not in layout.splits and "" not in layout.splits:
        found = ", ".join(layout.splits) or "none at all"
        raise DatasetError(
            f"{root}: expected the split {split!r}, found {found}",
            hint=f"choose one of these, or rename one of them to {split}"
            if layout.splits
            else _LAYOUT,
        )
    name = split if split in layout.splits else ""
    samples = _whole(layout, name)
    classes = declared_classes(root, layout)
    if classes is not None:
        return Split(Path(root), name, samples, classes, declared=True)
    everything = [sample for other in layout.splits for sample in _whole(layout, other)]
    return Split(Path(root), name, samples, _infer_classes(root, everything))


def find_layout(root: Path) -> Layout:
    """Detect the layout of a data set.

    Raises:
        UsageError: ``root`` is not a folder.
        DatasetError: The folders match no supported layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder of pictures and masks", hint=_LAYOUT)
    folders = {name: root / name for name in SPLITS if (root / name / "images").is_dir()}
    if not folders and (root / "images").is_dir():
        folders = {"": root}
    if folders:
        return Layout("folders", tuple(folders), lambda name: _pair(folders[name]))
    layout = voc.find(root) or cityscapes.find(root)
    if layout is None:
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        near = f" among its folders {_few(there)}" if there else ""
        raise DatasetError(f"{root}: expected folders of pictures, found none{near}", hint=_LAYOUT)
    return layout


def declared_classes(root: Path, layout: Layout) -> ClassMap | None:
    """Return the classes of ``classes.json``, else of the layout; raises ArtifactError."""
    named = Path(root) / "classes.json"
    if not named.exists():
        return layout.classes
    try:
        return load(ClassMap, named)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.message, hint=_CLASSES) from error


def list_images(path: Path) -> list[Path]:
    """List the pictures of a folder, a glob or a file, sorted by name.

    Files that are not pictures are skipped and logged, see :func:`passed_over`.

    Args:
        path: A folder, a glob such as ``frames/*.png``, or one file.

    Raises:
        UsageError: The path matches no picture.
    """
    found, others = _sorted_out(Path(path))
    if not found and not Path(path).exists() and not set("*?[") & set(str(path)):
        raise UsageError(f"{path}: no such file or folder of pictures", hint="check the path")
    if not found:
        seen = f", among {_few([other.name for other, _ in others])}" if others else ""
        raise UsageError(
            f"{path}: no picture there{seen} ({' '.join(sorted(PICTURE_SUFFIXES))})",
            hint="name a folder of pictures, a glob in quotes, or one file",
        )
    if others:
        names = _few([f"{other.name} ({why})" for other, why in others])
        logger.warning("%s: passed over %d: %s", path, len(others), names)
    return found


def passed_over(path: Path) -> list[tuple[Path, str]]:
    """List the files that :func:`list_images` skips, with reasons; hidden files are not listed.

    Raises:
        UsageError: The folder cannot be read.
    """
    return _sorted_out(Path(path))[1]


def _sorted_out(path: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    if path.is_file():
        return [path], []
    try:
        entries = path.iterdir() if path.is_dir() else _matches(path)
        shown = sorted(entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path"
        ) from error
    reasons = {entry: _why_not(entry) for entry in shown}
    found = [entry for entry, why in reasons.items() if not why]
    return found, [(entry, why) for entry, why in reasons.items() if why]


def _why_not(path: Path) -> str:
    """Return why a path is not a picture; empty if it is one."""
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a link that leads nowhere" if path.is_symlink() else "no file"
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return f"no picture by its suffix {path.suffix}" if path.suffix else "no suffix"
    return ""


def _few(names: Iterable[str], most: int = 8) -> str:
    """Format the first names on one line, safe to print on a terminal."""
    listed = [printable(name, 80) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _matches(pattern: Path) -> Iterator[Path]:
    """Expand a glob; ``Path.glob`` takes relative patterns only."""
    anchor = Path(pattern.anchor or ".")
    relative = pattern.relative_to(pattern.anchor) if pattern.anchor else pattern
    return anchor.glob(str(relative)) if relative.parts else iter(())


def _whole(layout: Layout, split: str) -> tuple[Sample, ...]:
    """Return the pictures of a split; raises DatasetError if anything is missing."""
    pairing = layout.pair(split)
    for fault in pairing.faults:
        raise fault
    return pairing.samples


def _pair(folder: Path) -> Pairing:
    """Pair each picture of ``folder/images`` with the mask and object map of the same name."""
    labels = [folder / part for part in ("masks", "instances") if (folder / part).is_dir()]
    if not labels:
        there = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
        fault = DatasetError(
            f"{folder}: expected a folder masks or instances beside images, found {_few(there)}",
            hint=_LAYOUT,
        )
        return Pairing((), (fault,))
    pictures = folder / "images"
    faults: list[DatasetError] = []
    images = _by_stem(pictures, faults)
    others = [other for path in (pictures, *labels) for other in passed_over(path)]
    if not images:
        beside = [other.name for other, _ in others if other.parent == pictures]
        near = f" beside {_few(beside)}" if beside else ""
        faults.append(
            DatasetError(f"{pictures}: expected pictures, found none{near}", hint=_LAYOUT)
        )
    found = {path.name: _by_stem(path, faults) for path in labels}
    whole = set(images)
    for path in labels:
        files = found[path.name]
        whole &= files.keys()
        if len(images) > 1 and len(files) > 1 and not images.keys() & files.keys():
            faults.append(
                DatasetError(
                    f"{path}: expected a file for each picture, such as {min(images)}.png, found "
                    f"{_few([file.name for file in files.values()])}",
                    hint=f"give each file the name of its picture in {pictures}",
                )
            )
            continue
        for stem in sorted(images.keys() ^ files.keys()):
            missing = (
                f"{images[stem]}: expected its mask {path / stem}.png, found none"
                if stem in images
                else f"{files[stem]}: expected its picture in {pictures}, found none"
            )
            faults.append(DatasetError(missing))
    masks, instances = found.get("masks", {}), found.get("instances", {})
    samples = (
        Sample(images[stem], mask=masks.get(stem), instances=instances.get(stem))
        for stem in sorted(whole)
    )
    return Pairing(tuple(samples), tuple(faults), tuple(others))


def _by_stem(folder: Path, faults: list[DatasetError]) -> dict[str, Path]:
    """Map each stem to its first file; further files of the same stem are faults."""
    found: dict[str, Path] = {}
    for path in _sorted_out(folder)[0]:
        stem = same_name(path.stem)
        first = found.setdefault(stem, path)
        if first is not path:
            faults.append(
                DatasetError(f"{path}: expected one file named {stem}, found {first.name} too")
            )
    return found


def undeclared_classes() -> ClassMap:
    """Default classes for object maps without declared classes."""
    return ClassMap.model_validate({"names": ("background", "object")})


def numbered_classes(root: Path, largest: int) -> ClassMap:
    """Make up class names from the largest id of all splits, so that all splits agree.

    Raises:
        DatasetError: ``largest`` is 0 or not a valid class id.
    """
    if not 1 <= largest < IGNORE:
        raise DatasetError(
            f"{root}: expected masks of class ids 0…254 with {IGNORE} for pixels to ignore, found "
            + (f"the id {largest}" if largest else f"only 0 and perhaps {IGNORE}"),
            hint=NUMBERED,
        )
    names = tuple(f"class_{number}" for number in range(largest + 1))
    return ClassMap.model_validate({"names": names})


def warn_of_levels(split: Split, counts: NDArray[np.int64]) -> None:
    """Log a warning if masks hold only 0 and 255, which then seems to mean an object.

    Args:
        counts: Pixels of each value from 0 to 255 in its masks.
    """
    if np.flatnonzero(counts).tolist() == [0, IGNORE]:
        logger.warning(
            "%s: its masks hold only 0 and %d, which is ignored; %s", split.root, IGNORE, NUMBERED
        )


def _infer_classes(root: Path, samples: list[Sample]) -> ClassMap:
    """Infer undeclared classes from the labels of all splits."""
    masked = [sample for sample in samples if sample.mask is not None]
    if not masked:
        return undeclared_classes()
    largest = 0
    for sample in masked:
        ids = load_mask(sample)
        largest = max(largest, int(ids[ids != IGNORE].max(initial=0)))
    return numbered_classes(root, largest)
