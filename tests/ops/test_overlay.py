"""Overlays: colours where the classes are, the picture where none is, a legend one can read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, default_palette
from edgeseg.errors import UsageError
from edgeseg.ops import overlay as subject
from edgeseg.ops.native import kernels
from edgeseg.ops.overlay import (
    UNNAMED_COLOUR,
    Look,
    class_areas,
    colourise,
    draw_legend,
    lay_native,
    lay_reference,
    overlay,
    overlay_restored,
    restored_areas,
)
from edgeseg.ops.preprocess import inside, restore_labels

PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
LEVELS = [] if kernels is None else kernels.levels()
LAYS = [lay_reference] if kernels is None else [lay_reference, lay_native]
needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)
clears = st.sampled_from([frozenset(), frozenset({0}), frozenset({1}), frozenset({0, 2, 255})])
labels_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(labels_maps)
def test_each_pixel_has_the_colour_of_its_class(labels) -> None:
    full = [*PALETTE, *[UNNAMED_COLOUR] * (256 - len(PALETTE))]
    expected = np.array(full, np.uint8)[labels][..., ::-1]
    np.testing.assert_array_equal(colourise(labels, PALETTE), expected)


@given(labels_maps, st.floats(0, 1), clears)
def test_overlay_blends_classes_and_leaves_what_is_clear(labels, alpha: float, clear) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    before = frame.copy()
    shown = overlay(frame, labels, PALETTE, alpha, clear=clear)
    exact = (1 - alpha) * frame + alpha * colourise(labels, PALETTE).astype(float)
    classes = ~np.isin(labels, list(clear))
    assert np.abs(shown - exact)[classes].max(initial=0) <= 1.01  # alpha counts in 1/256
    np.testing.assert_array_equal(shown[~classes], frame[~classes])
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("weight", range(0, 257, 16))
def test_blend_is_exact_integer_arithmetic(weight: int) -> None:
    """Every pair of frame and colour value, in the reference as in the kernel."""
    levels = np.arange(256, dtype=np.uint8)
    frame = np.repeat(np.broadcast_to(levels, (255, 256))[..., np.newaxis], 3, axis=2)
    labels = np.repeat(levels[1:, np.newaxis], 256, axis=1)
    look = Look([(v, v, v) for v in range(256)], weight / 256)
    assert look.weight == weight
    colours = labels[..., np.newaxis].astype(int)
    exact = (frame.astype(int) * (256 - weight) + colours * weight + 128) // 256
    for lay in LAYS:
        out = np.empty_like(frame)
        lay(frame, labels, look, out)
        np.testing.assert_array_equal(out, exact)


networks = st.tuples(st.integers(8, 90), st.integers(8, 90))
frames = st.tuples(st.integers(1, 300), st.integers(1, 300))


@st.composite
def label_maps(draw: st.DrawFn, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise, or regions as a network draws them; of any memory layout."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    classes = draw(st.sampled_from([1, 2, 21, 256]))
    coarse = draw(st.sampled_from([1, 7]))
    labels = rng.integers(0, classes, (size[0] // coarse + 1, size[1] // coarse + 1))
    labels = labels.astype(np.uint8).repeat(coarse, 0).repeat(coarse, 1)[: size[0], : size[1]]
    if draw(st.booleans()):
        labels = np.asfortranarray(labels)
    return labels


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=100)
@given(data=st.data(), network=networks, size=frames)
def test_twins_give_the_same_bits(using, level: str, data, network, size) -> None:
    labels = data.draw(label_maps(network))
    resize = data.draw(st.sampled_from(["stretch", "letterbox"]))
    part = inside(labels, size, InputSpec(height=network[0], width=network[1], resize=resize))
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = data.draw(st.sampled_from([frame, frame[::-1], frame[:, ::-1], frame[..., ::-1]]))
    frame.flags.writeable = False
    look = Look(PALETTE, data.draw(st.floats(0, 1)), data.draw(st.booleans()), data.draw(clears))
    expected, found = np.zeros((*size, 3), np.uint8), np.zeros((*size, 3), np.uint8)
    lay_reference(frame, part, look, expected)
    with using(level):
        lay_native(frame, part, look, found, data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lay", LAYS)
def test_sizes_up_to_2000(lay) -> None:
    """Against indexing written out, where the letterbox is on either side."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (64, 96), dtype=np.uint8)
    for size in ((2000, 1), (1, 2000), (1999, 331), (333, 2000)):
        spec = InputSpec(height=64, width=96, resize="letterbox")
        frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = restore_labels(labels, size, spec)
        exact = (frame.astype(int) + np.array(PALETTE)[mask][..., ::-1] + 1) // 2
        out = np.empty_like(frame)
        lay(frame, inside(labels, size, spec), Look(PALETTE, 0.5, clear={1}), out)
        shown = mask[..., np.newaxis] != 1
        np.testing.assert_array_equal(out, np.where(shown, exact, frame))


