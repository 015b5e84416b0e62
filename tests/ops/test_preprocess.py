"""Preprocessing: the C++ twin, OpenCV and a brute-force bilinear agree; masks come back."""

import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops import preprocess as subject
from edgeseg.ops.native import kernels
from edgeseg.ops.preprocess import (
    Form,
    Placement,
    fill_native,
    fill_reference,
    fit_mask,
    lines,
    normalisation,
    placement_of,
    preprocess,
    preprocess_as,
    restore_labels,
)

LEVELS = [] if kernels is None else kernels.levels()
needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)
TWINS = [
    pytest.param(fill_reference, id="reference"),
    pytest.param(fill_native, id="native", marks=needs_native),
]
# Grey level v becomes exactly v.
PLAIN = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
PLAIN_GRAY = {"scale": 1.0, "mean": (0.0,), "std": (1.0,), "color": "gray"}


def picture(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(twin, image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    pixels = image if image.ndim == 3 else image[..., np.newaxis]
    out = np.full(spec.shape, np.nan, np.float32)
    twin(pixels, out, placement_of(pixels.shape[:2], spec), spec)
    return out


def bilinear(channel: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Half-pixel bilinear in double precision, from the definition."""

    def taps(source: int, target: int):
        position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        first = np.floor(position).astype(int)
        return first, np.minimum(first + 1, source - 1), position - first

    top, bottom, down = taps(channel.shape[0], height)
    left, right, across = taps(channel.shape[1], width)
    rows = channel[top].T * (1 - down) + channel[bottom].T * down
    return (rows[left].T * (1 - across) + rows[right].T * across).astype(np.float64)


sizes = st.integers(1, 600)
specs = st.builds(
    lambda height, width, color, resize, reduce: InputSpec(
        height=height,
        width=width,
        color=color,
        resize=resize,
        reduce=reduce,
        mean=(0.4, 0.5, 0.6)[: 1 if color == "gray" else 3],
        std=(0.1, 0.2, 0.3)[: 1 if color == "gray" else 3],
    ),
    height=st.integers(8, 600),
    width=st.integers(8, 600),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    resize=st.sampled_from(["stretch", "letterbox"]),
    reduce=st.sampled_from(["bilinear", "area"]),
)


@st.composite
def pictures(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Pictures of any size and memory layout that NumPy slicing produces."""
    height, width = draw(sizes), draw(sizes)
    channels = draw(st.sampled_from([1, 3, 4]))
    extra = draw(st.integers(0, 7))
    image = picture(draw(st.integers(0, 99)), height, width + extra, channels)
    layout = draw(st.sampled_from(["rows", "flip", "mirror", "swap", "fortran", "grey", "steps"]))
    image = image[:, extra:]
    if layout == "flip":
        image = image[::-1]
    elif layout == "mirror":
        image = image[:, ::-1]
    elif layout == "swap":
        image = image[..., ::-1]
    elif layout == "fortran":
        image = np.asfortranarray(image)
    elif layout == "grey":
        image = image[..., 0]
    elif layout == "steps":
        image = image[::2, ::3]
    if draw(st.booleans()):
        image.flags.writeable = False
    return image


@needs_native
def test_twin_check_sees_a_single_bit() -> None:
    spec = InputSpec(height=16, width=16)
    image = picture(0, 16, 16, 3)
    expected = fill(fill_reference, image, spec)
    image[3, 5, 1] ^= 1
    assert (fill(fill_native, image, spec) != expected).sum() == 1


@pytest.mark.parametrize("twin", TWINS)
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    target=st.tuples(st.integers(8, 200), st.integers(8, 200)),
)
def test_within_a_grey_level_of_the_definition(twin, size, target) -> None:
    spec = InputSpec(height=target[0], width=target[1], color="bgr", **PLAIN)
    image = picture(1, *size, 3)
    tensor = fill(twin, image, spec)
    for channel in range(3):
        exact = bilinear(image[..., channel], *target)
        # Weights of 8 bits are off by 1/512 an axis; then the sum is rounded.
        assert np.abs(tensor[channel] - exact).max() <= 1.5


def test_definition_check_sees_a_shift_of_half_a_pixel() -> None:
    """Corner-aligned and half-pixel sampling differ by far more than the bound above."""
    image = picture(1, 100, 100, 3)
    aligned = cv2.resize(image, (50, 50), interpolation=cv2.INTER_NEAREST)
    assert np.abs(aligned[..., 0] - bilinear(image[..., 0], 50, 50)).max() > 50


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (37, 53), (300, 200), (720, 1280)])
def test_opencv_is_the_oracle(twin, size: tuple[int, int]) -> None:
    image = picture(2, *size, 3)
    resized = cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR_EXACT)
    rgb = fill(twin, image, InputSpec(height=64, width=96, **PLAIN))
    np.testing.assert_array_equal(rgb, resized[..., ::-1].transpose(2, 0, 1))
    gray = fill(twin, image, InputSpec(height=64, width=96, **PLAIN_GRAY))
    np.testing.assert_array_equal(gray[0], cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY))


