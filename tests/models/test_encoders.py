"""Encoders of timm: weights equal to timm's own, wrong files refused, a run from end to end."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeseg.building import BuildConfig
from edgeseg.building import build as build_engine
from edgeseg.errors import (
    CorruptArtifact,
    MismatchedArtifact,
    RuntimeMissing,
    UntrustedArtifact,
    UsageError,
)
from edgeseg.export.network import export_onnx
from edgeseg.models import build
from edgeseg.models.encoders import statistics
from edgeseg.models.layers import PaddedConv2d
from edgeseg.models.pretrained import load_imagenet, load_pretrained
from edgeseg.options.training import Recipe, TrainConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import measure_ranges
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import EpochStats, train

NAMES = ("test_resnet", "test_byobnet", "mobilenetv3_small_050")
"""Networks of timm's own tests, and one with hard-swish and squeeze-and-excite."""


@pytest.fixture(scope="module", autouse=True)
def timm(torchvision: Any) -> Any:
    return pytest.importorskip("timm", reason="pip install 'edgeseg[timm]'")


def network(name: str, channels: int = 3) -> Any:
    return build("unet-lite", 2, channels, encoder=name, width=8)


def classifier(timm: Any, name: str, path: Path, **changes: Tensor) -> Path:
    """Write weights as timm publishes them, of a classifier for ImageNet; their means are not 0."""
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict()
    random = {k: torch.rand_like(v) for k, v in state.items() if k.endswith("running_mean")}
    save_file(state | random | changes, path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [3, 1])
def test_a_file_gives_the_features_that_timm_gives(
    name: str, channels: int, timm: Any, tmp_path: Path
) -> None:
    path = classifier(timm, name, tmp_path / "weights.safetensors")
    expected = timm.create_model(
        name,
        features_only=True,
        in_chans=channels,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
    ).eval()
    made = network(name, channels).eval()
    decoder = made.head.weight.clone()
    picture = torch.rand(1, channels, 64, 96)
    with torch.inference_mode():
        before = made.encoder(picture)
        copied = load_pretrained(made, path)
        for stride, first, ours, theirs in zip(
            (2, 4, 8, 16, 32), before, made.encoder(picture), expected(picture), strict=True
        ):
            assert ours.shape[-2:] == (64 // stride, 96 // stride)
            assert torch.equal(ours, theirs)
            assert not torch.equal(ours, first)
    assert set(copied) == {key for key in made.state_dict() if key.startswith("encoder.")}
    assert torch.equal(made.head.weight, decoder)


def test_wrong_files_are_refused_by_name(timm: Any, tmp_path: Path) -> None:
    made = network("test_resnet")
    before = {key: value.clone() for key, value in made.state_dict().items()}
    path = tmp_path / "weights.safetensors"
    classifier(timm, "test_byobnet", path)
    with pytest.raises(MismatchedArtifact, match=rf"{path}: expected conv1\.0\.weight .* nothing"):
        load_pretrained(made, path)
    classifier(timm, "test_resnet", path, **{"layer3.0.bn1.weight": torch.ones(3)})
    with pytest.raises(MismatchedArtifact, match=r"layer3\.0\.bn1\.weight of .* found \(3,\)"):
        load_pretrained(made, path)
    mean = torch.full_like(before["encoder.network.bn1.running_mean"], torch.nan)
    classifier(timm, "test_resnet", path, **{"bn1.running_mean": mean})
    with pytest.raises(CorruptArtifact, match=r"bn1\.running_mean holds NaN"):
        load_pretrained(made, path)
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(UntrustedArtifact, match=r"weights\.pth is a pickle"):
        load_pretrained(made, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet81", "no network 'resnet81'.*similar names: resnet18"),
        ("resnet18.a1_in2k", "no network .*similar names: resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", "no network 'hf-hub"),  # whose description would be downloaded
        ("test_convnext", "strides 4, 8, 16, 32, not 2, 4, 8"),
        ("test_mambaout", "cannot be an encoder"),
    ],
)
def test_what_is_no_encoder(name: str, reason: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError) as caught:
        network(name)
    assert re.search(reason, f"{caught.value.message}; {caught.value.hint}")


@pytest.mark.parametrize(
    "options", [{"depth": 3}, {"stem_stride": 2}, {"upsampling": "deconvolution"}]
)
def test_options_of_the_own_encoder_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="its own depth and stem"):
        build("unet-lite", 2, encoder="test_resnet", **options)


def test_every_parameter_learns_at_any_size() -> None:
    made = network("mobilenetv3_small_050")
    logits = made(torch.rand(2, 3, 67, 33))
    assert logits.shape == (2, 2, 67, 33)
    logits.square().sum().backward()
    idle = [n for n, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not idle
    # Gradients of kernels at the rim of small maps are wrong in bfloat16 otherwise.
    assert all(isinstance(m, PaddedConv2d) for m in made.encoder.modules() if hasattr(m, "groups"))
    with pytest.raises(UsageError, match="pad it to 67×32"):
        made(torch.rand(1, 3, 31, 67))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RuntimeMissing, match="timm, which is not installed") as caught:
        network("test_resnet")
    assert "edgeseg[timm]" in str(caught.value.hint)


