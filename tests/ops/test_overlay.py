"""Overlays: colours where the classes are, the picture where none is, a legend one can read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeseg.card import ClassMap, default_palette
from edgeseg.errors import UsageError
from edgeseg.ops.overlay import (
    UNNAMED_COLOUR,
    class_areas,
    colourise,
    draw_legend,
    overlay,
)

PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
labels_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(labels_maps)
def test_each_pixel_has_the_colour_of_its_class(labels) -> None:
    full = [*PALETTE, *[UNNAMED_COLOUR] * (256 - len(PALETTE))]
    expected = np.array(full, np.uint8)[labels][..., ::-1]
    np.testing.assert_array_equal(colourise(labels, PALETTE), expected)


@given(labels_maps, st.floats(0, 1))
def test_overlay_blends_classes_and_leaves_background(labels, alpha: float) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    before = frame.copy()
    shown = overlay(frame, labels, PALETTE, alpha)
    exact = (1 - alpha) * frame + alpha * colourise(labels, PALETTE).astype(float)
    classes = labels != 0
    assert np.abs(shown - exact)[classes].max(initial=0) <= 0.51
    np.testing.assert_array_equal(shown[~classes], frame[~classes])
    np.testing.assert_array_equal(frame, before)


def test_overlay_writes_into_out_or_the_frame_itself() -> None:
    frame = np.full((6, 8, 3), 200, np.uint8)
    labels = np.zeros((6, 8), np.uint8)
    labels[2:4, 3:6] = 1
    expected = overlay(frame, labels, PALETTE)
    out = np.empty_like(frame)
    assert overlay(frame, labels, PALETTE, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert overlay(frame, labels, PALETTE, out=frame) is frame
    np.testing.assert_array_equal(frame, expected)


def test_overlay_of_a_grey_and_a_read_only_frame() -> None:
    grey = np.full((6, 8), 90, np.uint8)
    labels = np.ones((6, 8), np.uint8)
    colour = np.repeat(grey[..., np.newaxis], 3, axis=2)
    colour.flags.writeable = False
    np.testing.assert_array_equal(overlay(grey, labels, PALETTE), overlay(colour, labels, PALETTE))


def test_outline_is_the_inner_rim_in_full_colour() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 2
    frame = np.full((9, 9, 3), 255, np.uint8)
    shown = overlay(frame, labels, PALETTE, alpha=0.5, outline=True)
    rim = labels == 2
    rim[3:6, 3:6] = False
    assert (shown[rim] == PALETTE[2][::-1]).all()
    assert (shown[4, 4] != PALETTE[2][::-1]).any()
    assert (shown[labels == 0] == 255).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros((6, 8), np.int32)}, "label map"),
        ({"labels": np.zeros((6, 8, 1), np.uint8)}, "label map"),
        ({"labels": np.zeros((5, 8), np.uint8)}, "frame"),
        ({"frame": np.zeros((6, 8, 3), np.float32)}, "frame"),
        ({"frame": np.zeros((6, 8, 4), np.uint8)}, "frame"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"out": np.zeros((6, 9, 3), np.uint8)}, "out"),
        ({"out": np.zeros((6, 8, 3), np.float32)}, "out"),
        ({"out": np.zeros((6, 16, 3), np.uint8)[:, ::2]}, "out"),
    ],
)
def test_unfit_arguments_are_refused(change, says: str) -> None:
    fit = {
        "frame": np.zeros((6, 8, 3), np.uint8),
        "labels": np.zeros((6, 8), np.uint8),
        "palette": PALETTE,
    }
    overlay(**fit)
    with pytest.raises(UsageError, match=says):
        overlay(**(fit | change))


@given(labels_maps)
def test_areas_count_each_class(labels) -> None:
    areas = class_areas(labels, 5)
    assert areas.dtype == np.int64
    assert areas.tolist() == [int((labels == value).sum()) for value in range(5)]


def test_areas_are_exact_past_the_integers_of_float32() -> None:
    labels = np.zeros((1 << 12, (1 << 12) + 1), np.uint8)
    labels[0, :3] = 1
    assert class_areas(labels, 2).tolist() == [labels.size - 3, 3]


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (256, 256), (64, 48)])
@pytest.mark.parametrize("shade", [0, 255])
def test_legend_shows_every_colour_beside_text_that_stands_out(size, shade: int) -> None:
    frame = np.full((*size, 3), shade, np.uint8)
    classes = ClassMap(names=("background", "nucleus", "cytoplasm"), palette=PALETTE)
    draw_legend(frame, classes)
    for red, green, blue in PALETTE[1:]:
        assert (frame == (blue, green, red)).all(axis=2).sum() >= 30
    box = frame[(frame != shade).any(axis=2)] if shade else frame.reshape(-1, 3)
    assert box.max() >= 200
    assert (frame[-1, -1] == shade).all()


def test_legend_leaves_the_background_out() -> None:
    red = ((255, 0, 0), (0, 255, 0))
    frame = np.full((256, 256, 3), 99, np.uint8)
    draw_legend(frame, ClassMap(names=("background", "leaf"), palette=red))
    assert not (frame == (0, 0, 255)).all(axis=2).any()
    assert (frame == (0, 255, 0)).all(axis=2).any()


def test_legend_of_more_classes_than_fit_and_of_any_script() -> None:
    names = ("background", "Straße", "façade", "背景", *(f"class {i}" for i in range(80)))
    frame = np.zeros((256, 256, 3), np.uint8)
    draw_legend(frame, ClassMap(names=names, palette=default_palette(len(names))))
    assert (frame == UNNAMED_COLOUR[::-1]).all(axis=2).any(), "no line counts the hidden ones"
    draw_legend(np.zeros((1, 1, 3), np.uint8), ClassMap(names=names))


def test_legend_needs_a_frame_to_draw_on() -> None:
    classes = ClassMap(names=("a", "b"))
    frame = np.zeros((64, 64, 3), np.uint8)
    frame.flags.writeable = False
    for unfit in (frame, np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)):
        with pytest.raises(UsageError, match="frame must be"):
            draw_legend(unfit, classes)
