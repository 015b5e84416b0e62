"""The kernels of argmax return what NumPy's returns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops import argmax as subject
from edgeseg.ops.argmax import argmax
from edgeseg.ops.native import kernels

LEVELS = [] if kernels is None else kernels.levels()
needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)
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


@needs_native
def test_extension_refuses_what_lies_outside_memory() -> None:
    logits, out = np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), np.uint8)
    kernels.argmax_float(logits, out)
    with pytest.raises(ValueError, match="size of the logits"):
        kernels.argmax_float(logits, np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match="256 classes"):
        kernels.argmax_float(np.zeros((257, 3, 4), np.float32), out)
    for unfit in (logits.astype(np.float64), logits[..., ::2]):
        with pytest.raises(TypeError):
            kernels.argmax_float(unfit, out)
