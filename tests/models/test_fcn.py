"""The FCNs: the properties the paper gives their layers, and that all maps lie in place."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models import build
from edgeseg.models.fcn import FCN, FCN8s, FCN16s, FCN32s, bilinear_deconvolution

FCNS = [FCN32s, FCN16s, FCN8s]


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_deconvolution_starts_as_bilinear_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    small = torch.randn(2, 3, 5, 6)
    enlarged = bilinear_deconvolution(3, factor)(small)
    expected = functional.interpolate(small, scale_factor=factor, mode="bilinear")
    assert enlarged.shape == expected.shape
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(enlarged[inside], expected[inside], atol=1e-5)
    # At the rim a deconvolution fades to zero where interpolation repeats.
    assert not torch.allclose(enlarged, expected, atol=1e-3)


@pytest.mark.parametrize("kind", FCNS)
def test_zero_scores_give_zero_logits(kind: type[FCN]) -> None:
    network = kind(5, fc_width=8).eval()
    with torch.inference_mode():
        assert not network(torch.randn(1, 3, 64, 33)).any()


@pytest.mark.parametrize("kind", FCNS)
def test_the_last_deconvolution_is_computed_in_float32(kind: type[FCN]) -> None:
    """PyTorch's bfloat16 kernel for it takes a hundred times as long on a CPU."""
    network = kind(3, fc_width=8).eval()
    nn.init.normal_(network.score_fc7.weight)
    read: list[Tensor] = []
    network.upsample.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(1, 3, 64, 96))
        assert network.score_fc7(torch.randn(1, 8, 2, 3)).dtype == torch.bfloat16
    assert [scores.dtype for scores in read] == [logits.dtype] == [torch.float32]
    assert torch.equal(logits, network.upsample(read[0])[..., :64, :96])


@pytest.mark.parametrize("kind", FCNS)
def test_the_last_deconvolution_alone_is_fixed_unless_asked(kind: type[FCN]) -> None:
    with torch.device("meta"):
        fixed, learnt = kind(3, fc_width=8), kind(3, fc_width=8, learn_upsampling=True)
    assert [n for n, p in fixed.named_parameters() if not p.requires_grad] == ["upsample.weight"]
    assert all(parameter.requires_grad for parameter in learnt.parameters())


def test_dropout_is_that_of_the_option() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 32, 32)
    for dropout in (0.0, 0.5):
        network = FCN32s(3, fc_width=64, dropout=dropout).train()
        nn.init.normal_(network.score_fc7.weight)
        with torch.inference_mode():
            assert torch.equal(network(picture), network(picture)) == (dropout == 0)


def test_size_of_the_paper() -> None:
    with torch.device("meta"):
        network = build("fcn8s", 21)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(134.5e6, rel=0.001)


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "step"), [(FCN32s, 7), (FCN16s, 7), (FCN8s, 1)])
def test_logits_have_the_size_of_any_picture(kind: type[FCN], step: int) -> None:
    with torch.device("meta"):
        network = kind(3, fc_width=8).eval()
        for size in range(32, 301, step):
            picture = torch.empty(1, 3, size, 332 - size)
            assert network(picture).shape == (1, 3, size, 332 - size)


@pytest.fixture(scope="module", params=FCNS)
def passing(request: pytest.FixtureRequest) -> FCN:
    """Every layer hands on its first two channels; the scores are half their difference."""
    network: FCN = request.param(2, fc_width=8)
    with torch.no_grad():
        for layer in network.vgg.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
                middle = layer.kernel_size[0] // 2
                layer.weight[[0, 1], [0, 1], middle, middle] = 1
        heads = [layer for name, layer in network.named_children() if name.startswith("score")]
        for head in heads:
            head.weight[0, :2, 0, 0] = torch.tensor([0.5, -0.5]) / len(heads)
    return network.eval()


@torch.inference_mode()
def displacement(network: FCN, height: int, width: int) -> float:
    """By how much the logits of a ramp differ from that ramp, away from the rim.

    A ramp rises by 1 a column and by 2 a row. The highest value of a cell is at one of its
    corners, the lowest at the other, and their mean is the ramp at the cell's centre: so maps
    that lie where they should interpolate to the ramp itself, and a shift is seen in full.
    """
    ramp = torch.arange(width) + 2.0 * torch.arange(height)[:, None]
    top = ramp.max()
    picture = torch.stack([top + ramp, top - ramp, torch.zeros_like(ramp)])[None]
    inside = (slice(64, -96), slice(64, -96))
    return float((network(picture)[0, 0] - ramp)[inside].abs().max())


@pytest.mark.parametrize("size", [(192, 209), (193, 207), (199, 185)])
def test_all_maps_lie_in_place(passing: FCN, size: tuple[int, int]) -> None:
    assert displacement(passing, *size) < 0.01


def test_a_shift_is_seen(passing: FCN, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop of the middle, as after a margin on both sides, is out of place."""

    def crop_middle(scores: Tensor, like: Tensor) -> Tensor:
        for axis in (-2, -1):
            spare = scores.shape[axis] - like.shape[axis]
            scores = scores.narrow(axis, spare // 2, like.shape[axis])
        return scores

    monkeypatch.setattr("edgeseg.models.fcn._crop", crop_middle)
    assert displacement(passing, 193, 207) > 0.5


def test_the_skips_reach_the_output_in_place() -> None:
    """A change in one corner moves the logits of that corner most, through each skip alone."""
    torch.manual_seed(0)
    network = FCN8s(2, fc_width=8).eval()
    picture = torch.zeros(1, 3, 97, 97)
    lit = picture.clone()
    lit[..., :16, 72:] = 5

    for head in (network.score_pool3, network.score_pool4, network.score_fc7):
        nn.init.normal_(head.weight)
        with torch.inference_mode():
            change: Tensor = (network(lit) - network(picture)).abs().sum(dim=1)[0]
        nn.init.zeros_(head.weight)
        row, column = divmod(int(change.argmax()), 97)
        assert row < 48
        assert column > 48
