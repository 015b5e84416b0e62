"""Argmax at the network's size and at the picture's: NumPy, OpenCV and arithmetic agree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops import argmax as subject
from edgeseg.ops.argmax import (
    argmax,
    argmax_upsampled,
    upsampled_native,
    upsampled_reference,
)
from edgeseg.ops.native import kernels
from edgeseg.ops.preprocess import placement_of

LEVELS = [] if kernels is None else kernels.levels()
needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)
TWINS = [
    pytest.param(upsampled_reference, id="reference"),
    pytest.param(upsampled_native, id="native", marks=needs_native),
]
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, 6e-8, 65504.0]
DTYPES = [np.float32, np.float16, np.int8]


@st.composite
def scores(draw: st.DrawFn, dtype: type) -> NDArray[np.generic]:
    """Logits with many ties, NaNs and infinities, in any memory layout."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 30)), draw(st.integers(1, 90)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if dtype == np.int8:
        logits = rng.integers(-128, 128, shape).astype(np.int8)
    else:
        logits = rng.standard_normal(shape).astype(dtype)
        odd = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.9]))
        logits[odd] = rng.choice(SPECIAL, shape)[odd].astype(dtype)
    if draw(st.booleans()):  # ties
        logits = logits[rng.integers(0, shape[0], shape[0])]
    layout = draw(st.sampled_from(["packed", "fortran", "steps", "flip"]))
    if layout == "fortran":
        logits = np.asfortranarray(logits)
    elif layout == "steps":
        logits = logits[:, ::2, ::3]
    elif layout == "flip":
        logits = logits[:, ::-1]
    logits.flags.writeable = False
    return logits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=100)
@given(data=st.data(), threads=st.integers(1, 3))
def test_kernel_is_numpys_argmax(using, level: str, dtype: type, data, threads: int) -> None:
    logits = data.draw(scores(dtype))
    with using(level):
        found = argmax(logits, threads=threads)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.argmax(logits, axis=0))


@pytest.mark.parametrize("level", LEVELS)
def test_every_half_against_every_other_special_one(using, level: str) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    with using(level):
        for value in SPECIAL:
            other = np.full_like(every, value)
            for pair in (np.stack([every, other]), np.stack([other, every])):
                np.testing.assert_array_equal(argmax(pair), np.argmax(pair, axis=0))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_length_up_to_a_few_vectors_and_beyond_a_block(using, level: str, dtype) -> None:
    rng = np.random.default_rng(0)
    with using(level):
        for pixels in (*range(1, 300), 1999, 2000, 4095, 4096, 4097, 8193):
            logits = rng.integers(-9, 9, (5, 1, pixels)).astype(dtype)
            np.testing.assert_array_equal(argmax(logits, threads=2), np.argmax(logits, axis=0))


def test_all_256_classes_are_told_apart_and_a_257th_is_refused() -> None:
    eye = np.eye(256, dtype=np.float32)[:, np.newaxis]
    assert argmax(eye)[0].tolist() == list(range(256))
    assert argmax(eye.astype(np.int8))[0].tolist() == list(range(256))
    with pytest.raises(UsageError, match="256 classes"):
        argmax(np.zeros((257, 2, 2), np.float32))


@pytest.mark.parametrize("native", [False, True])
def test_batches_and_out(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    if not native:
        monkeypatch.setattr(subject, "kernels", None)
    logits = np.random.default_rng(1).standard_normal((3, 4, 5, 6)).astype(np.float32)
    expected = np.argmax(logits, axis=1)
    np.testing.assert_array_equal(argmax(logits), expected)
    out = np.zeros((3, 5, 6), np.uint8)
    assert argmax(logits, out) is out
    np.testing.assert_array_equal(out, expected)
    for unfit in (
        out[:2],
        out.astype(np.int64),
        out[..., ::-1],
        np.broadcast_to(out[0], (3, 5, 6)),
    ):
        with pytest.raises(UsageError, match="out must be"):
            argmax(logits, unfit)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((2, 3, 4), np.float64),
        np.zeros((2, 3, 4), np.int32),
        np.zeros((3, 4), np.float32),
        np.zeros((1, 1, 2, 3, 4), np.float32),
        np.zeros((2, 0, 4), np.float32),
        np.zeros((0, 3, 4), np.float32),
    ],
)
def test_what_are_no_logits_is_refused(logits) -> None:
    with pytest.raises(UsageError, match="logits are float32"):
        argmax(logits)
    with pytest.raises(UsageError, match="logits are float32"):
        argmax_upsampled(logits, (10, 10), InputSpec(height=8, width=8))


