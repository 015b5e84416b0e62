"""Read Cityscapes in its published layout.

::

    ROOT/leftImg8bit/train/CITY/NAME_leftImg8bit.png
    ROOT/gtFine/train/CITY/NAME_gtFine_labelIds.png         val/ and test/ alike

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (2016). Files hold
34 label ids, of which 19 are trained and scored; the others become the ignore value. Ids, names and
colours are those of ``cityscapesscripts/helpers/labels.py``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgeseg.artifacts.card import ClassMap, Rgb
from edgeseg.data.sample import Layout, Pairing, Sample, same_name
from edgeseg.errors import DatasetError

SPLITS = ("train", "val", "test")

# Label id, name, colour; the train id is the index in this table.
_TRAINED: tuple[tuple[int, str, Rgb], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_LABEL_IDS = 34
_IGNORE = 255
_PICTURE, _LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"

CLASSES = ClassMap(
    names=tuple(name for _, name, _ in _TRAINED),
    palette=tuple(colour for _, _, colour in _TRAINED),
    ignore=_IGNORE,
)


def train_ids() -> bytes:
    """Return the train id of each label id 0…33, 255 for those that are not trained."""
    table = bytearray([_IGNORE] * _LABEL_IDS)
    for train_id, (label_id, _, _) in enumerate(_TRAINED):
        table[label_id] = train_id
    return bytes(table)


def find(root: Path) -> Layout | None:
    """Return the layout of ``root`` if it has the folders of Cityscapes, else None."""
    pictures, labels = root / "leftImg8bit", root / "gtFine"
    if not (pictures.is_dir() and labels.is_dir()):
        return None
    splits = tuple(name for name in SPLITS if (pictures / name).is_dir())
    return Layout("Cityscapes", splits, partial(_pair, pictures, labels), CLASSES)


def _pair(pictures: Path, labels: Path, split: str) -> Pairing:
    """Pair each picture of a split, in all cities, with its labels."""
    images = _by_frame(pictures / split, _PICTURE)
    masks = _by_frame(labels / split, _LABELS)
    sides = (
        (images, masks, f"its labels {labels}", _LABELS),
        (masks, images, f"its picture {pictures}", _PICTURE),
    )
    faults = [
        DatasetError(f"{own[frame]}: expected {other}/{split}/{frame}{ending}, found none")
        for own, others, other, ending in sides
        for frame in sorted(own.keys() - others.keys())
    ]
    if not images:
        faults.append(DatasetError(f"{pictures / split}: expected CITY/*{_PICTURE}, found none"))
    table = train_ids()
    both = sorted(images.keys() & masks.keys())
    samples = (Sample(images[frame], mask=masks[frame], relabel=table) for frame in both)
    return Pairing(tuple(samples), tuple(faults))


def _by_frame(folder: Path, ending: str) -> dict[str, Path]:
    """Map ``CITY/NAME`` to the file, for files with that ending."""
    found = folder.glob(f"*/*{ending}")
    return {
        same_name(f"{path.parent.name}/{path.name.removesuffix(ending)}"): path for path in found
    }
