"""``edgeseg data convert``: small sources in each tool's documented format, against other code.

The oracles are masks that pycocotools 2.0.11 encoded, a test of each pixel's centre that shares no
line with the package, and Pillow for turns and colours.
"""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pages import DOCS
from PIL import Image, ImageOps

from edgeseg.data.check import check
from edgeseg.data.convert import Converted, convert
from edgeseg.data.convert.areas import Polygons, RunLengths, decode_counts, ellipse, rectangle
from edgeseg.data.convert.labels import posix, split_of
from edgeseg.data.folders import bundled_sample
from edgeseg.errors import DatasetError, UsageError
from edgeseg.options.converting import ConvertConfig

SIZE = HEIGHT, WIDTH = 18, 24
# `pycocotools.mask.encode` of shape_of_coco(), and `frPyObjects` of RING.
ENCODED = "l15<2N2OIJ25NM22NN22NN22OL246000000001N101N2N<LI00000"
ENCODED_RING = "h13?9GO2N1O1O1O11O1O1O100O1O1OM3M3N2Me1"
RING = [(3.2, 2.1), (20.7, 4.4), (16.3, 15.9), (9.5, 9.1), (4.4, 14.2)]
BOX = [4, 5, 12, 5, 12, 10, 4, 10]  # x and y: columns 4…11, rows 5…9


def shape_of_coco() -> NDArray[np.bool_]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((x - 11) ** 2 / 81 + (y - 8) ** 2 / 36 < 1) & ~((x - 8) ** 2 + (y - 7) ** 2 < 6)
    mask[17, 20:] = True
    return np.asarray(mask)


def whole(area: Any, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """The area on a canvas of the picture's size."""
    canvas = np.zeros(size, np.bool_)
    top, left, mask = area.patch(size)
    canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return canvas


def centres_inside(ring: list[tuple[float, float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The even-odd rule, a pixel at a time: edges to the right of a centre."""
    found = np.zeros(size, np.bool_)
    for row, column in np.ndindex(*size):
        x, y, inside = column + 0.5, row + 0.5, False
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
                inside = not inside
        found[row, column] = inside
    return found


def picture(path: Path, seed: int = 0, orientation: int = 1, size: Any = (WIDTH, HEIGHT)) -> Path:
    """A picture like no other, as stored of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def box_mask(value: int = 1, left: int = 4, top: int = 5) -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 5, left : left + 8] = value
    return mask


def coco(root: Path, annotations: list[dict[str, Any]], count: int = 2, **image: Any) -> Path:
    """Pictures 0.jpg … in ``images``, their labels in ``instances.json``."""
    for number in range(count):
        picture(root / "images" / f"{number}.jpg", number)
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT} | image
        for number in range(count)
    ]
    categories = [{"id": 7, "name": "crack"}, {"id": 3, "name": "rust"}]
    for number, annotation in enumerate(annotations):
        annotation |= {"id": number + 1, "category_id": annotation.get("category_id", 7)}
        annotation.setdefault("image_id", 0)
    document = {"images": images, "annotations": annotations, "categories": categories}
    return write(root / "instances.json", document)


def mask_of(made: Converted, name: str, part: str = "masks") -> NDArray[np.uint8]:
    (path,) = made.out.glob(f"*/{part}/{name}.png")
    return read(path)


def lost(made: Converted) -> dict[str, int]:
    return dict(made.losses.counts)


# Areas.


def test_polygons_are_the_pixels_whose_centres_are_inside() -> None:
    rng = np.random.default_rng(5)
    rings = [RING, *(list(map(tuple, rng.uniform(-6, 30, (n, 2)))) for n in (3, 5, 8, 13))]
    rings.append([(2.5, 3.5), (9.5, 3.5), (9.5, 8.5), (2.5, 8.5)])  # through centres
    for ring in rings:
        found = whole(Polygons((np.array(ring),)))
        assert (found == centres_inside(ring, SIZE)).all()
    assert not (whole(Polygons((np.array(RING) + 1,))) == centres_inside(RING, SIZE)).all()


def test_polygons_agree_with_pycocotools_but_for_the_outline() -> None:
    theirs = whole(RunLengths(decode_counts(ENCODED_RING), *SIZE, by_column=True))
    ours = whole(Polygons((np.array(RING),)))
    outline = np.zeros(SIZE, np.uint8)
    cv2.polylines(outline, [np.round((np.array(RING) - 0.5) * 16).astype(int)], True, 1, shift=4)
    assert theirs.sum() == 143
    assert not ((ours != theirs) & (outline == 0)).any()


def test_neighbours_share_no_pixel_and_leave_no_gap() -> None:
    left = Polygons((np.array([(0, 0), (13.3, 0), (5.7, 18), (0, 18)]),))
    right = Polygons((np.array([(13.3, 0), (24, 0), (24, 18), (5.7, 18)]),))
    assert (whole(left) ^ whole(right)).all()


def test_run_lengths_of_pycocotools() -> None:
    expected = shape_of_coco()
    assert (whole(RunLengths(decode_counts(ENCODED), *SIZE, by_column=True)) == expected).all()
    for broken in (ENCODED[:1] + "\x7f", "p", "é"):
        with pytest.raises(ValueError, match="run lengths"):
            decode_counts(broken)


def test_boxes_turn_clockwise_and_ellipses_have_their_area() -> None:
    turned = whole(rectangle(8, 2, 16, 4, degrees=90), (20, 24))
    upright = whole(rectangle(11, -1, 13, 7), (20, 24))
    assert (turned == upright).all()
    slanted = whole(rectangle(4, 8, 20, 10, degrees=30), (20, 24))
    assert slanted[12, 18]  # clockwise: the right end goes down
    assert not slanted[5, 18]
    assert abs(whole(ellipse(12, 9, 9, 6)).sum() / (np.pi * 54) - 1) < 0.02


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("images/val2017/a.jpg", "val"), ("train/images/valid.jpg", "train"), ("a.jpg", ""),
        ("Validation/a.jpg", "val"), ("train_cars/test/a.jpg", "test"), ("retrain/a.jpg", ""),
    ],
)  # fmt: skip
def test_splits_that_folders_name(path: str, split: str) -> None:
    assert split_of(path) == split


