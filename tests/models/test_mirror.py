"""Same-size logits by mirroring: the paper's margin, any size, and the network left as it is."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.models import build
from edgeseg.models.mirror import same_size, same_size_logits
from edgeseg.models.unet import UNet


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, width=8, depth=2).eval()


def padded_by_numpy(picture: Tensor, network: UNet) -> Tensor:
    """The same surround by NumPy's reflection, which also repeats as often as it takes."""
    sides = []
    for size in picture.shape[-2:]:
        total = network.valid_size(size + 2 * network.margin)
        sides.append((network.margin, total - network.margin - size))
    return torch.from_numpy(np.pad(picture.numpy(), [(0, 0), (0, 0), *sides], mode="reflect"))


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (5, 30), (1, 2), (1, 1)])
def test_logits_are_those_of_the_mirrored_picture(network: UNet, size: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, *size)
    with torch.inference_mode():
        logits = same_size(network)(picture)
        expected = network(padded_by_numpy(picture, network))[..., : size[0], : size[1]]
    assert logits.shape == (2, 3, *size)
    assert torch.equal(logits, expected)


def test_inside_the_margin_nothing_is_mirrored(network: UNet) -> None:
    """Where the picture itself is context enough, wrapped and bare network agree."""
    picture, margin = torch.rand(1, 3, 64, 64), network.margin
    with torch.inference_mode():
        inside = same_size(network)(picture)[..., margin:-margin, margin:-margin]
        assert torch.allclose(inside, network(picture), atol=1e-5)
        elsewhere = same_size(network)(picture)[..., margin + 1 : 1 - margin, margin:-margin]
        assert not torch.allclose(elsewhere, network(picture), atol=1e-5)


def test_networks_that_pad_are_left_alone() -> None:
    network = build("unet-lite", 2, width=8, depth=1).eval()
    assert same_size(network) is network
    picture = torch.rand(1, 3, 10, 10)
    assert torch.equal(same_size_logits(network, picture), network(picture))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_the_inner_networks(network: UNet, training: bool) -> None:
    network.train(training)
    wrapped = same_size(network)
    assert wrapped.training is network.training is network.dropout.training is training
    wrapped.train(not training)
    assert network.dropout.training is not training


def test_gradients_pass(network: UNet) -> None:
    wrapped: nn.Module = same_size(network)
    wrapped(torch.rand(1, 3, 20, 20)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
