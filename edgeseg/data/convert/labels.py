"""What a reader of labels returns, and what is lost on the way."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from edgeseg.artifacts.card import Rgb
from edgeseg.artifacts.documents import printable, shown
from edgeseg.artifacts.files import open_file
from edgeseg.data.convert.areas import Area, Points, Size
from edgeseg.errors import DatasetError

LOSSES = {
    "pictures_missing": "pictures not found, left out",
    "pictures_unreadable": "pictures unreadable, left out",
    "pictures_of_another_size": "pictures of another size than their labels, left out",
    "pictures_without_mask": "pictures without a mask, left out",
    "pictures_without_shapes": "pictures without shapes, kept as background",
    "shapes_unknown": "shapes without an area (points, lines, plain boxes), left out",
    "shapes_of_unknown_class": "shapes of a class without a name, left out",
    "shapes_outside": "shapes outside their picture, left out",
    "shapes_degenerate": "shapes without a pixel, left out",
    "shapes_clipped": "shapes cut at the edge of their picture",
    "shapes_hidden": "shapes covered wholly by later ones",
    "crowds": "crowds, kept as areas of their class",
    "overlapping_pixels": "pixels of earlier shapes covered by later ones",
    "unknown_colour_pixels": "pixels of colours without a class, written as not labelled",
    "ignored_pixels": "pixels of classes of --ignore, written as not labelled",
}
"""Kinds of losses: their keys and descriptions."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_Kind = TypeVar("_Kind")


@dataclass
class Losses:
    """How often something was lost, the first case of each kind, and kinds of unknown shapes."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, where: object, count: int = 1) -> None:
        """Count losses of one of the :data:`LOSSES`."""
        assert kind in LOSSES
        if count:
            self.counts[kind] += count
            self.first.setdefault(kind, printable(str(where)))

    def add_shape(self, kind: object, where: object) -> None:
        """Count a shape that has no area."""
        name = printable(str(kind), 40)
        self.unknown[name] += 1
        self.add("shapes_unknown", f"{where}: {name}")


@dataclass(frozen=True)
class Shape:
    """A labelled area.

    Attributes:
        area: Its pixels.
        where: File and number, for messages.
        group: Shapes of a picture with the same group are one object; None for a single one.
        crowd: Whether it marks many objects at once.
    """

    label: str
    area: Area
    where: str
    group: object = None
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture and its labels, as a file of labels describes them.

    Attributes:
        name: Name or relative path of the picture.
        split: ``train``, ``val``, ``test``, or empty if the source has none.
        size: (height, width) that the labels are for, None if unstated.
        shapes: Labelled areas; later ones cover earlier ones.
        path: The picture, if its place is known.
        mask: File of a colour-coded mask instead of shapes.
    """

    name: str
    origin: Path
    split: str = ""
    size: Size | None = None
    shapes: tuple[Shape, ...] = ()
    path: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Labels:
    """All labels of a source.

    Attributes:
        kind: Format, as for ``--from``.
        names: Names of the classes, in order.
        colours: Colours of the classes, for colour-coded masks only.
    """

    kind: str
    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    colours: Mapping[str, Rgb] | None = None


def split_of(path: str | PurePosixPath) -> str:
    """Return the split that a path names, such as ``images/val2017/a.jpg``; empty for none.

    Only folders count, and the last of them that names a split.
    """
    for part in reversed(PurePosixPath(path).parts[:-1]):
        for word in re.split(r"[^a-z]+", part.casefold()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def posix(name: str) -> PurePosixPath:
    """Return a path as labels state it, of Windows too, without its root and ``..``."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return PurePosixPath(*(part for part in parts if part not in ("/", "..")))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of any size.

    Raises:
        UsageError: There is no such file.
        ArtifactError: It is not readable or not a JSON object.
    """
    with open_file(path) as stream:
        try:
            document = json.loads(stream.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"{path}: not valid JSON ({error})", hint="export the labels again, or copy again"
            ) from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: expected a JSON object, found {shown(document)}")
    return document


def entry(document: object, key: str, kind: type[_Kind], where: object) -> _Kind:
    """Return the entry of a JSON object; raises DatasetError if its type is another."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        found = shown(value) if isinstance(document, dict) else shown(document)
        raise DatasetError(
            f"{where}: expected {key!r} as {_KINDS[kind]}, found {found}",
            hint="name the format with --from, or export the labels again",
        )
    return value


_KINDS: dict[type, str] = {list: "a list", dict: "an object", str: "a text", int: "a whole number"}


def stated_size(document: object, height: str, width: str) -> Size | None:
    """Return (height, width) of a JSON object, None if absent."""
    values = [document.get(key) for key in (height, width)] if isinstance(document, dict) else []
    rows, columns = values or (None, None)
    return (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None


def points(values: object, where: object) -> Points:
    """Return coordinates x, y, x, y, … or (x, y) pairs as (N, 2); raises DatasetError."""
    try:
        made = np.asarray(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: expected pairs of x and y, found {shown(values)}") from error
    if not np.isfinite(made).all():
        raise DatasetError(f"{where}: expected finite coordinates, found {shown(values)}")
    return made
