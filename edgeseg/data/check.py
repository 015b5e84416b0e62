"""Check a data set before training and report all problems, not just the first.

Each file is read strictly (:mod:`edgeseg.data.decode`). Faults are problems that ``read_split``,
``load_sample`` or the evaluation would reject, labels with a misleading meaning
(:mod:`edgeseg.data.findings`), and pictures that occur in two splits, as scores on them would
measure memorisation. Everything else is a warning.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, Rgb
from edgeseg.artifacts.documents import plural
from edgeseg.console import Track, silent
from edgeseg.data.decode import load_header, load_ids, load_image, load_palette
from edgeseg.data.duplicates import digest, fingerprint, most_similar
from edgeseg.data.findings import (
    ClassCount,
    Finding,
    Findings,
    SplitSummary,
    Turn,
    check_ignored,
    check_palettes,
    check_turns,
)
from edgeseg.data.folders import (
    IGNORE,
    SPLITS,
    declared_classes,
    find_layout,
    numbered_classes,
    undeclared_classes,
)
from edgeseg.data.headers import Header
from edgeseg.data.instances import class_mask
from edgeseg.data.sample import Layout, Sample, borders_of_stored, follows_stored, load_mask
from edgeseg.errors import ArtifactError, DatasetError

logger = logging.getLogger(__name__)

NEEDED = ("train", "val")
"""Splits that training requires."""

_What = TypeVar("_What")
_Array = TypeVar("_Array")


@dataclass
class _Notes:
    """Collector of findings."""

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def fault(self, kind: str, message: str, hint: str | None = None) -> None:
        self.faults.append(Finding(kind, message, hint))

    def warn(self, kind: str, message: str) -> None:
        self.warnings.append(Finding(kind, message))


@dataclass
class _Picture:
    """What the check remembers of one picture; unreadable parts are None or empty."""

    sample: Sample
    size: tuple[int, int] | None = None
    digest: str = ""
    fingerprint: NDArray[np.float32] | None = None
    values: Mapping[int, int] = field(default_factory=dict)
    objects: int | None = None
    palette: Mapping[int, Rgb] = field(default_factory=dict)
    turn: Turn | None = None


def refuse_faults(root: Path, track: Track = silent) -> None:
    """Raise an error if a data set has faults, else log its warnings; ``train`` calls this first.

    Raises:
        UsageError: ``root`` is not a folder.
        DatasetError: The data set has faults; the message lists the first three.
    """
    found = check(root, track)
    everything = f"`edgeseg data check {shlex.quote(str(root))}` lists all"
    if found.faults:
        hint = found.faults[0].hint
        raise DatasetError(
            f"{root} has {_listed(found.faults, 'fault')}",
            hint=f"{hint}; {everything} faults" if hint else f"{everything} faults",
        )
    if found.warnings:
        logger.warning("%s has %s; %s", root, _listed(found.warnings, "warning"), everything)


def _listed(findings: Sequence[Finding], kind: str) -> str:
    """Format the first three of several findings."""
    messages = "; ".join(finding.message for finding in findings[:3])
    more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
    return f"{plural(len(findings), kind)}: {messages}{more}"


def check(root: Path, track: Track = silent) -> Findings:
    """Read every picture and mask of a data set and collect all problems.

    Args:
        root: Root folder of the data set.
        track: Progress callback, one step per picture.

    Raises:
        UsageError: ``root`` is not a folder.
        DatasetError: The folders match no supported layout.
    """
    layout, notes = find_layout(root), _Notes()
    declared = _declared(root, layout, notes)
    examine = partial(_examine, of_objects=declared or undeclared_classes(), notes=notes)
    splits = _examine_splits(layout, examine, notes, track)
    everything = [picture for pictures in splits.values() for picture in pictures]
    classes = declared or _inferred(root, everything, notes)
    for name, pictures in splits.items():
        _check_values(name, pictures, classes, notes)
    _check_conventions(root, everything, declared, notes)
    summaries = tuple(_summarise(name, found, classes) for name, found in splits.items())
    _check_presence(summaries, notes)
    _find_duplicates(splits, notes)
    _find_similar(splits, notes)
    return Findings(
        root=Path(root),
        layout=layout.kind,
        splits=summaries,
        faults=tuple(notes.faults),
        warnings=tuple(notes.warnings),
        samples={name: tuple(p.sample for p in found) for name, found in splits.items()},
        classes=classes,
    )


def splits_to_check(layout: Layout) -> tuple[str, ...]:
    """Return the disjoint splits: VOC's ``trainval`` is the union of ``train`` and ``val``."""
    return tuple(name for name in layout.splits if name in SPLITS) or layout.splits


