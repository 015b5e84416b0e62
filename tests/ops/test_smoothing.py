"""Votes on labels: the C++ twin, NumPy and a loop over the pixels agree, and lasting labels win."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops import smoothing as subject
from edgeseg.ops.native import kernels
from edgeseg.ops.smoothing import smooth, smooth_reference

LEVELS = [] if kernels is None else kernels.levels()
Case = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], int]


@st.composite
def cases(draw: st.DrawFn, largest: int) -> Case:
    """Labels in any memory layout, a memory, limits of any number of blocks, and a step."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    labels = rng.integers(0, draw(st.sampled_from([2, 3, 256])), (height, width), np.uint8)
    layout = draw(st.sampled_from(["rows", "fortran", "mirror", "part"]))
    if layout == "fortran":
        labels = np.asfortranarray(labels)
    elif layout == "mirror":
        labels = labels[::-1, ::-1]
    elif layout == "part":
        labels = labels[height // 3 :, width // 3 :]
    labels.flags.writeable = False
    memory = rng.integers(0, 256, (2, *labels.shape), np.uint8)
    memory[0] = np.where(rng.random(labels.shape) < 0.5, labels, memory[0] % 3)
    limits = rng.integers(0, 256, (draw(st.integers(1, 9)), draw(st.integers(1, 40))), np.uint8)
    return labels, memory, limits, draw(st.integers(1, 255))


def looped(labels: NDArray[np.uint8], memory: NDArray[np.uint8], limits: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:  # fmt: skip  # noqa: E501
    """The rule, pixel by pixel."""
    result = memory.copy()
    (height, width), (rows, columns) = labels.shape, limits.shape
    for y, x in np.ndindex(height, width):
        shown, votes = (int(value) for value in memory[:, y, x])
        votes = min(votes, int(limits[y * rows // height, x * columns // width]))
        votes += step if labels[y, x] == shown else -step
        if votes <= 0:
            shown, votes = int(labels[y, x]), 128
        result[:, y, x] = shown, min(votes, 255)
    return result


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=60)
@given(case=cases(150))
def test_kernel_is_the_reference(using, level: str, case: Case) -> None:
    labels, memory, limits, step = case
    expected = memory.copy()
    smooth_reference(labels, expected, limits, step)
    with using(level):
        smooth(labels, memory, limits, step)
    np.testing.assert_array_equal(memory, expected)


@settings(deadline=None, max_examples=60)
@given(case=cases(12))
def test_reference_is_the_rule(case: Case) -> None:
    labels, memory, limits, step = case
    expected = looped(labels, memory, limits, step)
    smooth_reference(labels, memory, limits, step)
    np.testing.assert_array_equal(memory, expected)


@settings(deadline=None, max_examples=60)
@given(step=st.integers(1, 255), seed=st.integers(0, 999))
def test_a_label_that_lasts_is_shown_in_time(step: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (2, 8, 8), np.uint8)
    free, label = np.full((2, 2), 255, np.uint8), np.full((8, 8), 7, np.uint8)
    enough = math.ceil(255 / step)
    worst = np.zeros((8, 8), int)
    for frame in range(1, enough + 1):
        smooth_reference(label, memory, free, step)
        worst[memory[0] != 7] = frame
    assert worst.max() < enough
    smooth_reference(label - 1, memory, np.full((2, 2), step, np.uint8), step)
    assert (memory[0] == 6).all(), "at once where the votes are limited to those of a frame"


@pytest.mark.parametrize("native", [False, *([True] if LEVELS else [])])
def test_a_single_frame_changes_nothing_and_half_of_all_frames_neither(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    if not native:
        monkeypatch.setattr(subject, "kernels", None)
    memory, free = np.zeros((2, 4, 4), np.uint8), np.full((1, 1), 255, np.uint8)
    for frame in range(40):
        smooth(np.full((4, 4), 3 + frame % 2 * (frame > 5), np.uint8), memory, free, 64)
        assert (memory[0] == 3).all()


def test_what_does_not_fit_is_refused() -> None:
    labels, memory = np.zeros((4, 6), np.uint8), np.zeros((2, 4, 6), np.uint8)
    limits = np.zeros((1, 1), np.uint8)
    for unfit in (labels.astype(int), labels[0], labels[:0]):
        with pytest.raises(UsageError, match=r"labels are uint8 \(H, W\)"):
            smooth(unfit, memory, limits, 1)
    for unfit in (memory[:1], memory[..., :5], memory.astype(int)):
        with pytest.raises(UsageError, match=r"the memory is uint8 \(2, 4, 6\)"):
            smooth(labels, unfit, limits, 1)
    with pytest.raises(UsageError, match="C-contiguous"):
        smooth(labels, np.zeros((4, 6, 2), np.uint8).transpose(2, 0, 1), limits, 1)
    for step in (0, 256):
        with pytest.raises(UsageError, match=f"within 1 and 255, not {step}"):
            smooth(labels, memory, limits, step)
