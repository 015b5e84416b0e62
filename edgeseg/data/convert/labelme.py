"""Read labelme: one JSON file a picture, https://github.com/wkentaro/labelme.

labelme shows pictures turned by their EXIF orientation, so its coordinates are in that frame.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeseg.data.convert.areas import Area, Bitmap, Polygons, ellipse, rectangle
from edgeseg.data.convert.labels import (
    Labels,
    Losses,
    Picture,
    Shape,
    entry,
    points,
    posix,
    read_json,
    split_of,
    stated_size,
)
from edgeseg.data.headers import check_pixels, read_header
from edgeseg.errors import DatasetError

BACKGROUND, IGNORED = "_background_", "__ignore__"
"""Labels with a meaning of their own in labelme's tools."""


def read(root: Path, files: Iterable[Path], losses: Losses) -> Labels:
    """Read the files of all pictures; the classes are their labels in alphabetical order.

    Raises:
        DatasetError: A file is not as labelme writes it.
    """
    pictures = tuple(_picture(root, path, losses) for path in files)
    names = sorted({shape.label for picture in pictures for shape in picture.shapes})
    return Labels("labelme", tuple(names), pictures)


def _picture(root: Path, path: Path, losses: Losses) -> Picture:
    document = read_json(path)
    shapes = []
    for number, described in enumerate(entry(document, "shapes", list, path), 1):
        where = f"{path}: shape {number}"
        kind = described.get("shape_type", "polygon") if isinstance(described, dict) else None
        label = entry(described, "label", str, where)
        area = _area(kind, described, where)
        if area is None:
            losses.add_shape(kind, where)
        else:
            shapes.append(Shape(label, area, where, described.get("group_id")))
    name = posix(entry(document, "imagePath", str, path))
    size = stated_size(document, "imageHeight", "imageWidth")
    split = split_of(path.relative_to(root).as_posix())
    return Picture(str(name), path, split, size, tuple(shapes))


def _area(kind: object, described: dict[str, Any], where: str) -> Area | None:
    ring = points(entry(described, "points", list, where), where)
    if kind in ("polygon", "oriented_rectangle"):
        return Polygons((ring,))
    if kind not in ("rectangle", "circle", "mask"):
        return None
    if len(ring) != 2:
        raise DatasetError(f"{where}: expected two points of a {kind}, found {len(ring)}")
    (x0, y0), (x1, y1) = ring.tolist()
    if kind == "rectangle":
        return rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if kind == "circle":  # the centre and a point of the circle
        radius = math.hypot(x1 - x0, y1 - y0)
        return ellipse(x0, y0, radius, radius)
    try:
        png = base64.b64decode(entry(described, "mask", str, where), validate=True)
    except ValueError as error:
        raise DatasetError(f"{where}: expected a mask in Base64 ({error})") from error
    header = read_header(png)
    if header is None:
        raise DatasetError(f"{where}: expected a mask as PNG, found {len(png)} other bytes")
    check_pixels(png, where)
    return Bitmap(png, header.height, header.width, round(y0), round(x0), where)