def test_weights_of_the_hub(timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline, with and without the file in the hub's own cache."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    made = network("test_resnet")
    with pytest.raises(RuntimeMissing, match="weights of test_resnet could not be") as caught:
        load_imagenet(made)
    assert "of timm/test_resnet.r160_in1k on a machine" in str(caught.value.hint)
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    for folder in ("refs", "snapshots/1a"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("1a")
    path = classifier(timm, "test_resnet", repository / "snapshots" / "1a" / "model.safetensors")
    load_imagenet(made)
    assert torch.equal(made.encoder.network.bn1.running_mean, load_file(path)["bn1.running_mean"])
    with (
        pytest.raises(RuntimeMissing, match="timm has no weights for regnetz_005"),
        torch.device("meta"),
    ):
        load_imagenet(network("regnetz_005"))


def test_statistics_of_grey_pictures_are_means() -> None:
    assert statistics("resnet18", 1) == {"mean": (0.449,), "std": (0.226,)}
    assert statistics("test_resnet", 3) == {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture(scope="module")
def config(timm: Any, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    home = tmp_path_factory.mktemp("encoder")
    return TrainConfig(
        small_data,
        home / "run",
        size=(32, 64),
        options={"encoder": "test_resnet", "width": 8},
        weights=classifier(timm, "test_resnet", home / "weights.safetensors"),
        recipe=Recipe(epochs=2, batch_size=4, pretrained_rate=0.1, autocast="off"),
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> Path:
    """A trained network, exported, with its ranges."""
    with pytest.MonkeyPatch.context() as patch:
        without_plots(patch)
        train(config)
    export_onnx(config.run / "model.safetensors", config.run / "model.onnx")
    manifest = config.run / "manifest.json"
    collect(config.data / "train" / "images", manifest, count=4)
    measure_ranges(config.run / "model.onnx", manifest).save(config.run / "model.ranges.json")
    return config.run


def without_plots(patch: pytest.MonkeyPatch) -> None:
    from edgeseg.training import loop

    for name in ("save_curves", "save_predictions"):
        patch.setattr(loop, name, lambda path, *what: path.touch())


def test_resuming_gives_the_same_bits(
    config: TrainConfig, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_plots(monkeypatch)

    def interrupt(stats: EpochStats) -> None:
        raise KeyboardInterrupt

    again = dataclasses.replace(config, run=tmp_path / "run")
    train(again, on_epoch=interrupt)
    half = load_file(again.run / "last.safetensors")
    train(dataclasses.replace(again, resume=True))
    whole, resumed = (load_file(each / "last.safetensors") for each in (run, again.run))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert any(not torch.equal(value, half[name]) for name, value in whole.items())


def test_encoder_learns_at_its_own_rate(config: TrainConfig, run: Path) -> None:
    """Of equal steps of AdamW those of the copied weights are a tenth."""
    assert config.weights is not None
    start, last = load_file(config.weights), load_file(run / "last.safetensors")
    change = (last["encoder.network.layer1.0.conv1.weight"] - start["layer1.0.conv1.weight"]).abs()
    assert 0 < float(change.max()) < 1e-3


def test_checkpoint_loads_without_a_download(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    _, card = load_checkpoint(run / "model.safetensors")
    assert card.options["encoder"] == "test_resnet"
    assert card.input.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("runtime", "library"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tensorrt-rtx", "tensorrt_rtx")],
)
def test_int8_agrees_with_fp32(run: Path, tmp_path: Path, runtime: Any, library: str) -> None:
    pytest.importorskip(library, reason=f"{runtime} is not installed")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    made = build_engine(BuildConfig(copy / "model.onnx", "int8", runtime, min_agreement=0.9))
    assert made.sidecar.card.options["encoder"] == "test_resnet"
    assert made.sidecar.precision is not None
    assert set(made.sidecar.precision.kept) == {"encoder.network.conv1.0/Conv", "head/Conv"}


def test_table_of_encoders_is_what_was_measured() -> None:
    """Parameters, arithmetic, times, agreement and floating operators on the page."""
    root = Path(__file__).parents[2]
    measured = json.loads((root / "bench/results/encoders.json").read_text())["rows"]
    page = (root / "docs/networks.md").read_text().partition("## Encoders of timm")[2]
    for row in measured:
        own = row["encoder"] == "none"
        agreement = " / ".join(f"{100 * share:.1f}" for share in row["agreement"].values())
        names = sorted(row["floating"].keys() - {"Conv", "Resize"})
        cells = [
            "its own, `--stem-stride 2`" if own else f"`{row['encoder']}`",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['gflop']:.1f}",
            f"{row['fp32_ms']:.0f} → {row['int8_ms']:.0f}",
            agreement,
            ", ".join(names) or "none",
        ]
        assert f"| {' | '.join(cells)} |" in page
