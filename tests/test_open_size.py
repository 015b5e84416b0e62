"""Networks exported with open height and width: PyTorch's labels at sizes never seen."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cards import model_card
from torch import nn

from edgeseg.artifacts.card import InputSpec, ModelCard, OpenSize
from edgeseg.engines import open_engine
from edgeseg.errors import InferenceError, MismatchedArtifact, UsageError
from edgeseg.export.network import ExportResult, export_module
from edgeseg.models import build
from edgeseg.models.mirror import mirror_width, padded_logits, same_size, same_size_logits
from edgeseg.precision.calibration import collect
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import precision_report, write_card
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.ranges import measure_ranges

Exported = tuple[nn.Module, ExportResult]

NETWORKS: dict[str, tuple[str, dict[str, bool | int | float | str], OpenSize]] = {
    "bilinear": ("unet-lite", {"width": 8, "depth": 2}, OpenSize(step=4, smallest=4)),
    "stem": (
        "unet-lite",
        {"width": 8, "depth": 1, "stem_stride": 2, "upsampling": "deconvolution"},
        OpenSize(step=4, smallest=4),
    ),
    # Mirrors 20 + 4 pixels at the right for a stride of 8 (4 for one of 4): more than that.
    "valid": ("unet", {"width": 8, "depth": 2}, OpenSize(step=4, smallest=24)),
}


def card_of(arch: str, options: dict[str, bool | int | float | str], size: int) -> ModelCard:
    return model_card("abc", size, size, arch=arch, options=options)


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    arch, options, _ = NETWORKS[request.param]
    torch.manual_seed(0)
    model = build(arch, 3, **options).eval()
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    result = export_module(
        model, card_of(arch, options, 32), path, dynamic_batch=True, dynamic_size=True
    )
    assert result.card.input.open_size == NETWORKS[request.param][2]
    return model, result


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 24, 72), (1, 3, 60, 28)])
def test_labels_are_pytorchs_at_any_of_the_sizes(
    exported: Exported, shape: tuple[int, ...]
) -> None:
    model, result = exported
    tensor = noise(*shape)
    with torch.inference_mode():
        expected = same_size(model)(torch.from_numpy(tensor)).argmax(dim=1).numpy()
    assert len(np.unique(expected)) > 1
    with open_engine(result.path) as engine:
        labels = engine.infer(tensor)
    assert labels.shape == expected.shape
    assert np.mean(labels == expected) > 0.999


def test_other_sizes_are_refused_with_those_it_takes(exported: Exported) -> None:
    step = exported[1].card.input.open_size
    assert step is not None
    with open_engine(exported[1].path) as engine:
        for height, width in ((33, 32), (32, step.smallest - step.step), (32, 34)):
            with pytest.raises(UsageError, match=f"in multiples of {step.step} from"):
                engine.infer(np.zeros((1, 3, height, width), np.float32))


def test_reduced_precision_keeps_the_open_size(
    exported: Exported, nuclei: Path, tmp_path: Path
) -> None:
    """Ranges and counts are of the card's own size; the graph stays open."""
    model = onnx.load(exported[1].path)
    manifest = tmp_path / "manifest.json"
    collect(nuclei / "train" / "images", manifest, count=2)
    ranges = measure_ranges(exported[1].path, manifest)
    for reduced, kind in (
        (to_fp16(model), "fp16"),
        (to_int8(model, ranges.ranges, graph_format="onnxruntime"), "int8"),
        (to_int8(model, ranges.ranges, graph_format="tensorrt"), "int8"),
    ):
        assert precision_report(reduced).precision == kind
        dims = reduced.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_param for dim in dims] == ["N", "", "H", "W"]
        path = tmp_path / f"{kind}.onnx"
        write_card(reduced, exported[1].card)
        onnx.save(reduced, path)
        with open_engine(path) as engine:
            assert engine.infer(noise(1, 3, 24, 40)).shape == (1, 24, 40)


def test_a_network_that_holds_one_size_is_refused(tmp_path: Path) -> None:
    options = {"width": 8, "depth": 1, "upsampling": "unpooling"}
    card = card_of("unet-lite", options, 32)
    with pytest.raises(UsageError, match="holds values for one size") as caught:
        export_module(
            build("unet-lite", 3, **options), card, tmp_path / "model.onnx", dynamic_size=True
        )
    assert "--dynamic-size" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_a_size_that_does_not_halve_evenly_is_refused(tmp_path: Path) -> None:
    options = {"width": 8, "depth": 2}
    with pytest.raises(UsageError, match="own size is 30x30") as caught:
        export_module(
            build("unet-lite", 3, **options),
            card_of("unet-lite", options, 30),
            tmp_path / "model.onnx",
            dynamic_size=True,
        )
    assert "--size 32x32" in str(caught.value.hint)


class Anchored(nn.Module):
    """Answers by a pattern of one size: a network that says it may vary and may not."""

    stride, margin = 8, 0

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 2, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        rows = torch.tensor([float(y % 2) for y in range(picture.shape[-2])])
        scores: torch.Tensor = self.score(picture) + rows[:, None]
        return scores


def test_a_graph_that_fits_one_size_alone_is_not_written(tmp_path: Path) -> None:
    card = model_card("ab", 16, 16, arch="t")
    with pytest.raises((InferenceError, MismatchedArtifact)):
        export_module(Anchored(), card, tmp_path / "model.onnx", dynamic_size=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_padding_mirrors_as_indexing_does(depth: int) -> None:
    torch.manual_seed(depth)
    model = build("unet", 2, width=8, depth=depth).eval()
    stride = 2**depth
    size = stride * (mirror_width(model) // stride + 1)
    picture = torch.randn(1, 3, size, size + 2 * stride)
    with torch.inference_mode():
        assert torch.equal(padded_logits(model, picture), same_size_logits(model, picture))


def test_a_card_without_open_sizes_reads_as_before() -> None:
    spec = InputSpec(height=16, width=24)
    assert InputSpec.model_validate({"height": 16, "width": 24}) == spec
    assert spec.takes((3, 16, 24))
    assert not spec.takes((3, 32, 24))
    with pytest.raises(ValueError, match="not among its open sizes, multiples of 32 from 32 on"):
        InputSpec(height=16, width=32, open_size=OpenSize(step=32, smallest=32))
