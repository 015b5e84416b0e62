"""Convert labels of other tools into the layout of folders that ``edgeseg train`` reads.

Readers (:mod:`~edgeseg.data.convert.coco` and its neighbours) return what a source labels as
:class:`~edgeseg.data.convert.labels.Labels`; this module finds the pictures, divides them into
splits, paints the masks and counts what is lost.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, background_of
from edgeseg.artifacts.files import refuse_to_replace
from edgeseg.artifacts.workshop import workshop
from edgeseg.console import Track, silent
from edgeseg.data.convert import sources
from edgeseg.data.convert.colours import class_ids
from edgeseg.data.convert.labelme import BACKGROUND, IGNORED
from edgeseg.data.convert.labels import LOSSES, Labels, Losses, Picture
from edgeseg.data.convert.painting import Painted, frame_of, paint
from edgeseg.data.decode import load_header
from edgeseg.data.headers import Header
from edgeseg.data.sample import same_name
from edgeseg.errors import DatasetError, UsageError
from edgeseg.options.converting import ConvertConfig

__all__ = ["Converted", "convert"]

IGNORE = 255
_WRITTEN = ("train", "val", "test", "classes.json")


_AREAS = "add labels with an area: points, lines and plain boxes give no classes to pixels"


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        out: Folder of the data set.
        kind: Format of the labels.
        classes: Classes of the data set.
        splits: Number of pictures of each split.
        drawn: Whether ``train`` and ``val`` were drawn at random.
        objects: Number of objects in ``instances/``, None if that was not written.
        turned: Number of pictures whose labels were turned with the picture's EXIF orientation.
        losses: What was lost.
    """

    out: Path
    kind: str
    classes: ClassMap
    splits: dict[str, int]
    drawn: bool
    objects: int | None
    turned: int
    losses: Losses

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {
            "out": str(self.out),
            "from": self.kind,
            "classes": list(self.classes.names),
            "splits": self.splits,
            "drawn": self.drawn,
            "objects": self.objects,
            "turned": self.turned,
            "losses": {kind: self.losses.counts[kind] for kind in LOSSES},
            "first": self.losses.first,
            "unknown_shapes": dict(self.losses.unknown),
        }

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Titles and texts for people."""
        drawn = ", train and val drawn by picture" if self.drawn else ""
        found = [
            ("format", self.kind),
            ("classes", ", ".join(self.classes.names)),
            ("pictures", ", ".join(f"{n} {name}" for name, n in self.splits.items()) + drawn),
        ]
        if self.objects is not None:
            found.append(("objects", str(self.objects)))
        if self.turned:
            found.append(("labels turned with their picture", str(self.turned)))
        for kind, text in LOSSES.items():
            if count := self.losses.counts[kind]:
                found.append((text, f"{count} (first: {self.losses.first[kind]})"))
        return [*found, ("written", str(self.out))]


@dataclass(frozen=True)
class _Found:
    """A picture with its file, header and name in the output."""

    picture: Picture
    path: Path
    header: Header
    name: str = ""


def convert(
    source: Path,
    out: Path,
    config: ConvertConfig | None = None,
    *,
    overwrite: bool = False,
    track: Track = silent,
) -> Converted:
    """Convert a labelled data set; ``out`` appears whole or not at all.

    Pictures are copied byte by byte. Shapes are painted in the order of the source, later ones
    over earlier ones, on a class ``background`` that is added as 0 unless the source has one.

    Args:
        source: File or folder of labels.
        out: Folder to write, with ``{train,val}/{images,masks}`` and ``classes.json``.
        config: Format, splits and folders; None for the defaults.
        overwrite: Whether to replace such a folder.
        track: Progress callback, one step per picture.

    Raises:
        UsageError: ``source`` is missing or of no known format, or ``out`` must not be written.
        DatasetError: A file of the source is invalid, no picture is left, or none has an area.
    """
    config = config or ConvertConfig()
    _refuse(source, out, config, overwrite=overwrite)
    losses = Losses()
    labels, tree = sources.read(Path(source), config, losses, skip=out)
    labels = _with_background(labels)
    ids = _ids(labels, config.ignore)
    found = _named(_located(labels, tree, losses))
    found, drawn = _divided(found, config)
    names = [name for name in labels.names if ids[name] != IGNORE]
    classes = _class_map(labels, names, source)
    objects = _has_objects(labels, ids, classes)
    splits: Counter[str] = Counter()
    turned = total = 0
    labelled, plain = False, [id_ for id_ in (classes.background, IGNORE) if id_ is not None]
    with workshop(out.resolve().parent) as shop:
        for each in track(found, "convert", len(found)):
            painted = _painted(each, labels, ids, losses)
            if painted is None:
                continue
            splits[each.picture.split] += 1
            turned += painted.turned
            total += painted.objects
            labelled = labelled or not np.isin(painted.mask, plain).all()
            _write(shop / each.picture.split, each, painted, objects=objects)
        if not splits:
            raise DatasetError(
                f"{source}: no picture is left of {len(found)}: "
                f"{_first(losses) or 'none is labelled'}"
            )
        if not labelled:
            raise DatasetError(
                f"{source}: expected labels with an area, found none"
                + (f"; {_first(losses)}" if losses.first else ""),
                hint=_AREAS,
            )
        classes.save(shop / "classes.json")
        _install(shop, out)
    ordered = {name: splits[name] for name in _WRITTEN if splits[name]}
    count = total if objects else None
    return Converted(out, labels.kind, classes, ordered, drawn, count, turned, losses)


def _refuse(source: Path, out: Path, config: ConvertConfig, *, overwrite: bool) -> None:
    """Refuse an output that exists, holds other files, or contains an input."""
    inputs = [path for path in (source, config.images, config.palette) if path is not None]
    refuse_to_replace(out, overwrite=overwrite, inputs=inputs)
    for path in inputs:
        if out.resolve() in path.resolve().parents:
            raise UsageError(
                f"{out} contains {path}, an input of this command",
                hint="choose another path for the output",
            )
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is not a folder", hint="choose another path for the output")
    others = sorted(entry.name for entry in out.iterdir() if entry.name not in _WRITTEN)
    if others:
        raise UsageError(
            f"{out} holds {others[0]}, which no conversion writes, and is not replaced",
            hint="choose another path for the output, or remove the folder",
        )


def _with_background(labels: Labels) -> Labels:
    """Put the background of shapes first; labelme has a name of its own for it."""
    if labels.colours is not None:
        return labels
    names = [name for name in labels.names if name not in (BACKGROUND, IGNORED)]
    at = background_of(names)
    background = "background" if at is None else names.pop(at)
    return replace(labels, names=(background, *names))


def _ids(labels: Labels, ignored: Sequence[str]) -> dict[str, int]:
    """Return the id of each class, 255 for those to ignore.

    Raises:
        UsageError: A class to ignore does not exist.
        DatasetError: There are more than 255 classes, or one has no name.
    """
    for name in ignored:
        if name not in labels.names:
            raise UsageError(
                f"--ignore: expected one of the classes {', '.join(labels.names[:20])}, "
                f"found {name!r}"
            )
    if "" in labels.names:
        raise DatasetError(
            "expected a name for each class, found an empty one",
            hint="name the class in the labelling tool and export the labels again",
        )
    kept = [name for name in dict.fromkeys(labels.names) if name not in ignored]
    if len(kept) > IGNORE:
        raise DatasetError(
            f"expected at most {IGNORE} classes with the background, found {len(kept)}: "
            f"{kept[IGNORE]!r} and those after it do not fit into a mask",
            hint="leave classes out with --ignore, or merge them in the labelling tool",
        )
    ids = dict.fromkeys(labels.names, IGNORE) | {name: at for at, name in enumerate(kept)}
    own = {BACKGROUND: ids[labels.names[0]], IGNORED: IGNORE} if labels.kind == "labelme" else {}
    return ids | own


def _class_map(labels: Labels, names: Sequence[str], source: Path) -> ClassMap:
    names = tuple(dict.fromkeys(names))
    if len(names) < 2:
        raise DatasetError(
            f"{source}: expected two classes or more, found {', '.join(names) or 'none'}",
            hint=_AREAS,
        )
    values: dict[str, Any] = {"names": names}
    if labels.colours is not None:
        values["palette"] = tuple(labels.colours[name] for name in names)
    return ClassMap.model_validate(values)


def _has_objects(labels: Labels, ids: dict[str, int], classes: ClassMap) -> bool:
    """Whether maps of objects can be written: one class of objects, and no crowds."""
    shapes = [shape for picture in labels.pictures for shape in picture.shapes]
    most = max((len(picture.shapes) for picture in labels.pictures), default=0)
    return (
        labels.colours is None
        and len(classes) == 2
        and classes.background == 0
        and most < 1 << 16
        and all(ids[shape.label] != IGNORE and not shape.crowd for shape in shapes)
    )


def _located(labels: Labels, tree: sources.Tree, losses: Losses) -> list[_Found]:
    """Find the files of the pictures and read their headers."""
    by_name = sources.names_of(tree)
    found = []
    for picture in labels.pictures:
        path = sources.locate_picture(picture, tree, by_name)
        if path is None:
            losses.add("pictures_missing", f"{picture.name} of {picture.origin}")
            continue
        try:
            header = load_header(path)
        except DatasetError as error:
            losses.add("pictures_unreadable", error.message)
            continue
        if header is None:
            losses.add("pictures_unreadable", f"{path}: of no known format")
            continue
        found.append(_Found(picture, path, header))
    if not found:
        first = _first(losses)
        raise DatasetError(
            f"{tree.root}: expected pictures of these labels, found none"
            + (f"; {first}" if first else ""),
            hint="name the folder of the pictures with --images",
        )
    return found


def _first(losses: Losses) -> str:
    return next((f"{LOSSES[kind]}: {where}" for kind, where in losses.first.items()), "")


def _named(found: list[_Found]) -> list[_Found]:
    """Give each picture a name of its own: its stem, with its folders where stems repeat."""
    count = Counter(same_name(each.path.stem) for each in found)
    taken: set[str] = set()
    named = []
    for each in found:
        name = each.path.stem
        if count[same_name(name)] > 1:
            name = "_".join(Path(each.picture.name).with_suffix("").parts)
        unique, number = name, 2
        while same_name(unique) in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(same_name(unique))
        named.append(replace(each, name=unique))
    return named


def _divided(found: list[_Found], config: ConvertConfig) -> tuple[list[_Found], bool]:
    """Keep the splits of the source, or draw ``val`` where ``train`` or ``val`` is missing."""
    splits = Counter(each.picture.split for each in found)
    if splits["train"] and splits["val"] and not splits[""]:
        return found, False
    names = sorted(each.name for each in found if each.picture.split != "test")
    if len(names) < 2:
        raise DatasetError(
            f"expected two pictures or more to divide into train and val, found {len(names)}",
            hint="label more pictures",
        )
    count = min(max(1, round(config.val * len(names))), len(names) - 1)
    drawn = set(random.Random(config.seed).sample(names, count))
    divided = []
    for each in found:
        split = each.picture.split
        if split != "test":
            split = "val" if each.name in drawn else "train"
        divided.append(replace(each, picture=replace(each.picture, split=split)))
    return divided, True


def _painted(each: _Found, labels: Labels, ids: dict[str, int], losses: Losses) -> Painted | None:
    """Paint the mask of a picture as viewers show it; None if it has another size."""
    picture, header = each.picture, each.header
    if picture.mask is not None:
        assert labels.colours is not None
        mask, known = class_ids(picture.mask, labels.colours, ids)
        losses.add("unknown_colour_pixels", picture.mask, int((~known).sum()))
        losses.add("ignored_pixels", picture.mask, int((known & (mask == IGNORE)).sum()))
        picture = replace(picture, size=(mask.shape[0], mask.shape[1]))
        painted = Painted(mask)
    frame = frame_of(picture.size, header)
    if frame is None:
        expected, found = (f"{w}×{h}" for h, w in (header.shown, picture.size or (0, 0)))
        losses.add("pictures_of_another_size", f"{each.path} is {expected}, its labels {found}")
        return None
    if picture.mask is None:
        painted = paint(picture, frame, ids, ids[labels.names[0]], losses)
    if frame != header.shown:
        return painted.upright(header.orientation)
    return painted


def _write(folder: Path, each: _Found, painted: Painted, *, objects: bool) -> None:
    for part in ("images", "masks", *(["instances"] if objects else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(each.path, folder / "images" / f"{each.name}{each.path.suffix}")
    _save(folder / "masks" / f"{each.name}.png", painted.mask)
    if objects and painted.instances is not None:
        _save(folder / "instances" / f"{each.name}.png", painted.instances)


def _save(path: Path, ids: NDArray[np.integer]) -> None:
    done, encoded = cv2.imencode(".png", ids)
    assert done
    path.write_bytes(encoded.tobytes())


def _install(shop: Path, out: Path) -> None:
    """Move what was written into place; an earlier conversion goes first."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _WRITTEN:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    for name in _WRITTEN:
        if (shop / name).exists():
            (shop / name).replace(out / name)
