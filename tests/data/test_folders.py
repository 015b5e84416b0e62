"""Folders of pictures and masks: what is read, and what is refused with which words."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.folders import bundled_sample, list_images, load_sample, read_split
from edgeseg.errors import CorruptArtifact, DatasetError, UsageError


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of two pictures with masks 0, 1, 2 and 255."""
    mask = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    for split in ("train", "val"):
        for name in ("a.jpg", "b.png"):
            write(tmp_path / split / "images" / name, np.zeros((3, 4, 3), np.uint8))
            write((tmp_path / split / "masks" / name).with_suffix(".png"), mask)
    return tmp_path


def test_pairs_by_name_and_infers_classes(root: Path) -> None:
    split = read_split(root, "val")
    assert [sample.image.name for sample in split] == ["a.jpg", "b.png"]
    assert [sample.mask.name for sample in split] == ["a.png", "b.png"]
    assert split.classes.names == ("class_0", "class_1", "class_2")
    assert not split.declared
    image, mask = load_sample(split.samples[0], split.classes)
    assert image.shape == (3, 4, 3)
    assert sorted(np.unique(mask)) == [0, 1, 2, 255]


def test_classes_agree_between_splits(root: Path) -> None:
    write(root / "val" / "masks" / "a.png", np.zeros((3, 4), np.uint8))
    write(root / "val" / "masks" / "b.png", np.zeros((3, 4), np.uint8))
    assert read_split(root, "val").classes == read_split(root, "train").classes


def test_declared_classes(root: Path) -> None:
    (root / "classes.json").write_text('{"names": ["sky", "road", "car"]}')
    split = read_split(root, "train")
    assert split.declared
    assert split.classes.names == ("sky", "road", "car")
    (root / "classes.json").write_text('{"names": ["sky"], "pallete": []}')
    with pytest.raises(CorruptArtifact, match=r"classes\.json"):
        read_split(root, "train")


def test_a_root_without_splits(root: Path) -> None:
    split = read_split(root / "val", "anything")
    assert (split.name, len(split)) == ("", 2)


def test_instances_become_one_class(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 256, 40_000]], np.uint16)
    write(tmp_path / "images" / "a.png", np.zeros((1, 4, 3), np.uint8))
    write(tmp_path / "instances" / "a.png", ids)
    split = read_split(tmp_path, "")
    assert len(split.classes) == 2
    assert load_sample(split.samples[0], split.classes)[1].tolist() == [[0, 1, 1, 1]]


def _remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def _mask(value: int, size: tuple[int, int] = (3, 4)) -> Callable[[Path], None]:
    return lambda root: write(root / "val/masks/a.png", np.full(size, value, np.uint8))


def _empty(root: Path) -> None:
    for part in ("images", "masks"):
        for path in (root / "val" / part).iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_remove("val/masks/b.png"), r"b\.png: expected its mask"),
        (_remove("val/images/a.jpg"), r"a\.png: expected its picture"),
        (_empty, "images: expected pictures, found none"),
        (lambda root: write(root / "val/images/a.png", np.zeros((3, 4))), "one file named a"),
        (_mask(7), r"a\.png: expected ids 0…2 or 255 \(ignore\), found 7 in 12 pixels"),
        (_mask(1, (4, 3)), r"a\.png: expected the size of its picture 4×3, found 3×4"),
    ],
)
def test_defects_are_named(root: Path, break_it: Callable[[Path], None], reason: str) -> None:
    (root / "classes.json").write_text('{"names": ["sky", "road", "car"]}')

    def read_all() -> None:
        split = read_split(root, "val")
        for sample in split:
            load_sample(sample, split.classes)

    read_all()
    break_it(root)
    with pytest.raises(DatasetError, match=reason):
        read_all()


def test_masks_of_0_and_255_say_what_to_do(root: Path) -> None:
    for path in root.glob("*/masks/*.png"):
        write(path, np.array([[0, 255, 0, 255]] * 3, np.uint8))
    with pytest.raises(DatasetError, match="only 0 and perhaps 255") as caught:
        read_split(root, "val")
    assert "write 1 for 255" in (caught.value.hint or "")


def test_missing_folders(root: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_split(root / "nowhere", "val")
    with pytest.raises(DatasetError, match="expected the split 'test', found train, val"):
        read_split(root, "test")
    (root / "bare" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="masks or instances"):
        read_split(root / "bare", "")


def test_list_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = root / "val" / "images"
    (images / "notes.txt").write_text("x")
    (images / ".hidden.png").write_bytes(b"x")
    both = [images / "a.jpg", images / "b.png"]
    assert list_images(images) == both
    assert list_images(images / "*") == both
    assert list_images(images / "*.png") == both[1:]
    assert list_images(both[0]) == both[:1]
    monkeypatch.chdir(images)
    assert list_images(Path("*.jpg")) == [Path("a.jpg")]
    for nothing, why in (("nowhere", "no such file"), ("images/*.webp", "no picture there")):
        with pytest.raises(UsageError, match=why):
            list_images(root / nothing)
    with pytest.raises(UsageError, match="no picture there, among train"):
        list_images(root)


@pytest.mark.parametrize(("name", "count"), [("train", 46), ("val", 14)])
def test_the_bundled_sample_is_sound(name: str, count: int) -> None:
    split = read_split(bundled_sample(), name)
    assert len(split) == count
    assert split.classes.names == ("background", "nucleus")
    for sample in split:
        image, mask = load_sample(sample, split.classes)
        assert 0 < mask.mean() < 0.6
        assert image.any()


def test_no_bundled_picture_is_in_both_splits() -> None:
    splits = [read_split(bundled_sample(), name) for name in ("train", "val")]
    names = [{sample.image.read_bytes() for sample in split} for split in splits]
    assert not names[0] & names[1]
