"""Weights learnt before: VGG16 files, checkpoints of the family, and files that are refused."""

import copy
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from cards import model_card
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UntrustedArtifact, UsageError
from edgeseg.models import build
from edgeseg.models.fcn import FCN8s, FCN32s
from edgeseg.models.pretrained import load_imagenet, load_pretrained
from edgeseg.models.vgg import VGG16
from edgeseg.training.checkpoint import save_checkpoint

IMAGENET = Path(__file__).parents[3] / "shared/weights/vgg16-imagenet-conv.fp16.safetensors"
WIDTH = 16
"""Of the dense layers in the files here, instead of 4096."""


@pytest.fixture(scope="module")
def convolutions() -> dict[str, Tensor]:
    """As torchvision names them, in half precision."""
    torch.manual_seed(1)
    with torch.device("meta"):
        expected = VGG16(fc_width=8).features.state_dict()
    return {f"features.{n}": torch.rand(v.shape).half() for n, v in expected.items()}


@pytest.fixture(scope="module")
def dense() -> dict[str, Tensor]:
    torch.manual_seed(2)
    shapes = {0: (WIDTH, 512 * 49), 3: (WIDTH, WIDTH), 6: (1000, WIDTH)}
    weights = {f"classifier.{layer}.weight": torch.randn(shape) for layer, shape in shapes.items()}
    biases = {f"classifier.{n}.bias": torch.randn(rows) for n, (rows, _) in shapes.items()}
    return weights | biases


@pytest.fixture(scope="module")
def vgg16(
    convolutions: dict[str, Tensor], dense: dict[str, Tensor], tmp_path_factory: Any
) -> dict[str, Path]:
    folder: Path = tmp_path_factory.mktemp("vgg16")
    paths = {name: folder / name for name in ("conv.safetensors", "all.safetensors", "all.pth")}
    save_file(convolutions, paths["conv.safetensors"])
    save_file(convolutions | dense, paths["all.safetensors"])
    torch.save(convolutions | dense, paths["all.pth"])
    return paths


def fcn32s() -> FCN32s:
    """A fresh one for 3 classes, and the caller's own."""
    return copy.deepcopy(_fcn32s())


@functools.cache  # Drawing the weights of a VGG16 takes longer than what most tests do with it.
def _fcn32s() -> FCN32s:
    return FCN32s(3, fc_width=8)


@pytest.mark.parametrize("arch", ["fcn32s", "fcn16s", "fcn8s"])
def test_convolutions_alone(
    arch: str, vgg16: dict[str, Path], convolutions: dict[str, Tensor]
) -> None:
    network = build(arch, 3, fc_width=8)
    before = network.state_dict()["vgg.fc6.weight"].clone()
    copied = load_pretrained(network, vgg16["conv.safetensors"])
    state = network.state_dict()
    assert sorted(copied) == sorted(f"vgg.{name}" for name in convolutions)
    assert all(torch.equal(state[f"vgg.{n}"], v.float()) for n, v in convolutions.items())
    assert state["vgg.features.0.weight"].dtype == torch.float32
    assert torch.equal(state["vgg.fc6.weight"], before)


