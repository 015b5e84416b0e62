"""Overlap-tile gives what the whole picture gives, and careless tiles do not."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import build
from edgeseg.models.mirror import same_size
from edgeseg.models.unet import UNet
from edgeseg.tiling import Predict, cover, mirrored, predict_tiled

few = settings(max_examples=25, deadline=None)


def predictor(network: nn.Module) -> Predict:
    def predict(tiles: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            return network(torch.from_numpy(tiles)).numpy()

    return predict


def picture(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def valid_unet(depth: int) -> UNet:
    torch.manual_seed(depth)
    return UNet(2, 1, width=8, depth=depth).eval()


NETWORKS = {depth: valid_unet(depth) for depth in (1, 2, 3)}


@few
@given(
    depth=st.sampled_from([1, 2, 3]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    room=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    batch=st.integers(1, 3),
)
def test_valid_tiles_give_the_whole_picture(
    depth: int, size: tuple[int, int], room: tuple[int, int], batch: int
) -> None:
    network = NETWORKS[depth]
    least = network.valid_size(2 * network.margin + network.stride)
    tile = least + room[0] * network.stride, least + room[1] * network.stride
    image = picture(1, *size)
    tiled = predict_tiled(
        predictor(network),
        image,
        tile=tile,
        margin=network.margin,
        stride=network.stride,
        batch=batch,
    )
    whole = predictor(same_size(network))(image[np.newaxis])[0]
    assert tiled.shape == whole.shape == (2, *size)
    np.testing.assert_allclose(tiled, whole, atol=1e-4)


def test_tiles_that_leave_the_pooling_grid_are_seen() -> None:
    network, image = NETWORKS[3], picture(1, 60, 60)
    tile = (network.valid_size(100),) * 2
    assert (tile[0] - 2 * network.margin) % network.stride, "or this test would show nothing"
    tiled = predict_tiled(predictor(network), image, tile=tile, margin=network.margin, stride=1)
    whole = predictor(same_size(network))(image[np.newaxis])[0]
    assert np.abs(tiled - whole).max() > 1e-2


def test_naive_tiles_are_seen() -> None:
    """Tiles side by side, each mirrored by itself, differ along their seam and only there."""
    network, image = NETWORKS[2], picture(1, 64, 128)
    tiled = predict_tiled(predictor(same_size(network)), image, tile=(64, 64), margin=0)
    whole = predictor(same_size(network))(image[np.newaxis])[0]
    wrong = (np.abs(tiled - whole).max(axis=0) > 1e-3).any(axis=0)
    assert wrong[60:68].all()
    assert not wrong[: 64 - network.margin].any()
    assert not wrong[64 + network.margin :].any()


@pytest.mark.parametrize("size", [(97, 64), (30, 161)])
def test_a_network_that_pads_needs_half_its_receptive_field(size: tuple[int, int]) -> None:
    """UNetLite reaches 8 · 2**depth - 6 pixels; 26 for a depth of 2, on whose grid lies 28."""
    torch.manual_seed(0)
    network = build("unet-lite", 2, width=8, depth=2).eval()
    image = picture(3, *size)
    surround = [(0, 0), (32, 32 + -size[0] % 4), (32, 32 + -size[1] % 4)]
    whole = predictor(network)(np.pad(image, surround, mode="reflect")[np.newaxis])[0]
    whole = whole[:, 32 : 32 + size[0], 32 : 32 + size[1]]

    def error(margin: int) -> float:
        tiled = predict_tiled(predictor(network), image, tile=(80, 96), margin=margin, stride=4)
        return float(np.abs(tiled - whole).max())

    assert error(28) < 1e-4 < error(20) < error(0)


@few
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    inner=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    margin=st.integers(0, 9),
    stride=st.integers(1, 4),
    cropped=st.booleans(),
)
def test_every_pixel_comes_from_its_own_place(
    size: tuple[int, int], inner: tuple[int, int], margin: int, stride: int, cropped: bool
) -> None:
    """A network that answers with the picture itself, in full tiles or without their margin."""

    def echo(tiles: NDArray[Any]) -> NDArray[Any]:
        end = -margin or None
        return tiles[:, 0, margin:end, margin:end] if cropped else tiles[:, 0]

    image = np.random.default_rng(0).integers(0, 256, (1, *size), np.uint8)
    tile = inner[0] + 2 * margin, inner[1] + 2 * margin
    labels = predict_tiled(echo, image, tile=tile, margin=margin, stride=stride)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, image[0])


def test_every_call_is_a_full_batch_on_the_grid() -> None:
    seen: list[NDArray[Any]] = []

    def predict(tiles: NDArray[Any]) -> NDArray[Any]:
        seen.append(tiles[:, 0, 2, 2].copy())
        return tiles[:, 0]

    image = np.arange(20 * 30).reshape(1, 20, 30)
    predict_tiled(predict, image, tile=(14, 14), margin=2, stride=4, batch=4)
    corners = [divmod(int(value), 30) for group in seen for value in group]
    assert [len(group) for group in seen] == [4, 4, 4]
    assert corners[:9] == [(y, x) for y in (0, 8, 16) for x in (0, 8, 16, 24)][:9]
    assert len(set(corners)) == 12


@given(st.integers(-40, 10), st.integers(0, 60), st.integers(1, 12))
def test_mirroring_is_that_of_numpy(start: int, length: int, size: int) -> None:
    line = np.arange(size)
    expected = np.pad(line, (40, 100), mode="reflect")[40 + start : 40 + start + length]
    assert np.array_equal(mirrored(start, start + length, size), expected)


@given(st.tuples(*[st.integers(1, 50)] * 2), st.tuples(*[st.integers(1, 20)] * 2))
def test_the_fewest_tiles_cover_a_picture(size: tuple[int, int], tile: tuple[int, int]) -> None:
    counts = np.zeros(size, int)
    corners = cover(size, tile)
    for top, left in corners:
        counts[top : top + tile[0], left : left + tile[1]] += 1
    assert counts.min() > 0
    assert len(corners) == -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    # None reaches beyond a picture that is large enough.
    for starts, whole, side in zip(np.transpose(corners), size, tile, strict=True):
        assert starts.max() <= max(whole - side, 0)


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((1, 0, 5), {}, r"shape \(C, H, W\) and pixels"),
        ((5, 5), {}, r"shape \(C, H, W\) and pixels"),
        ((1, 5, 5), {"margin": 8}, "keeps 0 pixels"),
        ((1, 5, 5), {"margin": 5, "stride": 8}, "keeps 6 pixels .* fewer than the stride of 8"),
        ((1, 5, 5), {"margin": -1}, "margin -1"),
        ((1, 5, 5), {"batch": 0}, "batch 0"),
        ((1, 5, 5), {"margin": 2}, r"answered in \(16, 16\) or \(12, 12\), not \(15, 15\)"),
    ],
)
def test_refuses(shape: tuple[int, ...], options: dict[str, int], reason: str) -> None:
    def predict(tiles: NDArray[Any]) -> NDArray[Any]:
        return tiles[:, 0, 1:, 1:]

    with pytest.raises(UsageError, match=reason):
        predict_tiled(predict, np.zeros(shape), tile=(16, 16), **({"margin": 0} | options))  # type: ignore[arg-type]