def regions(seed: int, classes: int, height: int, width: int) -> NDArray[np.float32]:
    """Logits as of a network that is sure within regions and unsure at their edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((classes, height // 8 + 2, width // 8 + 2)).astype(np.float32)
    return np.stack([cv2.resize(plane, (width, height)) for plane in coarse])


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    target=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    threads=st.integers(1, 3),
)
def test_upsampling_twins_give_the_same_classes(using, level, data, target, threads) -> None:
    if data.draw(st.booleans()):
        logits = data.draw(scores(np.float32))
    else:
        size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
        logits = regions(data.draw(st.integers(0, 99)), 5, *size)
    with np.errstate(invalid="ignore"):  # infinity times zero
        expected = upsampled_reference(logits, target)
    with using(level):
        found = upsampled_native(logits, target, threads)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("target", [(48, 80), (24, 40), (12, 20), (6, 10)])
def test_where_no_sum_is_rounded_it_is_the_argmax_of_the_interpolation(twin, target) -> None:
    """Small integers and powers of two are exact, so ties are real and the first class wins."""
    logits = np.random.default_rng(2).integers(0, 4, (6, 12, 20)).astype(np.float32)

    def taps(source: int, size: int):
        position = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
        first = np.floor(position).astype(int)
        return first, np.minimum(first + 1, source - 1), position - first

    top, bottom, down = taps(12, target[0])
    left, right, across = taps(20, target[1])
    rows = logits[:, top] * (1 - down)[:, None] + logits[:, bottom] * down[:, None]
    exact = rows[..., left] * (1 - across) + rows[..., right] * across
    np.testing.assert_array_equal(twin(logits, target), np.argmax(exact, axis=0))


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("target", [(2000, 3), (3, 2000), (720, 1280), (131, 97)])
def test_opencv_interpolates_to_the_same_classes_but_for_near_ties(twin, target) -> None:
    logits = regions(3, 7, 64, 96)
    planes = np.stack([cv2.resize(plane, target[::-1]) for plane in logits])
    best = np.sort(planes, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(twin(logits, target)[clear], np.argmax(planes, axis=0)[clear])


@pytest.mark.parametrize("twin", TWINS)
def test_rounding_cannot_undo_what_four_neighbours_agree_on(twin) -> None:
    """Logits one unit in the last place apart fall together when they are interpolated."""
    lower = np.random.default_rng(4).random((30, 30)).astype(np.float32)
    logits = np.stack([lower, np.nextafter(lower, np.float32(2))])
    interpolated = np.stack([cv2.resize(plane, (97, 97)) for plane in logits])
    assert (np.argmax(interpolated, axis=0) == 0).any(), "no tie was made: this shows nothing"
    assert (twin(logits, (97, 97)) == 1).all()


def test_letterbox_is_cut_off_before() -> None:
    spec = InputSpec(height=64, width=64, resize="letterbox")
    logits = regions(5, 4, 64, 64)
    size = (100, 200)
    inner = np.ascontiguousarray(logits[:, 16:48])
    assert placement_of(size, spec).region == (slice(16, 48), slice(0, 64))
    expected = argmax_upsampled(inner, size, InputSpec(height=32, width=64))
    np.testing.assert_array_equal(argmax_upsampled(logits, size, spec), expected)
    with pytest.raises(UsageError, match="this network"):
        argmax_upsampled(inner, size, spec)


@needs_native
def test_extension_refuses_what_lies_outside_memory() -> None:
    logits, out = np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), np.uint8)
    kernels.argmax_float(logits, out)
    with pytest.raises(ValueError, match="size of the logits"):
        kernels.argmax_float(logits, np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match="256 classes"):
        kernels.argmax_float(np.zeros((257, 3, 4), np.float32), out)
    with pytest.raises(ValueError, match="packed"):
        kernels.argmax_upsampled(logits[..., ::2], out)
    with pytest.raises(ValueError, match="a pixel"):
        kernels.argmax_upsampled(logits[:, :0], out)
    for unfit in (logits.astype(np.float64), logits[..., ::2]):
        with pytest.raises(TypeError):
            kernels.argmax_float(unfit, out)
