"""Connected regions: the C++ twin, OpenCV and a flood fill agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.ops import components as subject
from edgeseg.ops.components import Components, components, components_native, components_reference
from edgeseg.ops.native import kernels

needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)
TWINS = [
    pytest.param(components_reference, id="reference"),
    pytest.param(components_native, id="native", marks=needs_native),
]


backgrounds = st.sampled_from([None, 0, 1, 255])


@st.composite
def label_maps(draw: st.DrawFn, largest: int) -> NDArray[np.uint8]:
    """Noise or regions, of few and many classes, in any memory layout."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    classes = draw(st.sampled_from([2, 3, 21, 256]))
    coarse = draw(st.sampled_from([1, 2, 9]))
    labels = rng.integers(0, classes, (height // coarse + 1, width // coarse + 1))
    labels = labels.astype(np.uint8).repeat(coarse, 0).repeat(coarse, 1)[:height, :width]
    if draw(st.booleans()):  # regions of all kinds of shapes
        labels[rng.random(labels.shape) < 0.3] = 1
    layout = draw(st.sampled_from(["rows", "fortran", "flip", "mirror", "part"]))
    if layout == "fortran":
        labels = np.asfortranarray(labels)
    elif layout == "flip":
        labels = labels[::-1]
    elif layout == "mirror":
        labels = labels[:, ::-1]
    elif layout == "part":
        labels = labels[height // 3 :, width // 3 :]
    labels.flags.writeable = False
    return labels


def flooded(
    labels: NDArray[np.uint8], background: int | None
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Class and pixels (y, x) of each region, one pixel's neighbours after another's."""
    taken = np.ones(labels.shape, bool) if background is None else labels != background
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(taken), strict=True)}
    regions = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        pixels, label = [start], labels[start]
        for y, x in pixels:
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if near in left and labels[near] == label:
                    left.remove(near)
                    pixels.append(near)
        regions.append((int(label), pixels))
    return regions


def assert_same(found: Components, expected: Components) -> None:
    for name in ("classes", "areas", "boxes", "centroids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@needs_native
@settings(deadline=None, max_examples=300)
@given(label_maps(70), backgrounds)
def test_twins_find_the_same_regions(labels, background: int | None) -> None:
    assert_same(components_native(labels, background), components_reference(labels, background))


@pytest.mark.parametrize("twin", TWINS)
@settings(deadline=None, max_examples=150)
@given(labels=label_maps(14), background=backgrounds)
def test_a_flood_fill_finds_the_same_regions(twin, labels, background: int | None) -> None:
    expected = flooded(labels, background)
    found = twin(labels, background)
    assert found.classes.tolist() == [label for label, _ in expected]
    for i, (_, pixels) in enumerate(expected):
        ys, xs = np.array(pixels).T
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert found.areas[i] == len(pixels)
        assert found.boxes[i].tolist() == box
        np.testing.assert_allclose(found.centroids[i], [xs.mean(), ys.mean()], rtol=1e-12)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (("12", "23"), 3),  # runs that end together and meet at a corner, both ways
        (("21", "32"), 3),
        (("1.1", "1.1", "111"), 1),  # two that become one
        (("1.1.1", ".1.1."), 1),
        (("1..", "...", "..1"), 2),
        (("121", "212", "121"), 2),  # two classes that cross each other
    ],
)
def test_corners_connect(twin, rows: tuple[str, ...], count: int) -> None:
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.uint8)
    assert len(twin(labels, 0)) == count


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (2000, 333), (720, 1280)])
def test_large_maps_and_none_at_all(twin, shape: tuple[int, int]) -> None:
    nothing = twin(np.zeros(shape, np.uint8), 0)
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.centroids.shape == (0, 2)
    whole = twin(np.full(shape, 255, np.uint8), 0)
    assert whole.classes.tolist() == [255]
    assert whole.areas.tolist() == [shape[0] * shape[1]]
    assert whole.boxes.tolist() == [[0, 0, shape[1], shape[0]]]
    assert whole.centroids.tolist() == [[(shape[1] - 1) / 2, (shape[0] - 1) / 2]]


@needs_native
def test_a_spiral_is_one_region() -> None:
    """Its runs join only after they were counted as many."""
    labels = np.zeros((201, 201), np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    for _ in range(40_000):
        labels[y, x] = 7
        ahead = (y + 2 * dy, x + 2 * dx)
        inside = 0 <= ahead[0] < 201 and 0 <= ahead[1] < 201
        if not (0 <= y + dy < 201 and 0 <= x + dx < 201) or (inside and labels[ahead]):
            dy, dx = dx, -dy
            if (
                not (0 <= y + 2 * dy < 201 and 0 <= x + 2 * dx < 201)
                or labels[y + 2 * dy, x + 2 * dx]
            ):
                break
        y, x = y + dy, x + dx
    assert len(components_native(labels, 0)) == 1
    assert_same(components_native(labels, 0), components_reference(labels, 0))


@needs_native
def test_no_memory_is_kept() -> None:
    """The table is the array's own and goes with it."""
    labels = np.random.default_rng(0).integers(0, 9, (100, 100), dtype=np.uint8)
    table = kernels.components(labels, -1)
    copy = table.copy()
    for _ in range(20):
        kernels.components(labels[::-1], -1)
    np.testing.assert_array_equal(table, copy)
    with pytest.raises(ValueError, match="packed"):
        kernels.components(labels[:, ::2], -1)


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_native)])
def test_what_is_no_label_map_is_refused(monkeypatch, native: bool) -> None:
    if not native:
        monkeypatch.setattr(subject, "kernels", None)
    assert len(components(np.eye(3, dtype=np.uint8), 0)) == 1
    for unfit in (np.zeros((4, 4), np.int64), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(UsageError, match="a label map is uint8"):
            components(unfit)
