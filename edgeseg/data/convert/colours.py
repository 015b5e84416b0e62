"""Read colour-coded masks and the file that names their colours.

::

    label_colors.txt     64 128 64    Animal          CamVid
    class_dict.csv       Animal, 64, 128, 64          CamVid as on Kaggle
    labelmap.txt         Animal:64,128,64::           CVAT, "Segmentation mask 1.1"
    NAME.json            {"Animal": [64, 128, 64], "Road": "#804080"}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import Rgb
from edgeseg.artifacts.documents import printable, shown
from edgeseg.data.convert.labels import Labels, Losses, Picture, read_json, split_of
from edgeseg.data.decode import load_image
from edgeseg.errors import DatasetError

PALETTES = ("label_colors.txt", "class_dict.csv", "labelmap.txt")
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")

_LINES = (
    re.compile(r"(?P<name>.+?)\s*:\s*(?P<rgb>\d+\s*,\s*\d+\s*,\s*\d+)\s*(?::.*)?"),
    re.compile(r"(?P<name>.+?)\s*,\s*(?P<rgb>\d+\s*,\s*\d+\s*,\s*\d+)"),
    re.compile(r"(?P<rgb>\d+\s+\d+\s+\d+)\s+(?P<name>.+)"),
)
_MASKS = re.compile(
    r"(?:.*[_-])?(?:masks?|labels?|annotations?|annot|gt|segmentationclass|labeledapproved.*)",
    re.IGNORECASE,
)
_OBJECTS = "SegmentationObject"  # of VOC: its colours are those of objects
_ADDED = re.compile(r"[_-](?:L|labels?|masks?|gt)$", re.IGNORECASE)


def read(root: Path, palette: Path, images: Iterable[Path], losses: Losses) -> Labels:
    """Pair pictures with the masks of the same name; classes are those of the palette file.

    Raises:
        DatasetError: The palette file is invalid, there are no masks, or two have the same name.
    """
    colours = read_palette(palette)
    masks: dict[tuple[str, str], Path] = {}
    pictures: list[Path] = []
    lossy = None
    for path in sorted(images):
        folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
        if _OBJECTS in folders:
            continue
        if not any(_MASKS.fullmatch(part) for part in folders):
            pictures.append(path)
        elif path.suffix.lower() in LOSSLESS:
            _add(masks, (_split(root, path), _ADDED.sub("", path.stem)), path)
        else:
            lossy = path
    if not masks:
        raise DatasetError(
            f"{root}: expected masks as PNG, BMP or TIFF in a folder such as masks or labels, "
            f"found {lossy or 'none'}",
            hint="export lossless masks" if lossy else "put them into ROOT/masks",
        )
    listed = _lists(root)
    found = []
    for path in pictures:
        split = _split(root, path)
        mask = masks.get((split, path.stem)) or masks.get(("", path.stem))
        if mask is None:
            losses.add("pictures_without_mask", path)
        else:
            split = split or listed.get(path.stem, "")
            name = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
            found.append(Picture(name.as_posix(), mask, split, path=path, mask=mask))
    return Labels("colors", tuple(colours), tuple(found), colours)


def class_ids(
    mask: Path, colours: Mapping[str, Rgb], ids: Mapping[str, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a colour-coded mask as class ids.

    Returns:
        Ids, uint8 (H, W), 255 for colours without a class, and bool (H, W): which colours have one.

    Raises:
        DatasetError: The file is unreadable.
    """
    bgr = load_image(mask).astype(np.int32)
    codes = bgr[..., 2] << 16 | bgr[..., 1] << 8 | bgr[..., 0]
    known = np.array([red << 16 | green << 8 | blue for red, green, blue in colours.values()])
    order = np.argsort(known)
    places = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    table = np.array([ids[name] for name in colours], np.uint8)[order]
    is_known = known[order][places] == codes
    return np.where(is_known, table[places], np.uint8(255)), is_known


def read_palette(path: Path) -> dict[str, Rgb]:
    """Read names and RGB colours in one of the forms above.

    Raises:
        DatasetError: A line or entry is invalid, or two classes have the same name or colour.
    """
    colours: dict[str, Rgb] = {}
    entries = read_json(path).items() if path.suffix == ".json" else _lines(path)
    for name, value in entries:
        colour = _colour(value)
        if colour is None or not name:
            raise DatasetError(
                f"{path}: expected a name and a colour such as [64, 128, 64] or #408040, "
                f"found {shown(name)}: {shown(value)}"
            )
        if name in colours or colour in colours.values():
            raise DatasetError(
                f"{path}: expected one colour for each class, found {shown(name)} or "
                f"{colour} twice",
                hint="merge the two classes, or give each a colour of its own",
            )
        colours[name] = colour
    if not colours:
        raise DatasetError(f"{path}: expected names and colours, found none")
    return colours


def _lines(path: Path) -> Iterable[tuple[str, object]]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected lines of text ({error})") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#") or (number == 1 and not re.search(r"\d", line)):
            continue  # the head of a table
        found = next(filter(None, (form.fullmatch(line) for form in _LINES)), None)
        if found is None:
            raise DatasetError(
                f"{path}: line {number}: expected a name and a colour, such as `64 128 64 Animal` "
                f"or `Animal, 64, 128, 64`, found {printable(line, 60)!r}"
            )
        yield found["name"].strip(), [int(part) for part in re.findall(r"\d+", found["rgb"])]


def _colour(value: object) -> Rgb | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        value = list(bytes.fromhex(value[1:]))
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(type(part) is int and 0 <= part <= 255 for part in value):
        return None
    red, green, blue = value
    return red, green, blue


def _split(root: Path, path: Path) -> str:
    return split_of(path.relative_to(root).as_posix()) if path.is_relative_to(root) else ""


def _add(masks: dict[tuple[str, str], Path], key: tuple[str, str], path: Path) -> None:
    if key in masks:
        raise DatasetError(
            f"{path}: expected one mask for each picture, found {masks[key]} too",
            hint="name the folder that holds the masks alone",
        )
    masks[key] = path


def _lists(root: Path) -> dict[str, str]:
    """Return the split of each name in the lists of the VOC layout."""
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if path.is_file():
            names = path.read_text("utf-8", errors="replace").split()
            splits |= {PurePosixPath(name).name: split for name in names}
    return splits
