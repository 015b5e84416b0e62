"""The original U-Net: the paper's sizes, its margin, and which sizes it takes."""

import re

import pytest
import torch
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import build
from edgeseg.models.unet import UNet


def small(depth: int = 2, **options: bool | int | float) -> UNet:
    torch.manual_seed(0)
    return UNet(2, 1, width=8, depth=depth, **options).eval()  # type: ignore[arg-type]


def test_figure_1_of_the_paper() -> None:
    """Every size written into the figure, from 572 down to 28 and up to 388."""
    with torch.device("meta"):
        network, picture = build("unet", 2, 1), torch.zeros(1, 1, 572, 572)
    sizes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, made: sizes.append(tuple(made.shape[1:3])))
    network(picture)
    down = [(64, 570), (64, 568), (128, 282), (128, 280), (256, 138), (256, 136), (512, 66)]
    bottom = [(512, 64), (1024, 30), (1024, 28)]
    up = [(512, 56), (512, 54), (512, 52), (256, 104), (256, 102), (256, 100)]
    top = [(128, 200), (128, 198), (128, 196), (64, 392), (64, 390), (64, 388), (2, 388)]
    assert sizes == down + bottom + up + top


def test_23_convolutional_layers() -> None:
    with torch.device("meta"):
        network = build("unet", 2, 1)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_valid_sizes_are_those_that_lose_nothing_in_pooling(depth: int) -> None:
    """Against the arithmetic of the layers, one after another."""

    def logits_size(size: int) -> int | None:
        for _ in range(depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            size //= 2
        size -= 4
        for _ in range(depth):
            size = 2 * size - 4
        return size if size > 0 else None

    network = small(depth)
    valid = [size for size in range(1, 150) if logits_size(size) is not None]
    for size in range(1, valid[-1] + 1):
        assert network.valid_size(size) == next(other for other in valid if other >= size)
    with torch.inference_mode():
        for size in valid[:3]:
            assert logits_size(size) == size - 2 * network.margin
            assert network(torch.zeros(1, 1, size, valid[0])).shape[2] == size - 2 * network.margin


@pytest.mark.parametrize(("height", "width"), [(100, 102), (99, 100), (8, 100), (43, 43)])
def test_other_sizes_are_refused_and_the_nearest_named(height: int, width: int) -> None:
    network = small()
    with pytest.raises(UsageError, match=f"picture of {width}×{height} does not halve") as refused:
        network(torch.zeros(1, 1, height, width))
    named = [int(size) for size in re.findall(r"\d+", refused.value.message.split("sizes are")[1])]
    assert named[0] <= max(width, 44) <= named[1]
    assert named[2] <= max(height, 44) <= named[3]
    with torch.inference_mode():
        for size in named:
            assert network(torch.zeros(1, 1, size, size)).shape[-1] == size - 2 * network.margin


def test_output_pixels_have_seen_true_neighbourhood_only() -> None:
    """Shifting the picture by the stride shifts the logits exactly: no padding anywhere."""
    network = small()
    picture = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        whole = network(picture)
        shifted = network(picture[..., 4:, 8:60])
    assert torch.allclose(whole[..., 4:, 8:20], shifted, atol=1e-5)
    assert not torch.allclose(whole[..., 3:23, 8:20], shifted, atol=1e-5)


def test_crops_are_taken_from_the_middle() -> None:
    """With kernels that look alike from all sides, a mirrored picture gives mirrored logits."""
    network, picture = small(), torch.rand(1, 1, 60, 48)

    def keeps_symmetry() -> bool:
        with torch.inference_mode():
            mirrored = network(picture.flip(-1, -2)).flip(-1, -2)
            return torch.allclose(network(picture), mirrored, rtol=1e-3, atol=1e-5)

    assert not keeps_symmetry()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.copy_(weight.mean(dim=(2, 3), keepdim=True).expand_as(weight))
    assert keeps_symmetry()
    with torch.inference_mode():
        assert float(network(picture).std()) > 1e-3


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    for name, weight in build("unet", 2, width=32, depth=3).state_dict().items():
        if weight.ndim == 4 and weight.numel() > 2000:
            # A deconvolution of stride 2 reads one pixel of each channel, and stores them first.
            fan_in = weight.shape[0] if "deconvolution" in name else weight[0].numel()
            assert float(weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1), name


def test_dropout_is_for_training() -> None:
    picture = torch.rand(1, 1, 48, 48)
    network = small(dropout=0.5)
    assert torch.equal(network(picture), network(picture))
    network.train()
    assert not torch.equal(network(picture), network(picture))
    without = small(dropout=0.0).train()
    assert torch.equal(without(picture), without(picture))


def test_batch_norm_if_asked_for() -> None:
    norms = [m for m in small(batch_norm=True).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 10
