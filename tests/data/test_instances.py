"""Objects → classes: the rules pixel by pixel, and what they are for on real nuclei."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.folders import bundled_sample, load_instances, load_sample, read_split
from edgeseg.data.instances import class_mask, with_boundary
from edgeseg.data.sample import Sample
from edgeseg.errors import DatasetError, UsageError
from edgeseg.options.training import Touching

TWO = ClassMap.model_validate({"names": ["background", "nucleus"]})
THREE = with_boundary(TWO)


def pixel_by_pixel(ids: NDArray[np.int32], classes: ClassMap, touching: str) -> NDArray[np.uint8]:
    """The rules as the docstring words them."""
    height, width = ids.shape

    def neighbours(row: int, column: int, of: NDArray[np.int32]) -> list[int]:
        return [
            int(of[y, x])
            for y, x in product(range(row - 1, row + 2), range(column - 1, column + 2))
            if 0 <= y < height and 0 <= x < width and (y, x) != (row, column)
        ]

    def everywhere() -> Iterator[tuple[int, int]]:
        return product(range(height), range(width))  # type: ignore[return-value]

    parted = ids.copy()
    if touching == "gap":
        for row, column in everywhere():
            own = ids[row, column]
            if own and any(n not in (0, own) for n in neighbours(row, column, ids)):
                parted[row, column] = 0
    mask = (parted > 0).astype(np.uint8)
    if len(classes) == 3:
        for row, column in everywhere():
            own = parted[row, column]
            if own and any(n != own for n in neighbours(row, column, parted)):
                mask[row, column] = 2
    return mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    coarse=st.integers(1, 4),
    classes=st.sampled_from([TWO, THREE]),
    touching=st.sampled_from(["merged", "gap"]),
)
def test_the_rules(
    seed: int, shape: tuple[int, int], coarse: int, classes: ClassMap, touching: Touching
) -> None:
    blocks = np.random.default_rng(seed).integers(0, 4, shape) * 30_000_000
    ids = np.kron(blocks, np.ones((coarse, coarse), np.int32)).astype(np.int32)
    found = class_mask(ids, classes, touching)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixel_by_pixel(ids, classes, touching))


def test_objects_are_what_is_not_the_background() -> None:
    ids = np.array([[0, 7], [9, 0]], np.int32)
    for names, expected in (
        (("background", "nucleus"), [[0, 1], [1, 0]]),
        (("nucleus", "background"), [[1, 0], [0, 1]]),
        (("cell", "background", "boundary"), [[1, 2], [2, 1]]),
        (("a", "b"), [[0, 1], [1, 0]]),
    ):
        classes = ClassMap.model_validate({"names": names})
        assert class_mask(ids, classes).tolist() == expected


def components_that_join(mask: NDArray[np.uint8], ids: NDArray[np.int32]) -> int:
    count, labels = cv2.connectedComponents((mask == 1).astype(np.uint8), connectivity=8)
    return sum(len(np.unique(ids[labels == part])) > 1 for part in range(1, count))


@pytest.mark.parametrize(("classes", "touching"), [(TWO, "gap"), (THREE, "merged")])
def test_components_of_real_nuclei_stay_apart(classes: ClassMap, touching: Touching) -> None:
    joined = {"before": 0, "after": 0}
    for sample in read_split(bundled_sample(), "val"):
        ids = load_instances(sample)
        joined["before"] += components_that_join(class_mask(ids, TWO), ids)
        joined["after"] += components_that_join(class_mask(ids, classes, touching), ids)
    assert joined["before"] > 0, "without nuclei that touch this shows nothing"
    assert joined["after"] == 0


def test_boundary_is_added_once_behind_two_classes() -> None:
    assert THREE.names == ("background", "nucleus", "boundary")
    assert len(set(THREE.palette)) == 3
    assert with_boundary(THREE) is THREE
    assert THREE.has_boundary
    assert not TWO.has_boundary
    own = ClassMap(names=("a", "b"), palette=((0, 0, 0), (230, 159, 0)), ignore=7)
    assert with_boundary(own).ignore == 7
    assert len(set(with_boundary(own).palette)) == 3


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["a", "b", "c"]},
        {"names": ["a", "b"], "ignore": 2},
        {"names": ["boundary", "b", "c"]},
    ],
)
def test_what_cannot_have_a_boundary(classes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="a boundary class goes with"):
        with_boundary(ClassMap.model_validate(classes))


def test_asking_for_a_boundary_that_the_classes_do_not_have() -> None:
    ids = np.ones((3, 3), np.int32)
    with pytest.raises(UsageError, match="needs a third class 'boundary'"):
        class_mask(ids, TWO, "boundary")
    assert class_mask(ids, THREE, "boundary").tolist() == [[1] * 3] * 3


def write(path: Path, array: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def test_a_card_with_a_boundary_gets_one_from_the_objects(tmp_path: Path) -> None:
    ids = np.zeros((8, 8), np.uint16)
    ids[1:6, 1:6] = 40_000
    sample = Sample(
        write(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8)),
        instances=write(tmp_path / "ids.png", ids),
    )
    assert load_instances(sample).dtype == np.int32
    assert load_instances(sample).max() == 40_000
    assert np.unique(load_sample(sample, TWO)[1]).tolist() == [0, 1]
    mask = load_sample(sample, THREE)[1]
    assert (mask[2:5, 2:5] == 1).all()
    assert (mask == 2).sum() == 25 - 9


def test_classes_come_from_masks_and_objects_from_instances(tmp_path: Path) -> None:
    mask, ids = np.array([[0, 1, 2, 255]], np.uint8), np.array([[0, 5, 6, 7]], np.uint16)
    write(tmp_path / "images/a.png", np.zeros((1, 4, 3), np.uint8))
    write(tmp_path / "masks/a.png", mask)
    write(tmp_path / "instances/a.png", ids)
    split = read_split(tmp_path, "")
    assert len(split.classes) == 3
    assert np.array_equal(load_sample(split.samples[0], split.classes)[1], mask)
    assert np.array_equal(load_instances(split.samples[0]), ids)
    write(tmp_path / "instances/a.png", ids.T)
    with pytest.raises(DatasetError, match="expected the size of its mask 4×1, found 1×4"):
        load_instances(split.samples[0])
    (tmp_path / "instances/a.png").unlink()
    with pytest.raises(DatasetError, match=r"instances/a\.png, found none"):
        read_split(tmp_path, "")