def test_no_path_of_labels_leaves_the_folder() -> None:
    assert str(posix("..\\..\\etc\\a.jpg")) == "etc/a.jpg"
    assert str(posix("/etc/../a.jpg")) == "etc/a.jpg"


# Formats.


def test_coco(tmp_path: Path) -> None:
    by_column = np.flatnonzero(np.diff(np.r_[0, box_mask(1, 2, 1).T.ravel(), 0])).tolist()
    counts = np.diff([0, *by_column, SIZE[0] * SIZE[1]]).tolist()
    source = coco(
        tmp_path,
        [
            {"segmentation": [BOX, [x + 10 for x in BOX]]},
            {"segmentation": {"size": [*SIZE], "counts": counts}, "category_id": 3},
            {"segmentation": {"size": [*SIZE], "counts": ENCODED}, "iscrowd": 1, "image_id": 1},
            {"bbox": [1, 1, 5, 5]},
            {"segmentation": [BOX], "category_id": 99},
        ],
    )
    made = convert(source, tmp_path / "out")
    assert made.kind == "coco"
    assert made.classes.names == ("background", "rust", "crack")  # by category id
    first = np.maximum(box_mask(2), box_mask(2, 14, 15))  # the second polygon is cut below
    first[1:6, 2:10] = 1
    assert (mask_of(made, "0") == first).all()
    assert (mask_of(made, "1") == 2 * shape_of_coco()).all()
    assert made.objects is None  # two classes
    assert lost(made) == {
        "shapes_unknown": 1, "shapes_of_unknown_class": 1, "shapes_clipped": 1, "crowds": 1,
        "overlapping_pixels": int((first[5:6, 4:10] == 1).sum()),
    }  # fmt: skip
    assert not check(made.out).faults