def _examine_splits(
    layout: Layout, examine: Callable[[Sample], _Picture], notes: _Notes, track: Track
) -> dict[str, list[_Picture]]:
    """Examine the pictures of all splits one by one."""
    names = splits_to_check(layout)
    if "" in names:
        notes.warn("split", "the pictures are not divided into train/ and val/")
    else:
        for name in NEEDED:
            if name not in names:
                there = ", ".join(layout.splits) or "none"
                notes.fault(
                    "split",
                    f"expected the split {name!r}, found {there}",
                    f"divide the pictures, or rename the folder or list to {name}",
                )
    found = {}
    for name in names:
        try:
            pairing = layout.pair(name)
        except DatasetError as error:
            notes.fault("pair", error.message)
            continue
        for fault in pairing.faults:
            notes.fault("pair", fault.message)
        for path, why in pairing.passed_over:
            notes.warn("skipped", f"{path}: passed over: {why}")
        samples = track(pairing.samples, f"read {name}".rstrip(), len(pairing.samples))
        found[name] = [examine(sample) for sample in samples]
    return found


def _examine(sample: Sample, of_objects: ClassMap, notes: _Notes) -> _Picture:
    """Read the files of one picture; each invalid file is a fault of its own.

    ``of_objects`` are the classes of labels made from object maps.
    """
    picture = _Picture(sample)
    faults = len(notes.faults)
    header = _read(load_header, sample.image, notes)
    whole = len(notes.faults) == faults
    turned = header is not None and header.orientation > 1
    image = _read(load_image, sample.image, notes) if whole else None
    if image is not None:
        picture.size = image.shape[0], image.shape[1]
        picture.digest, picture.fingerprint = digest(image), fingerprint(image)
    labels = None
    if sample.mask is not None:
        labels = _read(load_mask, sample, notes)
        if labels is not None:
            _check_size(labels.shape, picture.size, sample.mask, header, notes)
            picture.values = _histogram(labels)
            picture.palette = _palette(sample, picture.values)
    if sample.instances is not None:
        instances = _read(load_ids, sample.instances, notes)
        if instances is not None:
            _check_size(instances.shape, picture.size, sample.instances, header, notes)
            picture.objects = len(np.unique(instances[instances != 0]))
            if sample.mask is None:
                picture.values = _histogram(class_mask(instances, of_objects))
                labels = instances
    if image is not None and header is not None and labels is not None and turned:
        picture.turn = _turn(sample, image, header, labels)
    return picture


def _turn(
    sample: Sample, image: NDArray[np.uint8], header: Header, labels: NDArray[np.integer]
) -> Turn | None:
    path = sample.mask or sample.instances
    assert path is not None
    if follows_stored(labels.shape, header):
        follows: bool | None = False
    elif labels.shape != image.shape[:2]:
        return None  # different size, reported as a separate fault
    else:
        follows = None if header.shown == (header.height, header.width) else True
    ratio = borders_of_stored(image, labels, header.orientation) if follows is None else None
    return Turn(sample.image, path, header.orientation, follows, ratio)


def _palette(sample: Sample, values: Mapping[int, int]) -> dict[int, Rgb]:
    """Return the palette colours of a mask's ids if it is a palette PNG of class ids."""
    if sample.mask is None or sample.relabel is not None:
        return {}
    colours = load_palette(sample.mask) or ()
    return {value: colours[value] for value in values if value < len(colours)}


def _check_conventions(
    root: Path, pictures: list[_Picture], declared: ClassMap | None, notes: _Notes
) -> None:
    """Check conventions that all files must share."""
    for is_fault, finding in check_turns([p.turn for p in pictures if p.turn]):
        (notes.faults if is_fault else notes.warnings).append(finding)
    masked = {p.sample.mask: p for p in pictures if p.sample.mask is not None}
    ignore = declared.ignore if declared else IGNORE
    palettes = {
        path: {value: colour for value, colour in picture.palette.items() if value != ignore}
        for path, picture in masked.items()
    }
    notes.faults += check_palettes(palettes, declared)
    if declared:
        values = {path: picture.values for path, picture in masked.items()}
        notes.faults += check_ignored(root, values, declared)


def _read(load: Callable[[_What], _Array], what: _What, notes: _Notes) -> _Array | None:
    try:
        return load(what)
    except DatasetError as error:
        notes.fault("file", error.message, error.hint)
        return None


def _check_size(
    found: tuple[int, ...],
    expected: tuple[int, int] | None,
    path: Path,
    header: Header | None,
    notes: _Notes,
) -> None:
    turned_away = header is not None and follows_stored(found, header)  # reported as a turn
    if expected is not None and found != expected and not turned_away:
        notes.fault(
            "size",
            f"{path}: expected the size of its picture {expected[1]}×{expected[0]}, "
            f"found {found[1]}×{found[0]}",
        )


