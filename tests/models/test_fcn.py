"""FCN-8s: the properties the paper gives its layers, and VGG16 weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from edgeseg.errors import CorruptArtifact, MismatchedArtifact
from edgeseg.models import build
from edgeseg.models.fcn import FCN8s, bilinear_deconvolution
from edgeseg.models.vgg import VGG16, load_imagenet

IMAGENET = Path(__file__).parents[3] / "shared/weights/vgg16-imagenet-conv.fp16.safetensors"


@pytest.mark.parametrize("factor", [2, 8])
def test_deconvolution_starts_as_bilinear_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    small = torch.randn(2, 3, 7, 9)
    enlarged = bilinear_deconvolution(3, factor)(small)
    expected = functional.interpolate(small, scale_factor=factor, mode="bilinear")
    assert enlarged.shape == expected.shape
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(enlarged[inside], expected[inside], atol=1e-5)
    # At the rim a deconvolution fades to zero where interpolation repeats.
    assert not torch.allclose(enlarged, expected, atol=1e-3)


def test_zero_scores_give_zero_logits() -> None:
    network = build("fcn8s", 5, fc_width=8)
    with torch.inference_mode():
        assert not network(torch.randn(1, 3, 64, 33)).any()


def test_only_the_last_deconvolution_is_fixed() -> None:
    network = FCN8s(3, fc_width=8)
    fixed = [name for name, value in network.named_parameters() if not value.requires_grad]
    assert fixed == ["eightfold.weight"]


def test_size_of_the_paper() -> None:
    with torch.device("meta"):
        network = build("fcn8s", 21)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(134.5e6, rel=0.001)


def test_the_skips_reach_the_output_in_place() -> None:
    """A change in one corner moves the logits of that corner most, through each skip alone."""
    torch.manual_seed(0)
    network = FCN8s(2, fc_width=8).eval()
    picture = torch.zeros(1, 3, 97, 97)
    lit = picture.clone()
    lit[..., :16, 72:] = 5

    for head in (network.score_pool3, network.score_pool4, network.score_fc7):
        torch.nn.init.normal_(head.weight)
        with torch.inference_mode():
            change: Tensor = (network(lit) - network(picture)).abs().sum(dim=1)[0]
        torch.nn.init.zeros_(head.weight)
        row, column = divmod(int(change.argmax()), 97)
        assert row < 48
        assert column > 48


def _torchvision_like(network: VGG16, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        f"features.{name}": torch.randn_like(value).to(dtype)
        for name, value in network.features.named_parameters()
    }


def test_layer_numbers_are_those_of_torchvision() -> None:
    numbers = {int(name.split(".")[0]) for name, _ in VGG16(fc_width=8).features.named_parameters()}
    assert sorted(numbers) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_are_copied(tmp_path: Path, dtype: torch.dtype) -> None:
    network, path = FCN8s(2, fc_width=8), tmp_path / "vgg16.safetensors"
    tensors = _torchvision_like(network.vgg, dtype)
    save_file(tensors | {"classifier.0.bias": torch.zeros(4096)}, path)
    assert sorted(network.load_pretrained(path)) == sorted(tensors)
    state = network.vgg.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in tensors.items())
    assert state["features.0.weight"].dtype == torch.float32


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    network, path = VGG16(fc_width=8), tmp_path / "vgg16.safetensors"
    tensors = _torchvision_like(network, torch.float32)
    save_file(tensors | {"features.5.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(MismatchedArtifact, match=r"features\.5\.weight of shape .* found \(2, 2\)"):
        load_imagenet(network, path)
    del tensors["features.28.bias"]
    save_file(tensors, path)
    with pytest.raises(MismatchedArtifact, match=r"features\.28\.bias .* found nothing"):
        load_imagenet(network, path)
    with pytest.raises(MismatchedArtifact, match="takes grey"):
        load_imagenet(VGG16(in_channels=1, fc_width=8), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptArtifact, match=r"vgg16\.safetensors"):
        load_imagenet(network, path)


@pytest.mark.skipif(not IMAGENET.exists(), reason="the ImageNet weights are not beside the project")
def test_real_imagenet_weights() -> None:
    network = VGG16(fc_width=8)
    assert len(load_imagenet(network, IMAGENET)) == 26
    first = network.state_dict()["features.0.weight"]
    # The first filters of a trained VGG16 are edges and colours: far from white noise.
    neighbours = torch.corrcoef(torch.stack([first[..., :-1].flatten(), first[..., 1:].flatten()]))
    assert float(neighbours[0, 1]) > 0.2
