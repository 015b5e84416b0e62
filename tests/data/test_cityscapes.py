"""Cityscapes read from files as they are published: cities, endings, label ids → train ids."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.data import cityscapes
from edgeseg.data.folders import load_sample, read_split
from edgeseg.errors import DatasetError

# Train id of label id 0, 1, 2, … 33 as helpers/labels.py lists them, 255 for not trained.
TRAIN_IDS = [
    *(255, 255, 255, 255, 255, 255, 255),  # unlabeled, ego vehicle, …, ground
    *(0, 1, 255, 255),  # road, sidewalk, parking, rail track
    *(2, 3, 4, 255, 255, 255),  # building, wall, fence, guard rail, bridge, tunnel
    *(5, 255, 6, 7),  # pole, polegroup, traffic light, traffic sign
    *(8, 9, 10),  # vegetation, terrain, sky
    *(11, 12),  # person, rider
    *(13, 14, 15, 255, 255, 16, 17, 18),  # car, truck, bus, caravan, trailer, train, …
]
ALL_LABELS = np.tile(np.arange(34, dtype=np.uint8), (4, 1))


def frame(root: Path, split: str, name: str, labels: NDArray[np.uint8] = ALL_LABELS) -> None:
    """One frame with the files that the data set has of it."""
    city = name.partition("_")[0]
    pictures, truth = (root / part / split / city for part in ("leftImg8bit", "gtFine"))
    for folder in (pictures, truth):
        folder.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((*labels.shape, 3), np.uint8)
    assert cv2.imwrite(str(pictures / f"{name}_leftImg8bit.png"), picture)
    assert cv2.imwrite(str(truth / f"{name}_gtFine_labelIds.png"), labels)
    assert cv2.imwrite(str(truth / f"{name}_gtFine_instanceIds.png"), labels.astype(np.uint16))
    assert cv2.imwrite(str(truth / f"{name}_gtFine_color.png"), picture)
    (truth / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    frame(tmp_path, "train", "aachen_000000_000019")
    frame(tmp_path, "train", "bochum_000000_000313")
    frame(tmp_path, "val", "lindau_000000_000019")
    return tmp_path


def test_cities_of_a_split_and_the_nineteen_classes(root: Path) -> None:
    split = read_split(root, "train")
    assert [sample.image.name for sample in split] == [
        "aachen_000000_000019_leftImg8bit.png",
        "bochum_000000_000313_leftImg8bit.png",
    ]
    assert split.declared
    assert len(split.classes) == 19
    table = dict(zip(split.classes.names, split.classes.palette, strict=True))
    assert table["road"] == (128, 64, 128)
    assert table["car"] == (0, 0, 142)
    assert table["bicycle"] == (119, 11, 32)
    with pytest.raises(DatasetError, match="expected the split 'test', found train, val"):
        read_split(root, "test")


def test_label_ids_become_train_ids(root: Path) -> None:
    split = read_split(root, "val")
    image, mask = load_sample(split.samples[0], split.classes)
    assert image.shape == (4, 34, 3)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [TRAIN_IDS] * 4
    assert list(cityscapes.train_ids()) == TRAIN_IDS


def test_a_label_id_that_is_none(root: Path) -> None:
    frame(root, "val", "lindau_000000_000019", np.full((4, 34), 34, np.uint8))
    split = read_split(root, "val")
    with pytest.raises(DatasetError, match="expected ids below 34, found 34"):
        load_sample(split.samples[0], split.classes)


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("gtFine/train/bochum/bochum_000000_000313_gtFine_labelIds.png", "expected its labels"),
        ("leftImg8bit/train/bochum/bochum_000000_000313_leftImg8bit.png", "expected its picture"),
    ],
)
def test_a_file_that_is_missing(root: Path, gone: str, reason: str) -> None:
    (root / gone).unlink()
    with pytest.raises(DatasetError, match=rf"bochum_000000_000313.*{reason}"):
        read_split(root, "train")
