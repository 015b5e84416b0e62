"""Names on regions: where they belong, where they have room, never past the edge."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.ops.names import draw_names

NAMES = ("background", "Car", "Building")


def canvas(height: int = 240, width: int = 320, shade: int = 128) -> NDArray[np.uint8]:
    return np.full((height, width, 3), shade, np.uint8)


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_name_stands_on_its_region_and_on_any_shade(shade: int) -> None:
    labels = np.zeros((120, 160), np.uint8)
    labels[70:110, 90:150] = 2
    frame = canvas(shade=shade)
    (name,) = draw_names(frame, labels, NAMES, clear={0})
    assert name.label == 2
    whole = cv2.resize(labels, (320, 240), interpolation=cv2.INTER_NEAREST)
    assert (whole[name.y : name.y + name.height, name.x : name.x + name.width] == 2).all()
    touched = (frame != shade).any(axis=2)
    assert whole[touched].min() == 2
    box = frame[name.y : name.y + name.height, name.x : name.x + name.width]
    assert box.min() == 0
    assert box.max() >= 250


def test_the_middle_of_a_ring_is_not_its_place() -> None:
    yy, xx = np.mgrid[:240, :320]
    radius = np.hypot(yy - 120, xx - 160)
    labels = ((radius < 110) & (radius > 50)).astype(np.uint8)
    (name,) = draw_names(canvas(), labels, NAMES, clear={0})
    assert labels[name.y + name.height // 2, name.x + name.width // 2] == 1


@pytest.mark.parametrize(
    "part",
    [pytest.param(np.s_[100:103, 100:103], id="speck"), pytest.param(np.s_[:, 100:104], id="pole")],
)
def test_a_region_without_room_has_no_name(part: tuple[slice, slice]) -> None:
    labels = np.zeros((240, 320), np.uint8)
    labels[part] = 1
    frame = canvas()
    assert draw_names(frame, labels, NAMES, clear={0}) == []
    assert (frame == 128).all()


@pytest.mark.parametrize("clear", [set(), {0}, {1}, {0, 1, 2}])
def test_any_class_has_its_name_unless_it_is_clear(clear: set[int]) -> None:
    labels = np.arange(3, dtype=np.uint8).repeat(100)[np.newaxis].repeat(240, 0)
    written = draw_names(canvas(width=900), labels, NAMES, clear=clear)
    assert {name.label for name in written} == {0, 1, 2} - clear


def test_the_taken_corner_stays_free() -> None:
    frame = canvas()
    labels = np.zeros((240, 320), np.uint8)
    labels[:60, :80] = 1
    assert draw_names(frame.copy(), labels, NAMES, clear={0})
    assert draw_names(frame, labels, NAMES, (60, 80), {0}) == []
    assert (frame == 128).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_names_lie_inside_the_frame_and_apart(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    coarse = rng.integers(0, 4, (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))))
    labels = coarse.astype(np.uint8).repeat(30, 0).repeat(40, 1)
    guard = np.full((height + 40, width + 40, 3), 77, np.uint8)
    frame = np.ascontiguousarray(guard[20:-20, 20:-20])
    written = draw_names(frame, labels, NAMES, clear={0})
    for name in written:
        assert name.x >= 0
        assert name.y >= 0
        assert name.x + name.width <= width
        assert name.y + name.height <= height
    for one, other in itertools.combinations(written, 2):
        assert not one.meets(other)
