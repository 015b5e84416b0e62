"""The weight map of the U-Net paper against its formula, written out pixel by pixel."""

import math
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.data.folders import bundled_sample, load_instances, read_split
from edgeseg.data.instances import border_weights


def by_the_formula(instances: NDArray[np.int32], w0: float, sigma: float) -> NDArray[np.float64]:
    """Equation 2 without its class balance: every distance to every pixel of every object."""
    weights = np.zeros(instances.shape)
    objects = [np.argwhere(instances == label) for label in np.unique(instances[instances != 0])]
    if len(objects) < 2:
        return weights
    for row, column in product(*map(range, instances.shape)):
        if instances[row, column] == 0:
            distances = sorted(
                min(math.dist((row, column), pixel) for pixel in pixels) for pixels in objects
            )
            weights[row, column] = w0 * math.exp(-(sum(distances[:2]) ** 2) / (2 * sigma**2))
    return weights


def discs(count: int, size: int, radius: int, seed: int) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    picture = np.zeros((size, size), np.int32)
    for label in rng.permutation(count) + 1:
        centre = rng.integers(0, size, 2).tolist()
        cv2.circle(picture, centre, radius, int(label) * 300, -1)
    return picture


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    objects=st.integers(0, 5),
    filled=st.floats(0.02, 0.7),
    sigma=st.sampled_from([0.7, 2.0, 5.0, 30.0]),
    w0=st.sampled_from([1.0, 10.0]),
)
def test_it_is_the_formula(
    seed: int, shape: tuple[int, int], objects: int, filled: float, sigma: float, w0: float
) -> None:
    """Objects in scattered parts, ids with gaps, pictures of one row: nothing is assumed."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, objects, shape, endpoint=True) * 7 * (rng.random(shape) < filled)
    found = border_weights(ids.astype(np.int32), w0, sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_the_formula(ids, w0, sigma), rtol=1e-5, atol=1e-6 * w0)


def test_objects_out_of_each_others_reach_are_cut_off_where_it_is_said() -> None:
    """Two pixels far apart: the cropped windows must still hold every weight that counts."""
    for gap in range(2, 40):
        ids = np.zeros((9, 48), np.int32)
        ids[4, 2], ids[4, 2 + gap] = 1, 2
        expected = by_the_formula(ids, 10, 5)
        found = border_weights(ids)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert (found[expected > 1.01e-5] > 0).all()


def test_a_nucleus_picture_weighs_most_between_nuclei() -> None:
    sample = max(
        read_split(bundled_sample(), "val").samples, key=lambda s: int(load_instances(s).max())
    )
    ids = load_instances(sample)
    weights = border_weights(ids)
    assert weights.shape == ids.shape
    assert (weights[ids > 0] == 0).all()
    assert 0 < weights.max() <= 10
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    around = ids[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    assert len(np.unique(around[around > 0])) >= 2


@pytest.mark.parametrize("objects", [0, 1])
def test_fewer_than_two_objects_have_no_border(objects: int) -> None:
    ids = np.zeros((20, 20), np.int32)
    ids[:objects, :objects] = objects
    assert not border_weights(ids).any()


def test_the_paper_has_no_more_than_w0() -> None:
    ids = discs(30, 96, 6, seed=0)
    weights = border_weights(ids, w0=10, sigma=5)
    # Objects one pixel apart: d1 = d2 = 1.
    assert weights.max() == pytest.approx(10 * math.exp(-4 / 50), rel=1e-5)
    np.testing.assert_allclose(border_weights(ids.astype(np.uint16)), weights, rtol=1e-5)
