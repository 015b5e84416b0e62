"""Find the files of labels and pictures of a source, and which format they have."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.files import require_file
from edgeseg.data.convert import coco, colours, cvat, labelme, yolo
from edgeseg.data.convert.labels import Labels, Losses, Picture, posix, split_of
from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.data.folders import find_layout
from edgeseg.errors import ArtifactError, DatasetError, UsageError
from edgeseg.options.converting import ConvertConfig

_YOLO = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_HEAD = 1 << 16


@dataclass(frozen=True)
class Tree:
    """Folder of a source, and all files below it, sorted, hidden ones left out."""

    root: Path
    files: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path, skip: Path) -> Tree:
        """List the files outside of ``skip``; raises UsageError if there is no such folder."""
        if not root.is_dir():
            raise UsageError(f"{root}: no such folder", hint="check the path")
        found = []
        for folder, inner, names in os.walk(root):
            inner[:] = [
                name
                for name in inner
                if not name.startswith((".", "__MACOSX"))
                and Path(folder, name).resolve() != skip.resolve()
            ]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        return cls(root, tuple(sorted(found)))

    @property
    def pictures(self) -> list[Path]:
        """The files that are pictures by their suffix."""
        return [path for path in self.files if path.suffix.lower() in PICTURE_SUFFIXES]


def read(source: Path, config: ConvertConfig, losses: Losses, skip: Path) -> tuple[Labels, Tree]:
    """Read all labels of a source, but for what is in the folder ``skip``.

    Returns:
        The labels, and the tree in which their pictures are.

    Raises:
        UsageError: There is nothing at ``source``, or its format is not known.
        DatasetError: A file is not as its format documents.
    """
    if source.is_dir():
        tree = Tree.of(source, skip)
        files = tree.files
    else:
        files = (require_file(source),)
        above = source.parent.parent if source.parent.name == "annotations" else source.parent
        tree = Tree.of(above, skip)
    pictures = Tree.of(config.images, skip) if config.images else tree
    found = _candidates(files, config.palette)
    kind = _format_of(source, found, config)
    of_kind = found[kind]
    if kind == "coco":
        return coco.read(tree.root, of_kind, losses), pictures
    if kind == "labelme":
        return labelme.read(tree.root, of_kind, losses), pictures
    if kind == "cvat":
        return cvat.read(of_kind, losses), pictures
    if kind == "yolo":
        return yolo.read(tree.root, of_kind[0], tree.files, pictures.pictures, losses), pictures
    everything = dict.fromkeys([*tree.pictures, *pictures.pictures])
    return colours.read(tree.root, of_kind[0], everything, losses), pictures


def locate_picture(picture: Picture, tree: Tree, by_name: dict[str, list[Path]]) -> Path | None:
    """Return the file of a picture in ``tree``, None if there is none.

    Of several with its name those whose folders are as in the labels are taken, then those beside
    the labels, those of the same split, and those in a folder ``images``.

    Raises:
        DatasetError: Several are left.
    """
    if picture.path is not None:
        return picture.path
    parts = posix(picture.name).parts
    found = by_name.get(parts[-1], []) if parts else []
    rules = (
        lambda path: path.parts[-len(parts) :] == parts,
        lambda path: path.parent == picture.origin.parent,
        lambda path: split_of(path.relative_to(tree.root).as_posix()) == picture.split,
        lambda path: "images" in path.relative_to(tree.root).parts,
    )
    for rule in rules:
        if len(found) > 1:
            found = [path for path in found if rule(path)] or found
    if len(found) > 1:
        raise DatasetError(
            f"{picture.origin}: expected one picture {picture.name}, found {found[0]} "
            f"and {found[1]}",
            hint="name the folder of the pictures with --images",
        )
    return found[0] if found else None


def names_of(tree: Tree) -> dict[str, list[Path]]:
    """Return the pictures of a tree by their names."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in tree.pictures:
        found[path.name].append(path)
    return found


def _candidates(files: Iterable[Path], palette: Path | None) -> dict[str, list[Path]]:
    """Return the files of labels by their format, as their names and first bytes tell it."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        suffix = path.suffix.lower()
        if suffix == ".json" and path != palette and path.name != "classes.json":
            if kind := _kind_of_json(path):
                found[kind].append(path)
        elif suffix == ".xml" and b"<annotations" in _head(path):
            found["cvat"].append(path)
        elif path.name in _YOLO or (suffix in (".yaml", ".yml") and b"names:" in _head(path)):
            found["yolo"].append(path)
        elif path.name in colours.PALETTES:
            found["colors"].append(path)
    # COCO has captions and key points beside the instances, of the same pictures.
    named = [path for path in found["coco"] if path.name.startswith("instances")]
    found["coco"] = named or found["coco"]
    found["yolo"].sort(key=lambda path: (path.suffix not in (".yaml", ".yml"), len(path.parts)))
    if palette is not None:
        found["colors"] = [palette]
    return {kind: paths for kind, paths in found.items() if paths}


def _kind_of_json(path: Path) -> str:
    head = _head(path)
    if any(key in head for key in (b'"images"', b'"annotations"', b'"categories"')):
        return "coco"
    return "labelme" if b'"shapes"' in head or b'"imagePath"' in head else ""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""


_EXPECTED = {
    "coco": "a .json file with images, annotations and categories",
    "labelme": "a .json file for each picture, with shapes and imagePath",
    "cvat": "a .xml file with <annotations>",
    "yolo": "data.yaml or classes.txt",
    "colors": f"{', '.join(colours.PALETTES)}, or a file named by --palette",
}


def _format_of(source: Path, found: dict[str, list[Path]], config: ConvertConfig) -> str:
    """Return the format that is asked for or found; raises UsageError."""
    wanted = config.from_
    if wanted == "auto" and config.palette is not None:
        wanted = "colors"
    if wanted != "auto":
        if wanted not in found:
            raise UsageError(
                f"{source}: expected {_EXPECTED[wanted]}, found none",
                hint=f"it looks like --from {' or '.join(found)}" if found else "check the path",
            )
        return wanted
    if len(found) == 1:
        return next(iter(found))
    if not found and _is_read_as_it_is(source):
        raise UsageError(
            f"{source}: expected labels to convert, found a data set that is read as it is",
            hint=f"edgeseg data check {shlex.quote(str(source))}",
        )
    several = ", ".join(f"{kind} ({paths[0]})" for kind, paths in found.items())
    raise UsageError(
        f"{source}: expected labels of one format, found {several or 'none'}",
        hint="choose one with --from"
        if found
        else "; ".join(f"{kind}: {what}" for kind, what in _EXPECTED.items()),
    )


def _is_read_as_it_is(root: Path) -> bool:
    """Whether training reads a data set without a conversion."""
    try:
        layout = find_layout(root)
        return any(layout.pair(name).samples for name in layout.splits)
    except (ArtifactError, UsageError):
        return False
