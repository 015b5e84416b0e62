"""Obscured regions against dilation by SciPy, and how little of them is left."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from edgeseg.ops.obscure import BLOCKS, SEPARATE, cover, obscure
from edgeseg.ops.preprocess import nearest

Style = Literal["blur", "pixelate"]
STYLES: tuple[Style, ...] = ("blur", "pixelate")


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    density=st.sampled_from([0.001, 0.02, 0.5]),
    mask_size=st.tuples(st.integers(8, 150), st.integers(8, 60)),
    size=st.tuples(st.integers(5, 90), st.integers(5, 90)),
    margin=st.integers(0, 9),
)
def test_all_within_the_margin_and_nothing_beyond_it_changes(
    seed: int, density: float, mask_size: tuple[int, int], size: tuple[int, int], margin: int
) -> None:
    mask = (np.random.default_rng(seed).random(mask_size) < density).astype(np.uint8)
    picture = noise(*size, 3, seed=seed)
    obscured = picture.copy()
    obscure(obscured, mask, STYLES[seed % 2], margin)
    changed = (obscured != picture).any(axis=2)
    inside = nearest(mask, size) > 0
    # A pixel of noise equals an average in three channels once in 16 million times.
    assert np.count_nonzero(_dilated(inside, margin) & ~changed) <= 1
    # Rounded up to pixels of the mask, which may begin anywhere.
    pixel = max(-(-large // small) for large, small in zip(size, mask_size, strict=True))
    if size[0] >= mask_size[0] and size[1] >= mask_size[1]:
        assert not changed[~_dilated(inside, margin and margin + 2 * pixel)].any()


def _dilated(inside: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    square = np.ones([2 * margin + 1] * 2)
    return np.asarray(ndimage.binary_dilation(inside, square), np.bool_)


@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_of_a_region_a_few_averages_are_left(size: tuple[int, int]) -> None:
    mask = np.zeros((500, 500), np.uint8)
    mask[20 : 20 + size[0], 30 : 30 + size[1]] = 1
    pixelated, blurred = (noise(500, 500) for _ in STYLES)
    obscure(pixelated, mask, "pixelate")
    obscure(blurred, mask, "blur")
    region = mask > 0
    assert 1 < len(np.unique(pixelated[region])) <= BLOCKS**2
    # What is interpolated between four by four values is a matrix of rank four, but for rounding.
    shown = blurred[region].reshape(size)
    strengths = np.linalg.svd(shown.astype(float), compute_uv=False)
    rounding = sum(np.sqrt(size))
    assert strengths[BLOCKS] < rounding
    raw = np.linalg.svd(noise(500, 500)[region].reshape(size).astype(float), compute_uv=False)
    assert raw[BLOCKS] > 5 * rounding


def test_a_single_pixel_is_averaged_with_those_around_it() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[0, 31] = 1
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[0, 31] = 255
    obscure(picture, mask, "pixelate")
    assert picture.max() <= 255 / 64 + 1


def test_many_small_regions_are_obscured_like_a_few() -> None:
    mask = np.zeros((256, 512), np.uint8)
    mask[4::12, 4::12] = 1
    assert np.count_nonzero(mask) > SEPARATE
    picture = noise(256, 512, 3)
    obscured = picture.copy()
    obscure(obscured, mask, "blur")
    assert np.array_equal((obscured != picture).any(2), mask > 0)


def test_covering_is_exact_and_works_in_part_of_a_picture() -> None:
    picture = noise(20, 30, 3) | 1
    before, part = picture.copy(), picture[5:15, 10:25]
    mask = (noise(10, 15) > 99).astype(np.uint8)
    cover(part, mask)
    assert np.array_equal(part.any(2), mask == 0)
    picture[5:15, 10:25] = before[5:15, 10:25]
    assert np.array_equal(picture, before)
    cover(part)
    assert not part.any()
    assert picture[0].all()
