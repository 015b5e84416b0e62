"""Read YOLO polygons: https://docs.ultralytics.com/datasets/segment.

Each picture ``…/images/…/a.jpg`` has a file ``…/labels/…/a.txt`` with a line ``class x y x y …``
for each object, in shares of the width and height of the picture as its EXIF orientation turns it.
A picture without such a file shows background.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.artifacts.documents import plural, printable, shown
from edgeseg.data.convert.areas import Polygons
from edgeseg.data.convert.labels import Labels, Losses, Picture, Shape, points, posix, split_of
from edgeseg.errors import DatasetError

_SPLITS = ("train", "val", "test")


def read(
    root: Path, names_file: Path, files: Iterable[Path], images: Iterable[Path], losses: Losses
) -> Labels:
    """Read the labels of pictures.

    Args:
        names_file: ``data.yaml`` or ``classes.txt``.
        images: All pictures of the data set, below it or elsewhere.

    Raises:
        DatasetError: A file is not as documented, or no picture has labels.
    """
    described: Mapping[str, Any] = {}
    if names_file.suffix in (".yaml", ".yml"):
        described = _yaml(names_file)
        names = _names(described.get("names"), names_file)
    else:
        names = dict(enumerate(_lines(names_file)))
    split = _Splits(names_file, described)
    texts: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.suffix == ".txt" and path != names_file:
            texts[path.stem].append(path)
    pictures, labelled = [], 0
    for path in images:
        labels = _labels_of(path, texts[path.stem])
        shapes = tuple(_shapes(labels, names, losses)) if labels else ()
        labelled += labels is not None
        relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        pictures.append(Picture(relative, labels or path, split.of(relative), None, shapes, path))
    if not labelled:
        raise DatasetError(
            f"{root}: expected labels such as labels/a.txt for images/a.jpg, found none "
            f"for {plural(len(pictures), 'picture')}",
            hint="name the folder that holds images and labels",
        )
    return Labels("yolo", tuple(names.values()), tuple(pictures))


def _labels_of(picture: Path, named: list[Path]) -> Path | None:
    """Return the file of labels of a picture, None if it has none.

    Ultralytics replaces the last folder ``images`` by ``labels``. Else it is the file beside the
    picture, or the only one with its name.
    """
    places = (_beside_images(picture), picture.with_suffix(".txt"))
    found = next((path for path in places if path.is_file()), None)
    return found or (named[0] if len(named) == 1 else None)


def _beside_images(picture: Path) -> Path:
    parts = list(picture.with_suffix(".txt").parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts)


def _shapes(path: Path, names: Mapping[int, str], losses: Losses) -> Iterator[Shape]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}: line {number}"
        label, *numbers = line.split()
        try:
            index, values = int(label), [float(text) for text in numbers]
        except ValueError as error:
            found = printable(line, 60)
            raise DatasetError(f"{where}: expected `class x y x y …`, found {found!r}") from error
        if len(values) == 4:
            losses.add_shape("box", where)
        elif index not in names:
            losses.add("shapes_of_unknown_class", f"{where}: class {index}")
        else:
            yield Shape(names[index], Polygons((points(values, where),), relative=True), where)


class _Splits:
    """The splits of ``data.yaml``: folders, or lists of pictures; else names of folders."""

    def __init__(self, names_file: Path, described: Mapping[str, Any]) -> None:
        self._folders: dict[str, str] = {}
        self._listed: dict[tuple[str, ...], str] = {}
        for split in _SPLITS:
            entries = described.get(split) or []
            for text in entries if isinstance(entries, list) else [entries]:
                if not isinstance(text, str):
                    raise DatasetError(
                        f"{names_file}: expected a path as {split!r}, found {shown(text)}"
                    )
                place = posix(text)
                if place.suffix == ".txt":
                    listed = _lines(names_file.parent / place)
                    self._listed |= {_tail(posix(line)): split for line in listed}
                elif place.parts:
                    self._folders[str(place)] = split

    def of(self, relative: str) -> str:
        """Return the split of a picture, by its path below the root; empty if none is stated."""
        if split := self._listed.get(_tail(PurePosixPath(relative))):
            return split
        for folder, split in self._folders.items():
            if f"/{folder}/" in f"/{relative}":
                return split
        return split_of(relative)


def _tail(path: PurePosixPath) -> tuple[str, ...]:
    """Return the folder and name of a listed picture: roots differ from machine to machine."""
    return path.parts[-2:]


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        described = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        why = printable(" ".join(str(error).split()), 120)
        raise DatasetError(f"{path}: not valid YAML ({why})") from error
    if not isinstance(described, dict):
        raise DatasetError(f"{path}: expected keys such as names, found {shown(described)}")
    return described


def _names(value: object, path: Path) -> dict[int, str]:
    names = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(names, dict) or not all(isinstance(index, int) for index in names):
        raise DatasetError(
            f"{path}: expected 'names' as a list, or numbers with names, found {shown(value)}"
        )
    return {index: str(names[index]) for index in sorted(names)}


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected lines of text ({error})") from error
    return [line.strip() for line in lines if line.strip()]
