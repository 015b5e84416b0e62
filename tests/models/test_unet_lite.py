"""UNetLite: its size, its receptive field, and a graph without surprises."""

import pytest
import torch
from torch import Tensor, nn

from edgeseg.models import build
from edgeseg.models.unet_lite import UPSAMPLINGS


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_two_million_parameters_at_most() -> None:
    with torch.device("meta"):
        assert 1_700_000 < parameters(build("unet-lite", 2)) <= 2_000_000


def _operators(network: nn.Module, size: tuple[int, int]) -> list[str]:
    program = torch.export.export(network.eval(), (torch.zeros(1, 3, *size),))
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_divisible_sizes_neither_crop_nor_pad() -> None:
    """Only convolutions, pooling, upsampling by a constant and joining reach an exporter."""
    network = build("unet-lite", 2, width=8, depth=2, stem_stride=2)
    kinds = {name.split(".")[1] for name in _operators(network, (32, 48))}
    assert kinds == {*("conv2d", "batch_norm", "relu_", "max_pool2d", "upsample_bilinear2d", "cat")}


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_looks_far_and_stays_in_place(stem_stride: int) -> None:
    """A bright pixel moves the logits around itself, and far away through the lower levels."""
    torch.manual_seed(0)
    network = build("unet-lite", 2, width=8, depth=3, stem_stride=stem_stride).eval()
    picture = torch.zeros(1, 3, 96, 96)
    lit = picture.clone()
    lit[..., 40, 56] = 50
    with torch.inference_mode():
        change: Tensor = (network(lit) - network(picture)).abs().sum(dim=1)[0]
    row, column = divmod(int(change.argmax()), 96)
    assert abs(row - 40) <= 4
    assert abs(column - 56) <= 4
    assert bool((change[40, 16:96:8] > 0).all())


@pytest.mark.parametrize("upsampling", ["bilinear", "deconvolution"])
def test_he_initialisation_keeps_the_scale(upsampling: str) -> None:
    torch.manual_seed(0)
    network = build("unet-lite", 2, upsampling=upsampling)
    for name, weight in network.state_dict().items():
        if weight.ndim == 4 and weight.numel() > 2000:
            # A deconvolution of stride 2 reads one pixel of each channel, and stores them first.
            fan_in = weight.shape[0] if "deconvolution" in name else weight[0].numel()
            assert float(weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1), name


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"skips": False}, {"depthwise": True}])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_every_decoder_learns_and_keeps_the_size(
    upsampling: str, options: dict[str, bool], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = build("unet-lite", 2, width=8, depth=2, upsampling=upsampling, **options)
    logits = network(torch.rand(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_depthwise_convolutions_need_the_papers_share_of_the_arithmetic() -> None:
    """Howard et al. 2017, equation 5: 1/N + 1/9 of that of a full one with N outputs."""
    full, divided = (build("unet-lite", 2, depthwise=on).down for on in (False, True))
    for level, (one, other) in enumerate(zip(full, divided, strict=True), 1):  # type: ignore[arg-type]
        outputs, inputs = 16 * 2**level, 16 * 2 ** (level - 1)
        macs = [
            sum(each.weight.numel() for each in block.modules() if isinstance(each, nn.Conv2d))
            for block in (one, other)
        ]
        assert macs[0] == 9 * outputs * (inputs + outputs)
        assert macs[1] / macs[0] == pytest.approx(1 / outputs + 1 / 9)


@pytest.mark.parametrize("options", [{"decoder_width": 8}, {"decoder_width": 24}])
def test_the_decoder_has_its_own_width(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    alike, own = build("unet-lite", 2, width=16), build("unet-lite", 2, width=16, **options)
    width = options["decoder_width"]
    for part in ("stem", "down"):
        assert parameters(getattr(own, part)) == parameters(getattr(alike, part))
    # The blocks of the decoder, from the lowest resolution up.
    outputs = [block.refine[0].out_channels for block in own.up]  # type: ignore[index,union-attr]
    assert outputs == [8 * width, 4 * width, 2 * width, width]
    assert own(torch.rand(1, 3, 40, 56)).shape == (1, 2, 40, 56)


@pytest.mark.parametrize("upsampling", ["bilinear", "deconvolution"])
def test_without_skips_all_passes_the_lowest_resolution(upsampling: str) -> None:
    """A lowest level that says nothing leaves nothing of the picture, but for the skips."""

    def sees_the_picture(*, skips: bool) -> bool:
        torch.manual_seed(0)
        network = build("unet-lite", 2, width=8, depth=2, skips=skips, upsampling=upsampling)
        network.eval().down[-1].register_forward_hook(lambda _, __, low: low * 0)  # type: ignore[index,operator,union-attr]
        with torch.inference_mode():
            one, other = network(torch.rand(2, 3, 32, 32))
        return not torch.equal(one, other)

    assert sees_the_picture(skips=True)
    assert not sees_the_picture(skips=False)


def test_an_odd_rim_is_repeated_not_blank() -> None:
    """Where pooling drops the last row, the deconvolution's last one stands in for it."""
    torch.manual_seed(0)
    network = build("unet-lite", 2, width=8, depth=1, upsampling="deconvolution").eval()
    joined: list[Tensor] = []
    network.up[0].refine.register_forward_pre_hook(  # type: ignore[index,union-attr]
        lambda _, inputs: joined.append(inputs[0][:, 8:])
    )
    with torch.inference_mode():
        network(torch.rand(1, 3, 7, 9))
    assert torch.equal(joined[0][..., 6, :], joined[0][..., 5, :])
    assert torch.equal(joined[0][..., 8], joined[0][..., 7])
    assert not torch.equal(joined[0][..., 5, :], joined[0][..., 4, :])