def test_coco_as_published_keeps_its_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        folder = tmp_path / split
        document = json.loads(coco(folder, [{"segmentation": [BOX]}], 1).read_text())
        picture(tmp_path / f"{split}2017" / "0.jpg", number)
        write(tmp_path / "annotations" / f"instances_{split}2017.json", document)
        captions = {"images": document["images"], "annotations": [{"caption": "a crack"}]}
        write(tmp_path / "annotations" / f"captions_{split}2017.json", captions)
        for path in (folder / "instances.json", folder / "images" / "0.jpg"):
            path.unlink()
    made = convert(tmp_path, tmp_path / "out")
    assert (made.splits, made.drawn) == ({"train": 1, "val": 1}, False)
    assert [path.name for path in sorted(made.out.glob("*/images/*"))] == ["0.jpg", "0-2.jpg"]
    for split in ("train", "val"):
        (copy,) = (made.out / split / "images").iterdir()
        assert copy.read_bytes() == (tmp_path / f"{split}2017" / "0.jpg").read_bytes()
    assert not check(made.out).faults


def labelme(path: Path, shapes: list[dict[str, Any]], size: Any = SIZE, **more: Any) -> Path:
    document = {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{path.stem}.jpg",
        "imageData": None, "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip
    return write(path, document | more)


def points(values: list[float]) -> list[list[float]]:
    return np.reshape(values, (-1, 2)).tolist()


def test_labelme(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.jpg", number)
    encoded = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.bool_)).save(encoded, "PNG")
    labelme(
        tmp_path / "0.json",
        [
            {"label": "crack", "points": points(BOX), "shape_type": "polygon", "group_id": 5},
            {"label": "crack", "points": [[14, 12], [10, 14]], "shape_type": "rectangle",
             "group_id": 5},
            {"label": "crack", "points": [[19, 5], [19, 8]], "shape_type": "circle"},
            {"label": "crack", "points": [[1, 1], [4, 4]], "shape_type": "mask",
             "mask": base64.b64encode(encoded.getvalue()).decode()},
            {"label": "crack", "points": [[1, 1], [4, 4]], "shape_type": "line"},
            {"label": "crack", "points": [[1, 1]], "shape_type": "point"},
            {"label": "_background_", "points": [*points(BOX)[:2], [12, 10]]},
        ],
    )  # fmt: skip
    labelme(tmp_path / "1.json", [])
    labelme(tmp_path / "2.json", [], imagePath="..\\photos\\gone.jpg")
    made = convert(tmp_path, tmp_path / "out")
    expected = box_mask()
    expected[12:14, 10:14] = 1
    expected[1:5, 1:5][np.eye(4, dtype=bool)] = 1
    circle = whole(ellipse(19, 5, 3, 3))
    cut = whole(Polygons((np.array([(4, 5), (12, 5), (12, 10)]),)))
    expected = np.where(cut, 0, expected | circle)
    assert (mask_of(made, "0") == expected).all()
    objects = mask_of(made, "0", "instances")
    assert ((objects > 0) == (expected > 0)).all()
    assert made.objects == len(np.unique(objects)) - 1 == 3
    assert objects[9, 5] == objects[13, 11] != objects[5, 19]  # one group
    assert made.losses.unknown == {"line": 1, "point": 1}
    assert lost(made)["pictures_missing"] == 1
    assert lost(made)["pictures_without_shapes"] == 1
    assert not check(made.out).faults


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><project><labels><label><name>rust</name></label><label><name>Background</name></label>
<label><name>crack</name></label></labels></project></meta>
<image id="0" name="a/0.jpg" subset="Train" width="24" height="18">
  <polygon label="crack" points="4.0,5.0;12.0,5.0;12.0,10.0;4.0,10.0" z_order="1"/>
  <box label="rust" xtl="2" ytl="1" xbr="10" ybr="6" z_order="0"/>
  <polyline label="rust" points="1,1;2,2" z_order="0"/>
