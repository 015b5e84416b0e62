"""Read "CVAT for images 1.1": https://docs.cvat.ai/docs/other/xml_format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from edgeseg.artifacts.documents import printable
from edgeseg.data.convert.areas import Area, Polygons, RunLengths, ellipse, rectangle
from edgeseg.data.convert.coco import checked
from edgeseg.data.convert.labels import Labels, Losses, Picture, Shape, points, posix, split_of
from edgeseg.data.headers import pixel_limit
from edgeseg.errors import DatasetError


def read(files: Iterable[Path], losses: Losses) -> Labels:
    """Read the annotation files; classes are the labels of the tasks, in their order.

    Raises:
        DatasetError: A file is not as documented, or of CVAT's format for videos.
    """
    names: dict[str, None] = {}
    pictures: list[Picture] = []
    for path in files:
        tree = _tree(path)
        names |= dict.fromkeys(
            name.text for name in tree.iterfind("meta//labels/label/name") if name.text
        )
        pictures += [_picture(image, path, losses) for image in tree.iterfind("image")]
    seen = {shape.label for picture in pictures for shape in picture.shapes}
    return Labels("cvat", (*names, *sorted(seen - names.keys())), tuple(pictures))


def _tree(path: Path) -> ElementTree.Element:
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise DatasetError(
            f"{path}: not valid XML ({error})", hint="export the labels again, or copy again"
        ) from error
    if tree.tag != "annotations" or tree.find("track") is not None:
        found = "tracks of a video" if tree.tag == "annotations" else f"<{printable(tree.tag, 60)}>"
        raise DatasetError(
            f"{path}: expected <annotations> with an <image> for each picture, found {found}",
            hint='export the task as "CVAT for images 1.1"',
        )
    return tree


def _picture(image: ElementTree.Element, path: Path, losses: Losses) -> Picture:
    name = posix(_text(image, "name", str(path)))
    here = f"{path}: {name}"
    shapes: list[tuple[float, Shape]] = []
    for number, element in enumerate(image, 1):
        where = f"{here}: {element.tag} {number}"
        make = _AREAS.get(element.tag)
        if make is None:
            losses.add_shape(element.tag, where)
            continue
        group = element.get("group_id", "0")
        shape = Shape(
            _text(element, "label", where),
            make(element, where),
            where,
            None if group == "0" else group,
        )
        shapes.append((_number(element, "z_order", where, "0"), shape))
    shapes.sort(key=lambda pair: pair[0])  # stable: later ones of a layer stay later
    subset = image.get("subset", "")
    size = int(_number(image, "height", here)), int(_number(image, "width", here))
    split = split_of(f"{subset}/-") or split_of(name)
    return Picture(str(name), path, split, size, tuple(shape for _, shape in shapes))


def _text(element: ElementTree.Element, key: str, where: str) -> str:
    value = element.get(key)
    if not value:
        raise DatasetError(f"{where}: expected the attribute {key!r}, found none")
    return value


def _number(element: ElementTree.Element, key: str, where: str, default: str = "") -> float:
    text = element.get(key, default)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DatasetError(f"{where}: expected {key!r} as a number, found {printable(text, 60)!r}")
    return value


def _polygon(element: ElementTree.Element, where: str) -> Area:
    text = element.get("points", "")
    return Polygons((points([pair.split(",") for pair in text.split(";") if pair], where),))


def _box(element: ElementTree.Element, where: str) -> Area:
    left, top, right, bottom = (
        _number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr")
    )
    return rectangle(left, top, right, bottom, _number(element, "rotation", where, "0"))


def _ellipse(element: ElementTree.Element, where: str) -> Area:
    x, y, across, down = (_number(element, key, where) for key in ("cx", "cy", "rx", "ry"))
    return ellipse(x, y, across, down, _number(element, "rotation", where, "0"))


def _mask(element: ElementTree.Element, where: str) -> Area:
    height, width, top, left = (
        int(_number(element, key, where)) for key in ("height", "width", "top", "left")
    )
    text = element.get("rle", "")
    try:
        counts = np.array([int(part) for part in text.split(",")], np.int64)
    except (ValueError, OverflowError) as error:
        found = printable(text, 60)
        raise DatasetError(f"{where}: expected run lengths in rle, found {found!r}") from error
    if min(height, width) < 0 or height * width > pixel_limit():
        raise DatasetError(f"{where}: expected a mask within the picture, found {width}×{height}")
    return checked(RunLengths(counts, height, width, top, left), where)


_AREAS: dict[str, Callable[[ElementTree.Element, str], Area]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}
