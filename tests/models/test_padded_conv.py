"""Convolutions that run in float32 under autocast, since their bfloat16 gradients are wrong."""

import itertools

import pytest
import torch
from torch import nn

from edgeseg.models import ARCHITECTURES, build
from edgeseg.models.layers import PaddedConv2d


def has_idle_tap(size: int, kernel: int, stride: int, padding: int) -> bool:
    """Brute force: some tap meets no pixel at any place of the kernel."""
    places = range(-padding, size + padding - kernel + 1, stride)
    return any(all(not 0 <= at + tap < size for at in places) for tap in range(kernel))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_float32_where_a_tap_meets_padding_only(kernel: int) -> None:
    for stride, size, other in itertools.product((1, 2), (1, 2, 3, 4, 5, 8), (1, 4, 9)):
        layer = PaddedConv2d(2, 2, kernel, stride=stride, padding=kernel // 2)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(torch.zeros(1, 2, size, other)).dtype
        idle = any(has_idle_tap(n, kernel, stride, kernel // 2) for n in (size, other))
        assert found == (torch.float32 if idle else torch.bfloat16), (stride, size, other)


def test_without_autocast_it_is_a_convolution() -> None:
    layer, picture = PaddedConv2d(3, 4, 7, padding=3), torch.rand(2, 3, 2, 2)
    assert torch.equal(layer(picture), nn.Conv2d.forward(layer, picture))
    assert layer.double()(picture.double()).dtype == torch.float64


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_is_made_of_them(arch: str) -> None:
    """A convolution with padding that is none of them would bring the fault back."""
    for layer in build(arch, 2, **({"fc_width": 8} if arch.startswith("fcn") else {})).modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, PaddedConv2d):
            assert layer.padding == (0, 0)