@settings(deadline=None, max_examples=40)
@given(data=st.data(), network=networks, size=frames)
def test_restored_overlay_and_areas_are_those_of_the_restored_map(data, network, size) -> None:
    labels = data.draw(label_maps(network))
    resize = data.draw(st.sampled_from(["stretch", "letterbox"]))
    spec = InputSpec(height=network[0], width=network[1], resize=resize)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = restore_labels(labels, size, spec)
    for outline in (False, True):
        np.testing.assert_array_equal(
            overlay_restored(frame, labels, spec, Look(PALETTE, 0.4, outline, {0})),
            overlay(frame, mask, PALETTE, 0.4, outline=outline, clear={0}),
        )
    expected = class_areas(mask, 5)
    np.testing.assert_array_equal(restored_areas(labels, size, spec, 5), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "kernels", None)
        np.testing.assert_array_equal(restored_areas(labels, size, spec, 5), expected)


def test_restored_overlay_refuses_another_networks_labels() -> None:
    frame, spec = np.zeros((30, 40, 3), np.uint8), InputSpec(height=16, width=24)
    for unfit in (np.zeros((16, 25), np.uint8), np.zeros((16, 24), np.int64)):
        with pytest.raises(UsageError, match=r"a label map is uint8 \(16, 24\)"):
            overlay_restored(frame, unfit, spec, Look(PALETTE))
        with pytest.raises(UsageError, match=r"a label map is uint8 \(16, 24\)"):
            restored_areas(unfit, (30, 40), spec, 3)


def test_out_may_overlap_the_frame_or_the_labels() -> None:
    memory = np.random.default_rng(2).integers(0, 3, (9, 8, 3), dtype=np.uint8)
    frame, out, labels = memory[:8], memory[1:], memory[1:, :, 1]
    expected = overlay(frame.copy(), labels.copy(), PALETTE)
    np.testing.assert_array_equal(overlay(frame, labels, PALETTE, out=out), expected)


@needs_native
def test_extension_refuses_what_lies_outside_memory() -> None:
    frame, labels = np.zeros((4, 6, 3), np.uint8), np.zeros((2, 3), np.uint8)
    rows, columns = np.array([0, 0, 1, 1], np.int32), np.array([0, 0, 1, 1, 2, 2], np.int32)
    look = (np.zeros((256, 4), np.uint8), 128, True)
    areas = np.zeros(256, np.int64)
    kernels.overlay(frame, frame, labels, (rows, columns), look)
    for wrong in (rows + 1, rows - 1, rows[::-1].copy()):
        with pytest.raises(ValueError, match="ascend within"):
            kernels.overlay(frame, frame, labels, (wrong, columns), look)
        with pytest.raises(ValueError, match="ascend within"):
            kernels.count_areas(labels, (wrong, columns), areas)
    with pytest.raises(ValueError, match="one size"):
        kernels.overlay(frame, frame, labels, (rows, columns[:5].copy()), look)
    with pytest.raises(ValueError, match="weight"):
        kernels.overlay(frame, frame, labels, (rows, columns), (look[0], 257, True))
    with pytest.raises(ValueError, match="packed"):
        kernels.overlay(frame[:, ::-1], frame, labels, (rows, columns), look)
    with pytest.raises(TypeError):
        kernels.overlay(frame, frame[:, ::2], labels, (rows, columns), look)


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


@pytest.mark.parametrize(("clear", "label"), [(0, 2), (2, 0)])
@pytest.mark.parametrize("lay", LAYS)
def test_outline_is_the_inner_rim_in_full_colour(lay, clear: int, label: int) -> None:
    labels = np.full((9, 9), clear, np.uint8)
    labels[2:7, 2:7] = label
    frame, shown = np.full((9, 9, 3), 255, np.uint8), np.zeros((9, 9, 3), np.uint8)
    lay(frame, labels, Look(PALETTE, alpha=0.5, outline=True, clear={clear}), shown)
    rim = labels == label
    rim[3:6, 3:6] = False
    assert (shown[rim] == PALETTE[label][::-1]).all()
    assert (shown[4, 4] != PALETTE[label][::-1]).any()
    assert (shown[labels == clear] == 255).all()


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


@pytest.mark.parametrize("background", [None, 0, 1, 2])
def test_legend_leaves_the_background_out(background: int | None) -> None:
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    frame = np.full((256, 256, 3), 99, np.uint8)
    names = ("Sky", "leaf", "stone")
    draw_legend(frame, ClassMap(names=names, palette=colours, background=background))
    for label, colour in enumerate(colours):
        assert (frame == colour[::-1]).all(axis=2).any() == (label != background)


def test_legend_of_more_classes_than_fit_and_of_any_script() -> None:
    names = ("background", "Straße", "façade", "背景", *(f"class {i}" for i in range(80)))
    frame = np.zeros((256, 256, 3), np.uint8)
    draw_legend(frame, ClassMap(names=names, palette=default_palette(len(names), 0)))
    assert (frame == UNNAMED_COLOUR[::-1]).all(axis=2).any(), "no line counts the hidden ones"
    draw_legend(np.zeros((1, 1, 3), np.uint8), ClassMap(names=names))