</image>
<image id="1" name="b/0.jpg" subset="Validation" width="24" height="18">
  <mask label="crack" rle="1, 2, 3, 2" left="22" top="3" width="4" height="2" z_order="0"/>
  <box label="rust" xtl="30" ytl="1" xbr="40" ybr="6"/>
  <polygon label="rust" points="1,1;2,2"/>
</image></annotations>"""


def test_cvat(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a" / "0.jpg", 0)
    picture(tmp_path / "images" / "b" / "0.jpg", 1)
    write(tmp_path / "annotations.xml", CVAT)
    made = convert(tmp_path, tmp_path / "out")
    assert made.classes.names == ("Background", "rust", "crack")
    assert made.splits == {"train": 1, "val": 1}
    assert not made.drawn
    expected = box_mask(1, 2, 1)
    expected[5:10, 4:12] = 2  # z_order, not the order of the file
    assert (read(made.out / "train/masks/a_0.png") == expected).all()
    other = np.zeros(SIZE, np.uint8)
    other[3, 23] = 2  # rows 0110, 0011 of a mask whose right half is outside
    assert (read(made.out / "val/masks/b_0.png") == other).all()
    assert lost(made) == {
        "overlapping_pixels": 6, "shapes_unknown": 1, "shapes_clipped": 1, "shapes_outside": 1,
        "shapes_degenerate": 1,
    }  # fmt: skip
    assert not check(made.out).faults


def test_yolo(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    write(
        tmp_path / "data.yaml",
        "path: ../datasets/x\ntrain: images/learn\nval: ../images/val\nnames: {0: crack, 1: rust}",
    )
    ring = " ".join(str(v) for v in np.array(points(BOX)).ravel() / ([WIDTH, HEIGHT] * 4))
    for number, (folder, lines) in enumerate(
        [("learn", f"1 {ring}\n7 {ring}\n0 0.5 0.5 0.1 0.1\n\n"), ("learn", None), ("val", "")]
    ):
        picture(tmp_path / "images" / folder / f"{number}.jpg", number)
        if lines is not None:
            write(tmp_path / "labels" / folder / f"{number}.txt", lines)
    made = convert(tmp_path, tmp_path / "out")
    assert made.classes.names == ("background", "crack", "rust")
    assert (made.splits, made.drawn) == ({"train": 2, "val": 1}, False)
    assert (mask_of(made, "0") == box_mask(2)).all()
    assert lost(made) == {
        "shapes_of_unknown_class": 1, "shapes_unknown": 1, "pictures_without_shapes": 2,
    }  # fmt: skip
    assert not check(made.out).faults


def test_labels_of_detection_are_no_data_set(tmp_path: Path) -> None:
    """With plain boxes alone, every pixel would be background."""
    write(tmp_path / "yolo/classes.txt", "crack\n")
    for name in "12":
        picture(tmp_path / f"yolo/images/{name}.png", int(name))
        write(tmp_path / f"yolo/labels/{name}.txt", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(DatasetError, match="labels with an area, found none; .*line 1: box"):
        convert(tmp_path / "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_yolo_with_pictures_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "yolo/classes.txt", "crack\n")
    config = ConvertConfig(images=tmp_path / "photos")
    for number in range(2):
        picture(tmp_path / "photos" / f"{number}.jpg", number)
    with pytest.raises(DatasetError, match="found none for 2 pictures"):
        convert(tmp_path / "yolo", tmp_path / "out", config)
    write(tmp_path / "yolo/labels/1.txt", "0 0 0 0.5 0 0.5 0.5 0 0.5")
    made = convert(tmp_path / "yolo", tmp_path / "out", config)
    assert mask_of(made, "1").sum() == HEIGHT * WIDTH / 4
    assert not mask_of(made, "0").any()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label_colors.txt", "64 128 64\tAnimal\n0 0 192\t\tRoad side\n0 0 0 Void\n"),
        ("class_dict.csv", "name,r,g,b\nAnimal, 64, 128, 64\nRoad side,0,0,192\nVoid,0,0,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nAnimal:64,128,64::\n"
         "Road side:0,0,192::\nVoid:0,0,0::\n"),
        ("colours.json", '{"Animal": [64, 128, 64], "Road side": "#0000C0", "Void": [0, 0, 0]}'),
    ],
)  # fmt: skip
def test_colours(name: str, content: str, tmp_path: Path) -> None:
    palette = write(tmp_path / name, content)
    ids = np.random.default_rng(1).integers(0, 4, SIZE)
    colours = np.array([(64, 128, 64), (0, 0, 192), (0, 0, 0), (1, 2, 3)], np.uint8)
    for number, split in enumerate(("train", "val", "val")):
        picture(tmp_path / split / f"{number}.jpg", number)
        if number < 2:
            (tmp_path / f"{split}_labels").mkdir()
            coloured = Image.fromarray(colours[ids])
            coloured.save(tmp_path / f"{split}_labels" / f"{number}_L.png")
    config = ConvertConfig(palette=palette if name.endswith("json") else None, ignore=("Void",))
    made = convert(tmp_path, tmp_path / "out", config)
    assert made.classes.names == ("Animal", "Road side")
    assert made.classes.palette == ((64, 128, 64), (0, 0, 192))
    assert (mask_of(made, "0") == np.where(ids < 2, ids, 255)).all()
    assert lost(made) == {
        "unknown_colour_pixels": 2 * int((ids == 3).sum()),
        "ignored_pixels": 2 * int((ids == 2).sum()),
        "pictures_without_mask": 1,
    }
    assert not check(made.out).faults


# Turned pictures.


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("as_shown", [True, False])
def test_labels_follow_the_turn_of_their_picture(
    orientation: int, as_shown: bool, tmp_path: Path
) -> None:
    for number in range(2):
        stored = Image.open(picture(tmp_path / f"{number}.jpg", number, orientation))
        shown = ImageOps.exif_transpose(stored)
        size = (shown if as_shown else stored).size[::-1]
        shape = {"label": "crack", "points": points(BOX), "shape_type": "polygon"}
        labelme(tmp_path / f"{number}.json", [shape], size)
    made = convert(tmp_path, tmp_path / "out")
    expected = np.zeros(size, np.uint8)
    expected[5:10, 4:12] = 1
    if not as_shown and orientation > 4:
        turned = Image.fromarray(expected)
        turned.getexif()[0x112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(turned))
    assert (mask_of(made, "0") == expected).all()
    assert made.turned == (2 if not as_shown and orientation > 4 else 0)
    assert not [fault for fault in check(made.out).faults if fault.kind != "turn"]


# A real data set.


def test_nuclei_as_coco_become_the_same_again(nuclei: Path, tmp_path: Path) -> None:
    images, annotations = [], []
    for number, path in enumerate(sorted((nuclei / "val/images").iterdir())[:4]):
        objects = read(nuclei / "val/instances" / f"{path.stem}.png")
        height, width = objects.shape
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        for value in np.unique(objects)[1:]:
            inside = np.r_[False, (objects == value).ravel(order="F"), True]
            ends = np.flatnonzero(np.diff(inside))
            counts = np.diff([0, *ends]).tolist()
            counts += [height * width - sum(counts)]
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": 1,
                "segmentation": {"size": [height, width], "counts": counts},
            })  # fmt: skip
    categories = [{"id": 1, "name": "nucleus"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    source = write(tmp_path / "coco.json", document)
    made = convert(source, tmp_path / "out", ConvertConfig(images=nuclei / "val/images"))
    assert made.objects == len(annotations) > 50
    assert not made.losses.counts
    assert not check(made.out).faults
    for image in images:
        stem = Path(str(image["file_name"])).stem
        expected = read(nuclei / "val/instances" / f"{stem}.png")
        found = mask_of(made, stem, "instances")
        assert (mask_of(made, stem) == (expected > 0)).all()
        pairs = np.unique(np.stack([expected.ravel(), found.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(expected))  # one to one


# Losses and refusals.


def test_pictures_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    source = coco(tmp_path, [{"segmentation": [BOX]}], 5)
    (tmp_path / "images/1.jpg").unlink()
    picture(tmp_path / "images/2.jpg", 2, size=(30, 30))
    (tmp_path / "images/3.jpg").write_bytes(b"")
    made = convert(source, tmp_path / "out", ConvertConfig(val=0.5, seed=3))
    assert sum(made.splits.values()) == 2
    counted = lost(made)
    assert counted.pop("pictures_without_shapes") == 1
    assert counted == {
        "pictures_missing": 1, "pictures_of_another_size": 1, "pictures_unreadable": 1,
    }  # fmt: skip
    assert "30×30" in made.losses.first["pictures_of_another_size"]


def test_a_share_is_drawn_by_seed(tmp_path: Path) -> None:
    source = coco(tmp_path, [{"segmentation": [BOX]}], 10)

    def val(out: str, **config: Any) -> list[str]:
        made = convert(source, tmp_path / out, ConvertConfig(**config))
        assert made.drawn
        return sorted(path.name for path in (made.out / "val/images").iterdir())

    assert len(val("a", val=0.3)) == 3
    assert val("a2", val=0.3) == val("a3", val=0.3) != val("b", val=0.3, seed=1)


def test_objects_hidden_by_later_ones_are_counted(tmp_path: Path) -> None:
    source = coco(tmp_path, [{"segmentation": [BOX]}, {"segmentation": [BOX]}])
    document = json.loads(source.read_text())
    del document["categories"][1]
    made = convert(write(source, document), tmp_path / "out")
    assert lost(made)["shapes_hidden"] == made.objects == 1
    assert lost(made)["overlapping_pixels"] == 40


def test_what_is_not_labelled_can_be_ignored_and_a_test_split_stays(tmp_path: Path) -> None:
    shape = {"segmentation": [BOX]}
    source = coco(tmp_path, [shape, shape | {"category_id": 3, "image_id": 1}], 3)
    source = change(source, lambda d: d["images"][2].update(file_name="test/2.jpg"))
    made = convert(source, tmp_path / "out", ConvertConfig(ignore=("background",)))
    assert made.classes.names == ("rust", "crack")
    assert made.splits == {"train": 1, "val": 1, "test": 1}
    assert (mask_of(made, "0") == np.where(box_mask() == 1, 1, 255)).all()
    assert (mask_of(made, "2") == 255).all()
    with pytest.raises(UsageError, match="--ignore: expected one of the classes background, rust"):
        convert(source, tmp_path / "other", ConvertConfig(ignore=("moss",)))


def change(source: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(source.read_text())
    edit(document)
    return write(source, document)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d.pop("categories"), "expected 'categories' as a list, found None"),
        (lambda d: d["annotations"][0].update(image_id=9), "belongs to image 9"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), "pairs of x and y"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, float("inf")]]), "finite"),
        (lambda d: d["annotations"][0].update(segmentation={"counts": [4], "size": [*SIZE]}),
         "run lengths of 24×18 pixels in all, found 4"),
        (lambda d: d["annotations"][0].update(segmentation={"counts": "x~", "size": [*SIZE]}),
         "expected run lengths"),
        (lambda d: d["annotations"][0].update(segmentation={"counts": [4], "size": [9, 9]}),
         "run lengths for 24×18, found [9, 9]"),
        (lambda d: d["images"][0].update(file_name=None), "expected 'file_name' as a text"),
        (lambda d: d.update(categories=[{"id": n, "name": f"c{n}"} for n in range(255)]),
         "at most 255 classes with the background, found 256: 'c254'"),
        (lambda d: d["categories"][0].update(name=""), "expected a name for each class"),
        (lambda d: d.update(images=d["images"][:1]), "two pictures or more"),
        (lambda d: [each.update(file_name="x.jpg") for each in d["images"]],
         "expected pictures of these labels, found none; pictures not found"),
    ],
)  # fmt: skip
def test_invalid_labels_are_errors(edit: Any, says: str, tmp_path: Path) -> None:
    source = change(coco(tmp_path, [{"segmentation": [BOX]}]), edit)
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out")
    assert says in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("a.xml", "<annotations><image>", "not valid XML"),
        ("a.xml", "<?xml version='1.0' encoding='no'?><annotations/>", "not valid XML"),
        ("a.xml", "<annotations><image name='0.jpg' width='x' height='1'/></annotations>", "'x'"),
        ("a.json", '{"shapes": [{"label": 3}], "imagePath": "0.jpg"}', "'label' as a text"),
        ("a.json", '{"shapes": ', "not valid JSON"),
        ("classes.txt", "crack", "expected `class x y x y …`, found 'crack 1 2'"),
        ("label_colors.txt", "1 2 3 a\n1 2 3 b", "one colour for each class"),
        ("label_colors.txt", "crack", "expected names and colours, found none"),
        ("label_colors.txt", "1 2 3 a\n4 5 b", "line 2: expected a name and a colour"),
    ],
)
def test_invalid_files_are_errors(name: str, content: str, says: str, tmp_path: Path) -> None:
    picture(tmp_path / "images/0.jpg")
    write(tmp_path / "labels/0.txt", "crack 1 2")
    write(tmp_path / name, content)
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path, tmp_path / "out")
    assert says in caught.value.message
    assert name in caught.value.message or "0.txt" in caught.value.message


def test_sources_of_no_known_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected labels of one format, found none"):
        convert(picture(tmp_path / "a/0.jpg").parent, tmp_path / "out")
    with pytest.raises(UsageError, match="a data set that is read as it is"):
        convert(bundled_sample(), tmp_path / "out")
    picture(tmp_path / "b/images/0.jpg")  # without masks it is none
    with pytest.raises(UsageError, match="expected labels of one format, found none"):
        convert(tmp_path / "b", tmp_path / "out")
    write(tmp_path / "a/classes.txt", "crack")
    write(tmp_path / "a/label_colors.txt", "1 2 3 a")
    with pytest.raises(UsageError, match="found yolo .*, colors ") as caught:
        convert(tmp_path / "a", tmp_path / "out")
    assert "--from" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="expected a .json file with images"):
        convert(tmp_path / "a", tmp_path / "out", ConvertConfig(from_="coco"))


def test_the_command(edgeseg: Any, tmp_path: Path) -> None:
    source, out = coco(tmp_path, [{"segmentation": [BOX]}, {"bbox": [1, 2, 3, 4]}]), tmp_path / "o"
    outcome = edgeseg("data", "convert", source, out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["splits"] == {"train": 1, "val": 1}
    keys = "out from classes splits drawn objects turned losses first unknown_shapes"
    assert f"| `data convert` | `{keys}` |" in (DOCS / "json.md").read_text()
    assert list(outcome.document) == keys.split()
    assert outcome.document["losses"]["shapes_unknown"] == 1
    assert edgeseg("data", "check", out).code == 0
    refused = edgeseg("data", "convert", source, out, "--json")
    assert refused.code == 2
    assert "already exists" in refused.document["error"]["message"]
    (out / "train/masks/stale.png").write_bytes(b"")
    again = edgeseg("data", "convert", source, out, "--overwrite")
    assert again.code == 0, again.err
    assert "shapes without an area (points, lines, plain boxes), left out: 1 (first:" in again.out
    assert not (out / "train/masks/stale.png").exists()
    write(out / "notes.txt", "mine")
    kept = edgeseg("data", "convert", source, out, "--overwrite")
    assert (kept.code, (out / "notes.txt").read_text()) == (2, "mine")
    above = edgeseg("data", "convert", source, tmp_path, "--overwrite")
    assert above.code == 2
    assert "contains" in above.err
    assert source.exists()
