"""Regions of label maps against SciPy's labelling."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from edgeseg.ops.regions import Region, regions


def labelled_by_scipy(
    mask: NDArray[np.uint8], num_classes: int, min_area: int, background: int | None
) -> list[Region]:
    """Each class by itself, each region from the positions of its pixels."""
    found = []
    for label in {*range(num_classes)} - {background}:
        parts, count = ndimage.label(mask == label, np.ones((3, 3)))
        for number in range(1, count + 1):
            rows, columns = np.nonzero(parts == number)
            x, y = int(columns.min()), int(rows.min())
            box = (x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y)
            centre = (int(columns.sum()) / len(rows), int(rows.sum()) / len(rows))
            found.append(Region(label, len(rows), box, centre))
    return [region for region in found if region.area >= min_area]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    density=st.floats(0.2, 1),
    min_area=st.integers(1, 9),
    background=st.sampled_from([None, 0, 1]),
)
def test_regions_are_those_of_scipy(
    seed: int, size: tuple[int, int], density: float, min_area: int, background: int | None
) -> None:
    random = np.random.default_rng(seed)
    values = random.choice([1, 2, 3, 255], size)
    mask = np.where(random.random(size) < density, values, 0).astype(np.uint8)
    found = regions(mask, 3, min_area, background)
    assert [region.area for region in found] == sorted((each.area for each in found), reverse=True)
    assert sorted(found, key=repr) == sorted(
        labelled_by_scipy(mask, 3, min_area, background), key=repr
    )


def test_the_largest_comes_first_and_small_ones_are_left_out() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[0, 0], mask[2:4, 2:4], mask[6:9, 6:9] = 1, 2, 1
    assert [(found.label, found.area) for found in regions(mask, 3, background=0)] == [
        (1, 9),
        (2, 4),
        (1, 1),
    ]
    assert [found.area for found in regions(mask, 3, 4, background=0)] == [9, 4]
    assert regions(mask, 3, background=0)[1] == Region(2, 4, (2, 2, 2, 2), (2.5, 2.5))


def test_nothing_but_background_and_ignored_pixels() -> None:
    mask = np.zeros((4, 4), np.uint8)
    assert regions(mask, 3, background=0) == []
    mask[1] = 255
    mask[2] = 3
    assert regions(mask, 3, background=0) == []
