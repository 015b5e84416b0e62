"""PASCAL VOC read from files as its kit lays them out."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeseg.data import voc
from edgeseg.data.check import check
from edgeseg.data.folders import load_sample, read_split
from edgeseg.errors import DatasetError

RNG = np.random.default_rng(0)
# From the kit's own table of classes and colours, not from our formula.
COLOURS = {
    "background": (0, 0, 0),
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "boat": (0, 0, 128),
    "cat": (64, 0, 0),
    "person": (192, 128, 128),
    "pottedplant": (0, 64, 0),
    "tvmonitor": (0, 64, 128),
}


def palette_png(path: Path, ids: NDArray[np.uint8]) -> None:
    image = Image.fromarray(ids).convert("P")
    image.putpalette([channel for index in range(256) for channel in voc.colour(index)])
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, two of them in ``train``, with masks of all 21 classes and void."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("2007_000032", "2007_000039", "2008_000001"):
        picture = RNG.integers(0, 256, (12, 22, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        row = np.array([*range(21), 255], np.uint8)
        palette_png(tmp_path / "SegmentationClass" / f"{name}.png", np.tile(row, (12, 1)))
    # A picture of another challenge, without a mask.
    Image.fromarray(picture).save(tmp_path / "JPEGImages" / "2012_999999.jpg")
    (lists / "train.txt").write_text("2007_000039\n2007_000032\n")
    (lists / "val.txt").write_text("2008_000001 \n\n")
    (lists / "trainval.txt").write_text("2007_000032\n2007_000039\n2008_000001\n")
    return tmp_path


def test_names_and_colours_are_those_of_the_kit() -> None:
    table = dict(zip(voc.CLASSES.names, voc.CLASSES.palette, strict=True))
    assert len(table) == 21
    assert {name: table[name] for name in COLOURS} == COLOURS
    assert voc.colour(255) == (224, 224, 192), "the cream of void"
    assert voc.CLASSES.names.index("person") == 15


def test_splits_follow_the_lists(root: Path) -> None:
    for name, stems in {
        "train": ["2007_000032", "2007_000039"],
        "val": ["2008_000001"],
        "trainval": ["2007_000032", "2007_000039", "2008_000001"],
    }.items():
        split = read_split(root, name)
        assert [sample.image.stem for sample in split] == stems
        assert split.name == name
        assert split.classes == voc.CLASSES
        assert split.declared
    with pytest.raises(DatasetError, match="expected the split 'test', found train, val, trainval"):
        read_split(root, "test")


def test_palette_indices_and_void_are_kept(root: Path) -> None:
    split = read_split(root, "val")
    image, mask = load_sample(split.samples[0], split.classes)
    assert image.shape == (12, 22, 3)
    assert np.unique(mask).tolist() == [*range(21), 255]
    assert mask[3, 20] == 20


def test_own_classes_in_the_layout_of_voc(root: Path) -> None:
    (root / "classes.json").write_text('{"names": ["floor", "crack"]}')
    split = read_split(root, "val")
    assert split.classes.names == ("floor", "crack")
    with pytest.raises(DatasetError, match=r"expected ids 0…1 or 255"):
        load_sample(split.samples[0], split.classes)


@pytest.mark.parametrize(
    "gone", ["JPEGImages/2007_000032.jpg", "SegmentationClass/2007_000032.png"]
)
def test_a_listed_file_that_is_missing(root: Path, gone: str) -> None:
    (root / gone).unlink()
    with pytest.raises(DatasetError, match=rf"2007_000032 is listed, and .*{gone} is missing"):
        read_split(root, "train")
    assert len(read_split(root, "val")) == 1


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_list_that_is_none(root: Path, content: bytes) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=r"val\.txt: expected"):
        read_split(root, "val")


def test_pictures_of_any_kind_and_lists_of_other_names(root: Path) -> None:
    for path in list((root / "JPEGImages").iterdir()):
        Image.open(path).save(path.with_suffix(".PNG"), "PNG")
        path.unlink()
    lists = root / "ImageSets/Segmentation"
    (lists / "val.txt").rename(lists / "validation.txt")
    assert len(read_split(root, "train")) == 2
    assert len(read_split(root, "validation")) == 1
    with pytest.raises(DatasetError, match="found train, trainval, validation") as caught:
        read_split(root, "val")
    assert "rename" in str(caught.value.hint)
    messages = [fault.message for fault in check(root).faults if fault.kind == "split"]
    assert messages == ["expected the split 'val', found train, trainval, validation"]


@pytest.mark.parametrize("folder", ["Main", "."])
def test_lists_in_other_folders(root: Path, folder: str) -> None:
    lists = root / "ImageSets"
    (lists / folder).mkdir(exist_ok=True)
    for path in list((lists / "Segmentation").iterdir()):
        path.rename(lists / folder / path.name)
    assert len(read_split(root, "trainval")) == 3


def test_a_list_without_masks_is_no_split(root: Path) -> None:
    """As ``test`` was published."""
    (root / "ImageSets/Segmentation/test.txt").write_text("2012_999999\n")
    with pytest.raises(DatasetError, match="expected the split 'test', found train, val, trainval"):
        read_split(root, "test")


def test_entries_with_mark_suffix_label_or_accent(root: Path) -> None:
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        file = root / folder / f"2007_000039{suffix}"
        file.rename(file.with_name(f"cafe\u0301 au lait{suffix}"))
    lines = "2007_000032.jpg\ncaf\u00e9 au lait\n2008_000001  1\n"
    (root / "ImageSets/Segmentation/train.txt").write_text(lines, "utf-8-sig")
    names = [sample.image.stem for sample in read_split(root, "train")]
    assert names == ["2007_000032", "2008_000001", "cafe\u0301 au lait"]