def _histogram(ids: NDArray[np.integer]) -> dict[int, int]:
    counts = np.bincount(ids.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _declared(root: Path, layout: Layout, notes: _Notes) -> ClassMap | None:
    try:
        return declared_classes(root, layout)
    except ArtifactError as error:
        notes.fault("classes", error.message, error.hint)
        return None


def _inferred(root: Path, pictures: Iterable[_Picture], notes: _Notes) -> ClassMap | None:
    """Infer the classes from the masks, as training would; None if that fails."""
    if any(finding.kind == "classes" for finding in notes.faults):
        return None  # declared, but unreadable
    masks = [picture.values for picture in pictures if picture.sample.mask is not None]
    if not masks:
        return undeclared_classes()
    largest = max((value for values in masks for value in values if value != IGNORE), default=0)
    try:
        return numbered_classes(root, largest)
    except DatasetError as error:
        notes.fault("classes", error.message, error.hint)
        return None


def _check_values(
    name: str, pictures: list[_Picture], classes: ClassMap | None, notes: _Notes
) -> None:
    """Report ids without a class, and pictures without a labelled pixel."""
    if classes is None:
        return
    labelled = [p for p in pictures if p.values]
    bare = [p for p in labelled if set(p.values) == {classes.ignore}]
    for picture in labelled:
        stray = {v: n for v, n in picture.values.items() if v >= len(classes)}
        stray.pop(classes.ignore, None)
        if stray:
            ids = ", ".join(
                f"{value} ({plural(pixels, 'pixel')})" for value, pixels in stray.items()
            )
            expected = f"0…{len(classes) - 1} or {classes.ignore} (ignore)"
            notes.fault("value", f"{picture.sample.mask}: expected ids {expected}, found {ids}")
    if labelled and len(bare) == len(labelled):
        note = notes.fault if name in ("", *NEEDED) else notes.warn
        note("unlabelled", f"{name or 'all'}: no pixel of any mask carries a label")
        return
    for picture in bare:
        notes.warn("unlabelled", f"{picture.sample.mask}: no pixel carries a label")


def _summarise(name: str, pictures: list[_Picture], classes: ClassMap | None) -> SplitSummary:
    pixels: Counter[int] = Counter()
    occurrences: Counter[int] = Counter()
    for picture in pictures:
        pixels.update(picture.values)
        occurrences.update(picture.values.keys())
    total = sum(pixels.values())
    ignored = pixels.pop(IGNORE if classes is None else classes.ignore, 0)
    # Without class names, show the ids.
    names = dict(enumerate(classes.names)) if classes else {v: f"id {v}" for v in sorted(pixels)}
    counts = (
        ClassCount(text, pixels[v], pixels[v] / max(1, total - ignored), occurrences[v])
        for v, text in names.items()
    )
    sizes = Counter(picture.size for picture in pictures if picture.size is not None)
    objects = [picture.objects for picture in pictures if picture.objects is not None]
    return SplitSummary(
        name=name,
        pictures=len(pictures),
        sizes=tuple((f"{shape[1]}x{shape[0]}", count) for shape, count in sizes.most_common()),
        classes=tuple(counts),
        ignored_share=ignored / max(1, total),
        objects=sum(objects) if objects else None,
    )


def _check_presence(splits: Iterable[SplitSummary], notes: _Notes) -> None:
    """Report classes that are missing in a split, so that they are not learnt or not measured."""
    for split in splits:
        absent = [count.name for count in split.classes if not count.pixels]
        if 0 < len(absent) < len(split.classes):
            notes.warn("classes", f"{split.name or 'all'}: no pixel of {', '.join(absent)}")


def _find_duplicates(splits: Mapping[str, list[_Picture]], notes: _Notes) -> None:
    """Report identical pictures: a fault across splits, a warning within one."""
    places: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, pictures in splits.items():
        for picture in pictures:
            if picture.digest:
                places[picture.digest].append((name, picture.sample.image))
    for found in places.values():
        if len(found) > 1:
            first, *others = (path for _, path in found)
            across = len({name for name, _ in found}) > 1
            note = notes.fault if across else notes.warn
            where = "across splits" if across else "in one split"
            others_text = ", ".join(map(str, others))
            note("duplicate", f"{first}: the same picture {where} as {others_text}")


def _find_similar(splits: Mapping[str, list[_Picture]], notes: _Notes) -> None:
    """Warn of near-duplicates in two splits; with fixed cameras they can be legitimate."""
    for theirs, ours in combinations(splits.values(), 2):
        known = [p for p in theirs if p.fingerprint is not None]
        fingerprints = np.array([p.fingerprint for p in known], np.float32)
        for picture in ours:
            found = most_similar(picture.fingerprint, fingerprints)
            if found is None or picture.digest == known[found[0]].digest:
                continue
            notes.warn(
                "similar",
                f"{picture.sample.image}: nearly the picture "
                f"{known[found[0]].sample.image} (correlation {found[1]:.3f})",
            )
