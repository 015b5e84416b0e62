"""``build`` and what every architecture must hold to."""

import copy
import functools

import pytest
import torch
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import ARCHITECTURES, build
from edgeseg.models.mirror import same_size

SMALL: dict[str, dict[str, bool | int | float | str]] = {
    "unet-lite": {"width": 8, "depth": 2},
    "unet": {"width": 8, "depth": 2},
    "fcn8s": {"fc_width": 8, "dropout": 0.0},
    "fcn16s": {"fc_width": 8, "dropout": 0.0},
    "fcn32s": {"fc_width": 8, "dropout": 0.0},
}


def small(arch: str, in_channels: int = 3) -> nn.Module:
    """For 3 classes, and the caller's own."""
    network = copy.deepcopy(_small(arch, in_channels))
    torch.manual_seed(0)
    return network


@functools.cache  # Drawing the weights of a VGG16 takes longer than what most tests do with it.
def _small(arch: str, in_channels: int) -> nn.Module:
    torch.manual_seed(0)
    return same_size(build(arch, 3, in_channels, **SMALL[arch])).eval()


def test_every_architecture_is_tested() -> None:
    assert SMALL.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 34)])
def test_logits_have_the_size_of_the_picture(arch: str, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert small(arch)(torch.rand(2, 3, *size)).shape == (2, 3, *size)
        assert small(arch, in_channels=1)(torch.rand(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_pictures_of_a_batch_do_not_mix(arch: str) -> None:
    network, batch = small(arch), torch.rand(2, 3, 32, 32)
    for name, parameter in network.named_parameters():
        if name.startswith("score"):
            nn.init.normal_(parameter)
    with torch.inference_mode():
        together = network(batch)
        apart = torch.cat([network(batch[:1]), network(batch[1:])])
    # Batches of two take other kernels, whose float32 sums differ in proportion to the terms
    # and not to what is left of them: logits near 0 are differences of much larger ones.
    close = {"rtol": 1e-3, "atol": 1e-5 * float(apart.abs().max())}
    assert torch.allclose(together, apart, **close)
    assert not torch.allclose(together[0], together[1], **close)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_learns_something_everywhere(arch: str) -> None:
    """Each trained tensor gets a gradient once the zero-initialised heads have moved."""
    network = small(arch).train()
    for name, parameter in network.named_parameters():
        if name.startswith("score"):
            nn.init.normal_(parameter)
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES.keys() - {"unet"}))
def test_too_small_a_picture_says_the_size_to_pad_to(arch: str) -> None:
    with pytest.raises(UsageError, match=r"picture of 40×3 is too small .* pad it to 40×\d+"):
        small(arch)(torch.rand(1, 3, 3, 40))


@pytest.mark.parametrize(
    ("arch", "classes", "channels", "options", "reason"),
    [
        ("resnet", 2, 3, {}, "there are unet-lite, unet, fcn8s"),
        ("unet-lite", 2, 3, {"widht": 8}, "it has width, depth, stem_stride, skips, upsampling"),
        ("unet-lite", 2, 3, {"width": 12}, "multiple of 8"),
        ("unet-lite", 2, 3, {"decoder_width": 12}, "decoder_width is a multiple of 8"),
        ("unet-lite", 2, 3, {"width": 16.0}, "width is of type int, not 16.0"),
        ("unet-lite", 2, 3, {"depth": True}, "depth is of type int"),
        ("unet-lite", 2, 3, {"depth": 10**9}, "depth is from 1 to 6"),
        ("unet-lite", 2, 3, {"stem_stride": 4}, "stem_stride is 1 or 2"),
        ("unet-lite", 2, 3, {"upsampling": "nearest"}, "bilinear, deconvolution, unpooling"),
        ("unet", 2, 3, {"width": 20}, "multiple of 8"),
        ("unet", 2, 3, {"depth": 0}, "depth is from 1 to 6"),
        ("unet", 2, 3, {"dropout": 1.0}, "dropout is from 0 to below 1"),
        ("fcn8s", 2, 3, {"fc_width": 0}, "fc_width is from 8"),
        ("fcn32s", 2, 3, {"dropout": 1.0}, "dropout is from 0"),
        ("fcn8s", 1, 3, {}, "classes"),
        ("fcn8s", 2, 4, {}, "1 or 3 input channels"),
    ],
)
def test_refuses(
    arch: str,
    classes: int,
    channels: int,
    options: dict[str, bool | int | float | str],
    reason: str,
) -> None:
    with pytest.raises(UsageError, match=reason):
        build(arch, classes, channels, **options)