@pytest.mark.parametrize("file", ["all.safetensors", "all.pth"])
@pytest.mark.parametrize("width", [WIDTH, WIDTH // 2])
def test_dense_layers_as_well(
    file: str, width: int, vgg16: dict[str, Path], dense: dict[str, Tensor]
) -> None:
    network = FCN32s(3, fc_width=width)
    assert len(load_pretrained(network, vgg16[file])) == 30
    every = WIDTH // width
    assert torch.equal(network.vgg.fc6.bias, dense["classifier.0.bias"][::every])
    assert torch.equal(
        network.vgg.fc7.weight[..., 0, 0], dense["classifier.3.weight"][::every, ::every]
    )


def test_a_wider_network_than_the_file(vgg16: dict[str, Path]) -> None:
    with pytest.raises(MismatchedArtifact, match=r"expected fc6\.weight of shape \(64, .* \(16, "):
        load_pretrained(FCN32s(3, fc_width=64), vgg16["all.safetensors"])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"features.5.weight": torch.zeros(2, 2)}, r"features\.5\.weight of .* found \(2, 2\)"),
        ({"features.28.bias": None}, r"features\.28\.bias .* found nothing"),
        ({"features.30.bias": torch.zeros(1)}, r"features\.30\.bias of shape nothing"),
        ({"classifier.0.weight": torch.zeros(WIDTH, 50)}, "are not dense layers of VGG16"),
        ({"classifier.3.weight": torch.zeros(WIDTH)}, "are not dense layers of VGG16"),
    ],
)
def test_other_weights_than_vgg16(
    changed: dict[str, Tensor | None],
    reason: str,
    convolutions: dict[str, Tensor],
    dense: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    network, path = fcn32s(), tmp_path / "vgg16.safetensors"
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tensors = convolutions | dense | changed
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    with pytest.raises(MismatchedArtifact, match=reason):
        load_pretrained(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_networks_without_a_place_for_them(vgg16: dict[str, Path]) -> None:
    with pytest.raises(MismatchedArtifact, match="UNetLite has no VGG16 inside"):
        load_pretrained(build("unet-lite", 2, width=8), vgg16["conv.safetensors"])
    with pytest.raises(MismatchedArtifact, match="takes grey"):
        load_pretrained(FCN32s(2, 1, fc_width=8), vgg16["conv.safetensors"])


def save(folder: Path, arch: str, classes: int, **options: int | float) -> tuple[Path, nn.Module]:
    """A checkpoint as training leaves it, with random scores."""
    torch.manual_seed(3)
    network = build(arch, classes, **options)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and not name.startswith("vgg"):
            nn.init.normal_(parameter)
    card = model_card(
        (f"class {number}" for number in range(classes)),
        64,
        64,
        name=arch,
        arch=arch,
        options=options,
    )
    path = folder / f"{arch}-{classes}.safetensors"
    save_checkpoint(path, network, card)
    return path, network


@pytest.fixture(scope="module")
def stages(tmp_path_factory: Any) -> dict[str, tuple[Path, nn.Module]]:
    folder: Path = tmp_path_factory.mktemp("stages")
    return {arch: save(folder, arch, 3, fc_width=8) for arch in ("fcn32s", "fcn16s")}


@pytest.mark.parametrize(
    ("before", "after", "fresh"),
    [
        ("fcn32s", "fcn16s", {"score_pool4.weight", "score_pool4.bias", "twice_fc7.weight"}),
        ("fcn16s", "fcn8s", {"score_pool3.weight", "score_pool3.bias", "twice_pool4.weight"}),
    ],
)
def test_each_fcn_starts_from_the_one_before(
    before: str, after: str, fresh: set[str], stages: dict[str, tuple[Path, nn.Module]]
) -> None:
    path, source = stages[before]
    network = build(after, 3, fc_width=8)
    copied = set(load_pretrained(network, path))
    state, learnt = network.state_dict(), source.state_dict()
    assert state.keys() - copied == fresh | {"upsample.weight"}
    assert all(torch.equal(state[name], learnt[name]) for name in copied)
    assert {"vgg.fc6.weight", "score_fc7.weight"} <= copied


def test_other_classes_leave_the_head_fresh(tmp_path: Path) -> None:
    path, source = save(tmp_path, "unet-lite", 5, width=8, depth=2)
    network = build("unet-lite", 3, width=8, depth=2)
    copied = load_pretrained(network, path)
    assert network.state_dict().keys() - set(copied) == {"head.weight", "head.bias"}
    assert torch.equal(network.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])


def test_what_is_fixed_stays_bilinear(tmp_path: Path) -> None:
    path, _ = save(tmp_path, "fcn32s", 2, fc_width=8, learn_upsampling=True)
    fixed, learnt = (FCN32s(2, fc_width=8, learn_upsampling=learn) for learn in (False, True))
    assert "upsample.weight" not in load_pretrained(fixed, path)
    assert "upsample.weight" in load_pretrained(learnt, path)
    assert not torch.equal(fixed.upsample.weight, learnt.upsample.weight)


def test_checkpoints_of_nothing_alike(tmp_path: Path) -> None:
    path, _ = save(tmp_path, "unet-lite", 2, width=8, depth=2)
    with pytest.raises(MismatchedArtifact, match="no layer in it .* this FCN8s"):
        load_pretrained(FCN8s(2, fc_width=8), path)
    # Its head's bias and its counters have the same shapes, which is no reason to go on.
    with pytest.raises(MismatchedArtifact, match="no layer in it .* this UNetLite"):
        load_pretrained(build("unet-lite", 2, width=24, depth=2), path)


class _Intruder:
    """What a pickle can do when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused(zipped: bool, tmp_path: Path) -> None:
    path, target = tmp_path / "vgg16.pth", tmp_path / "intruded"
    torch.save(
        {"features.0.weight": _Intruder(target)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(UntrustedArtifact, match=r"vgg16\.pth is a pickle that holds more"):
        load_pretrained(fcn32s(), path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file does what it is refused for"


def test_damaged_weights(convolutions: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "vgg16.safetensors"
    save_file(convolutions | {"features.0.bias": torch.full((64,), torch.nan)}, path)
    with pytest.raises(CorruptArtifact, match=r"features\.0\.bias holds NaN"):
        load_pretrained(fcn32s(), path)
    path, _ = save(tmp_path, "unet-lite", 2, width=8, depth=2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="its bytes changed"):
        load_pretrained(build("unet-lite", 2, width=8, depth=2), path)
    with pytest.raises(UsageError, match="absent"):
        load_pretrained(fcn32s(), tmp_path / "absent.safetensors")


def stand_in(monkeypatch: pytest.MonkeyPatch, get_state_dict: Callable[..., Any]) -> None:
    """torchvision, but for the weights' origin: fetching them takes half a gigabyte."""
    weights = SimpleNamespace(url="https://host/vgg16.pth", get_state_dict=get_state_dict)
    models = ModuleType("torchvision.models")
    models.VGG16_Weights = SimpleNamespace(IMAGENET1K_V1=weights)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def test_weights_of_torchvision(
    convolutions: dict[str, Tensor],
    dense: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, bool] = {}

    def get_state_dict(**options: bool) -> dict[str, Tensor]:
        asked.update(options)
        print("Downloading")
        return convolutions | dense

    stand_in(monkeypatch, get_state_dict)
    network = fcn32s()
    assert len(load_imagenet(network)) == 30
    assert torch.equal(network.vgg.fc6.bias, dense["classifier.0.bias"][::2])
    assert asked == {"progress": False, "check_hash": True, "weights_only": True}
    assert capsys.readouterr() == ("", "Downloading\n"), "stdout is for results"
    with pytest.raises(MismatchedArtifact, match="UNetLite has no VGG16 inside"):
        load_imagenet(build("unet-lite", 2, width=8))


@pytest.mark.skipif(not IMAGENET.exists(), reason="the ImageNet weights are not beside the project")
def test_real_imagenet_weights() -> None:
    network = fcn32s()
    assert len(load_pretrained(network, IMAGENET)) == 26
    first = network.vgg.state_dict()["features.0.weight"]
    # The first filters of a trained VGG16 are edges and colours: far from white noise.
    neighbours = torch.corrcoef(torch.stack([first[..., :-1].flatten(), first[..., 1:].flatten()]))
    assert float(neighbours[0, 1]) > 0.2


@pytest.mark.parametrize("file", ["conv.safetensors", "all.pth"])
def test_a_truncated_file(file: str, vgg16: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(vgg16[file].read_bytes()[:1000])
    with pytest.raises(CorruptArtifact, match=file):
        load_pretrained(fcn32s(), path)