AREA = PLAIN_GRAY | {"reduce": "area"}


def coverage(channel: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Mean of what each pixel covers, from the definition: overlaps of intervals."""

    def shares(source: int, target: int) -> NDArray[np.float64]:
        scale, pixel = source / target, np.arange(source)
        begin = np.arange(target)[:, np.newaxis] * scale
        overlap = np.minimum(begin + scale, pixel + 1) - np.maximum(begin, pixel)
        return np.maximum(overlap, 0) / scale

    return shares(channel.shape[0], height) @ channel @ shares(channel.shape[1], width).T


@pytest.mark.parametrize("twin", TWINS)
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    target=st.tuples(st.integers(8, 90), st.integers(8, 90)),
)
def test_area_is_the_mean_of_what_a_pixel_covers(twin, size, target) -> None:
    image = picture(1, *size)
    found = fill(twin, image, InputSpec(height=target[0], width=target[1], **AREA))[0]
    exact = coverage(image, *target)
    assert np.abs(found - exact).max() <= 0.5 + 1e-9
    ties = np.abs(exact % 1 - 0.5) < 1e-9
    assert (found[ties] == np.ceil(exact[ties] - 1e-6)).all(), "halves are rounded up"


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((64, 96), (32, 48)),
        ((90, 120), (30, 40)),
        ((128, 256), (32, 32)),
        ((720, 1280), (256, 512)),
        ((37, 53), (16, 24)),
        ((101, 67), (100, 66)),
        ((33, 44), (33, 44)),
        ((16, 24), (64, 96)),
        ((11, 17), (64, 40)),
    ],
    ids=str,
)
def test_opencv_is_the_oracle_of_areas(twin, size, target) -> None:
    image = picture(2, *size, 3)
    wanted = cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    spec = InputSpec(height=target[0], width=target[1], color="bgr", reduce="area", **PLAIN)
    found = fill(twin, image, spec)
    # OpenCV sums in single precision, enlarges with weights of 11 bits, and rounds halves to even.
    assert np.abs(found - wanted).max() <= 1
    if target[0] <= size[0]:
        exact = np.stack([coverage(channel, *target) for channel in image.transpose(2, 0, 1)])
        clear = np.abs(exact % 1 - 0.5) > 1e-4
        np.testing.assert_array_equal(found[clear], wanted[clear])
        assert clear.mean() > 0.7


def test_oracle_of_areas_sees_another_reduction() -> None:
    image = picture(2, 128, 256)
    by_area = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    bilinear_too = fill(
        fill_native if kernels else fill_reference,
        image,
        InputSpec(height=32, width=32, **PLAIN_GRAY),
    )
    assert np.abs(bilinear_too - by_area).max() > 20


@pytest.mark.parametrize("twin", TWINS)
def test_area_keeps_what_is_thin(twin) -> None:
    """A wire of one pixel is lost between the taps of bilinear, and not by area."""
    image = np.zeros((160, 160), np.uint8)
    image[:, 47] = 255
    found = {
        reduce: fill(twin, image, InputSpec(height=16, width=16, **PLAIN_GRAY, reduce=reduce))
        for reduce in ("bilinear", "area")
    }
    assert found["bilinear"].max() == 0
    assert (found["area"][0, :, 4] == 26).all()


@needs_native
def test_gray_of_every_colour_in_a_coarse_cube() -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(52 * 52, 52, 3)
    spec = InputSpec(height=52 * 52, width=52, **PLAIN_GRAY)
    expected = cv2.cvtColor(cube, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(fill(fill_native, cube, spec)[0], expected)


@pytest.mark.parametrize("twin", TWINS)
def test_normalisation_is_that_of_the_card(twin) -> None:
    spec = InputSpec(height=16, width=16)
    image = picture(3, 16, 16, 3)
    rgb = image[..., ::-1].astype(np.float64) / 255
    expected = (rgb - spec.mean) / spec.std
    found = fill(twin, image, spec).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=200)
@given(
    scale=st.sampled_from([1 / 255, 1.0, 1 / 127.5]) | st.floats(1e-6, 1e6),
    mean=st.floats(-300, 300),
    std=st.floats(1e-3, 1e3),
)
def test_normalisation_as_arithmetic_has_the_bits_of_the_table(scale, mean, std) -> None:
    values = {"color": "gray", "scale": scale, "mean": (mean,), "std": (std,)}
    spec = InputSpec(height=8, width=256, **values)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    tensor = preprocess(ramp, spec)
    assert tensor[0, 0].tobytes() == normalisation(spec)[0].tobytes()


def test_normalisations_that_people_use_are_arithmetic() -> None:
    for values in ({}, PLAIN, {"mean": (0.5,) * 3, "std": (0.5,) * 3}):
        assert lines(InputSpec(height=8, width=8, **values)) is not None


def test_normalisation_that_arithmetic_misses_is_looked_up() -> None:
    spec = InputSpec(height=8, width=8, **PLAIN | {"scale": 1e30, "std": (1e-30,) * 3})
    assert lines(spec) is None  # past the largest float


@pytest.mark.parametrize("twin", TWINS)
def test_grey_alpha_and_single_channel_pictures(twin) -> None:
    grey = picture(4, 20, 30)
    spec = InputSpec(height=16, width=24, **PLAIN)
    expected = fill(twin, np.repeat(grey[..., np.newaxis], 3, axis=2), spec)
    np.testing.assert_array_equal(fill(twin, grey, spec), expected)
    np.testing.assert_array_equal(fill(twin, grey[..., np.newaxis], spec), expected)
    colour = picture(5, 20, 30, 3)
    with_alpha = np.dstack([colour, picture(6, 20, 30)])
    np.testing.assert_array_equal(fill(twin, with_alpha, spec), fill(twin, colour, spec))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 200), Placement(top=16, left=0, height=32, width=64)),
        ((200, 100), Placement(top=0, left=16, height=64, width=32)),
        ((64, 64), Placement(top=0, left=0, height=64, width=64)),
        ((1, 600), Placement(top=31, left=0, height=1, width=64)),
        ((600, 11), Placement(top=0, left=31, height=64, width=1)),
        ((10, 5), Placement(top=0, left=16, height=64, width=32)),
    ],
)
def test_letterbox_keeps_the_aspect_ratio(size, expected: Placement) -> None:
    assert placement_of(size, InputSpec(height=64, width=64, resize="letterbox")) == expected
    assert placement_of(size, InputSpec(height=64, width=64)) == Placement(0, 0, 64, 64)


def test_letterbox_border_is_the_mean_colour() -> None:
    spec = InputSpec(height=64, width=64, resize="letterbox")
    stretched = InputSpec(height=32, width=64)
    image = picture(7, 100, 200, 3)
    out = np.full(spec.shape, np.nan, np.float32)
    tensor = preprocess(image, spec, out)
    assert tensor is out
    assert not tensor[:, :16].any()
    assert not tensor[:, 48:].any()
    np.testing.assert_array_equal(tensor[:, 16:48], preprocess(image, stretched))


forms = st.builds(
    Form, st.sampled_from(["float32", "float16", "uint8"]), st.sampled_from(["chw", "hwc"])
)


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=150)
@given(image=pictures(), spec=specs, form=forms, threads=st.integers(1, 3))
def test_twins_give_the_same_bits_in_every_form(using, level, image, spec, form, threads) -> None:
    with using(level):
        found = preprocess_as(form, image, spec, threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "kernels", None)
        expected = preprocess_as(form, image, spec)
    assert found.dtype == form.dtype
    assert found.flags.c_contiguous
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_native)])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_forms_hold_the_same_picture(monkeypatch, native: bool, resize: str) -> None:
    if not native:
        monkeypatch.setattr(subject, "kernels", None)
    spec, image = InputSpec(height=32, width=48, resize=resize), picture(9, 70, 77, 3)
    levels = preprocess_as(Form("uint8"), image, spec)
    top, left = placement_of((70, 77), spec).region
    resized = cv2.resize(
        image, (left.stop - left.start, top.stop - top.start), interpolation=cv2.INTER_LINEAR_EXACT
    )
    np.testing.assert_array_equal(levels[:, top, left], resized[..., ::-1].transpose(2, 0, 1))
    if resize == "letterbox":  # 0.485, 0.456 and 0.406 of 255
        np.testing.assert_array_equal(levels[:, 0, 0], [124, 116, 104])
    exact = (levels / 255.0 - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[
        :, None, None
    ]
    halves = preprocess_as(Form("float16"), image, spec)[:, top, left]
    np.testing.assert_array_equal(halves, exact[:, top, left].astype(np.float16))
    for dtype in ("float32", "float16", "uint8"):
        planes = preprocess_as(Form(dtype), image, spec)
        pixels = preprocess_as(Form(dtype, "hwc"), image, spec)
        np.testing.assert_array_equal(pixels, planes.transpose(1, 2, 0))


def test_a_form_goes_into_its_place_of_a_batch_and_into_no_other_array() -> None:
    spec, image, form = InputSpec(height=16, width=24), picture(8, 33, 44, 3), Form("uint8", "hwc")
    batch = np.zeros((3, *form.shape(spec)), np.uint8)
    assert preprocess_as(form, image, spec, batch[1]) is not None
    np.testing.assert_array_equal(batch[1], preprocess_as(form, image, spec))
    assert not batch[[0, 2]].any()
    for unfit in (np.zeros(spec.shape, np.uint8), np.zeros((16, 24, 3), np.float32)):
        with pytest.raises(UsageError, match=r"out must be uint8 \(16, 24, 3\)"):
            preprocess_as(form, image, spec, unfit)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0), np.uint8),
        None,
        [[0, 1], [2, 3]],
    ],
    ids=lambda image: f"{getattr(image, 'dtype', image)}{getattr(image, 'shape', '')}",
)
def test_what_is_no_picture_is_refused(image) -> None:
    with pytest.raises(UsageError, match="a picture"):
        preprocess(image, InputSpec(height=16, width=16))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 16, 16), np.float64),
        np.zeros((3, 16, 17), np.float32),
        np.zeros((16, 16, 3), np.float32),
        np.zeros((3, 16, 32), np.float32)[..., ::2],
        np.broadcast_to(np.float32(0), (3, 16, 16)),
    ],
)
def test_unfit_out_is_refused(out) -> None:
    with pytest.raises(UsageError, match="out must be"):
        preprocess(picture(0, 8, 8, 3), InputSpec(height=16, width=16), out)


@needs_native
@pytest.mark.parametrize("region", [(0, 0, 9, 8), (1, 0, 8, 8), (-1, 0, 4, 4), (0, 0, 0, 8)])
def test_extension_refuses_what_lies_outside_memory(region) -> None:
    pixels, out = picture(0, 4, 4, 3), np.zeros((3, 8, 8), np.float32)
    table = normalisation(InputSpec(height=8, width=8))
    kernels.preprocess_float(pixels, out, table, (0, 0, 8, 8), True)
    with pytest.raises(ValueError, match="outside"):
        kernels.preprocess_float(pixels, out, table, region, True)
    with pytest.raises(ValueError, match="packed"):
        kernels.preprocess_float(pixels[:, ::2], out, table, (0, 0, 8, 8), True)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        kernels.preprocess_float(pixels, out, table[:1], (0, 0, 8, 8), True)
    with pytest.raises(TypeError):
        kernels.preprocess_float(pixels, out.astype(np.float64), table, (0, 0, 8, 8), True)
    with pytest.raises(ValueError, match="row a channel"):
        few = np.zeros((1, 4), np.float32)
        kernels.preprocess_float(pixels, out, table, (0, 0, 8, 8), True, 1, few)


@needs_native
def test_threads_may_preprocess_at_once() -> None:
    spec = InputSpec(height=64, width=64)
    images = [picture(seed, 90, 120, 3) for seed in range(4)]
    expected = [fill(fill_reference, image, spec) for image in images]
    results: list[list[NDArray[np.float32]]] = [[] for _ in images]

    def work(index: int) -> None:
        results[index] = [preprocess(images[index], spec) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tensors, reference in zip(results, expected, strict=True):
        assert len(tensors) == 20
        assert all(np.array_equal(tensor, reference) for tensor in tensors)


def nearest_candidates(source: int, target: int) -> list[set[int]]:
    """Indices that nearest sampling may take: two where the centre falls on a border."""
    edges = 1e-4
    positions = (np.arange(target) + 0.5) * source / target
    return [{min(source - 1, int(p - edges)), min(source - 1, int(p + edges))} for p in positions]


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(8, 300), st.integers(8, 300)),
)
def test_masks_are_sampled_at_half_pixel_centres(size, target) -> None:
    spec = InputSpec(height=target[0], width=target[1])
    for axis in (0, 1):
        ramp = np.arange(size[axis], dtype=np.uint16)
        ramp = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, size)
        low = fit_mask((ramp & 255).astype(np.uint8), spec).astype(int)
        high = fit_mask((ramp >> 8).astype(np.uint8), spec).astype(int)
        taken = (low + 256 * high).take(0, axis=1 - axis)
        candidates = nearest_candidates(size[axis], target[axis])
        assert all(index in allowed for index, allowed in zip(taken, candidates, strict=True))


@settings(deadline=None, max_examples=80)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    resize=st.sampled_from(["stretch", "letterbox"]),
)
def test_mask_survives_the_way_there_and_back(size, resize: str) -> None:
    """A network larger than the picture loses no pixel of a mask."""
    spec = InputSpec(height=256, width=384, resize=resize)
    mask = picture(9, *size)
    there = fit_mask(mask, spec)
    np.testing.assert_array_equal(restore_labels(there, size, spec), mask)


def test_letterbox_border_of_a_mask_is_ignore() -> None:
    spec = InputSpec(height=64, width=64, resize="letterbox")
    mask = np.zeros((100, 200), np.uint8)
    assert (fit_mask(mask, spec)[:16] == 255).all()
    assert (fit_mask(mask, spec, ignore=7)[48:] == 7).all()
    assert not fit_mask(mask, spec)[16:48].any()
    assert not restore_labels(fit_mask(mask, spec), (100, 200), spec).any()


def test_picture_and_mask_stay_aligned() -> None:
    """A bright square and its mask still cover each other after both were fitted."""
    image, mask = np.zeros((90, 150), np.uint8), np.zeros((90, 150), np.uint8)
    image[30:60, 45:105], mask[30:60, 45:105] = 255, 1
    for resize in ("stretch", "letterbox"):
        spec = InputSpec(height=60, width=100, resize=resize, **PLAIN_GRAY)
        bright = preprocess(image, spec)[0] > 127
        np.testing.assert_array_equal(bright, fit_mask(mask, spec) == 1)


@pytest.mark.parametrize(
    "labels",
    [np.zeros((16, 16), np.int64), np.zeros((16, 15), np.uint8), np.zeros((1, 16, 16), np.uint8)],
)
def test_unfit_labels_are_refused(labels) -> None:
    with pytest.raises(UsageError, match=r"a label map is uint8 \(16, 16\)"):
        restore_labels(labels, (30, 30), InputSpec(height=16, width=16))
