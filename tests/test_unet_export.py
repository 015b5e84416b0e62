"""Valid and unpooling U-Nets as ONNX: the size of the picture, and PyTorch's labels."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cards import model_card
from torch import Tensor, nn

from edgeseg.engines import open_engine
from edgeseg.engines.tensorrt import PlanOptions, build_engine
from edgeseg.export.network import ExportResult, export_module
from edgeseg.models import build
from edgeseg.models.mirror import same_size
from edgeseg.models.unet_lite import unpool, unpool_by_indices
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import serialize

Exported = tuple[nn.Module, ExportResult]

NETWORKS: dict[str, dict[str, bool | int | float | str]] = {
    "unet": {"width": 8, "depth": 2},
    "unet-lite": {"width": 8, "depth": 1, "upsampling": "unpooling"},
}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Checked on noise, and on a picture of few grey levels, flat in large parts."""
    torch.manual_seed(0)
    model = build(request.param, 3, **NETWORKS[request.param]).eval()
    card = model_card("abc", 33, 46, arch=request.param, options=NETWORKS[request.param])
    random = np.random.default_rng(0)
    flat = 90 * random.integers(0, 2, (5, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = [flat, random.integers(0, 256, (33, 46, 3), np.uint8)]
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return model, export_module(model, card, path, dynamic_batch=True, images=pictures)


def test_onnx_runtime_answers_as_pytorch(exported: Exported) -> None:
    model, result = exported
    assert result.parity.pixels == 2 * 33 * 46
    assert result.parity.mismatched == result.parity.near_ties
    noise = np.random.default_rng(2).normal(size=(3, 3, 33, 46)).astype(np.float32)
    with torch.inference_mode():
        expected = same_size(model)(torch.from_numpy(noise)).argmax(dim=1).numpy()
    with open_engine(result.path) as engine:
        assert engine.capabilities.batch is None
        assert np.mean(engine.infer(noise) == expected) > 0.999
    assert len(np.unique(expected)) > 1


def test_tensorrt_parses_and_builds(exported: Exported) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    graph = to_fp16(onnx.load(exported[1].path))
    plan = build_engine(serialize(graph), PlanOptions(targets=("sm_86",)))
    assert set(plan.precisions.values()) == {"fp16"}


def test_sizes_whose_halves_are_odd_are_enlarged_again(tmp_path: Path) -> None:
    """7 to 15 is not twofold: float32 rounds the factor 15/7 down, and then 14 comes out."""
    model = build("unet-lite", 2, width=8, depth=1).eval()
    card = model_card("ab", 9, 15, options={"width": 8, "depth": 1})
    result = export_module(model, card, tmp_path / "model.onnx")
    noise = np.random.default_rng(0).normal(size=(1, 3, 9, 15)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(noise)).argmax(dim=1).numpy()
    with open_engine(result.path) as engine:
        assert np.mean(engine.infer(noise) == expected) > 0.99
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(str(result.path), "CPU")
    assert np.mean(compiled(noise)[0] == expected) > 0.99


class Unpool(nn.Module):
    """One unpooling by itself."""

    def forward(self, small: Tensor, features: Tensor) -> Tensor:
        return unpool(small, features)


@pytest.mark.filterwarnings("ignore")  # The exporter's own, of its affairs.
def test_unpooling_is_exported_bit_for_bit() -> None:
    torch.manual_seed(0)
    features = torch.randint(-3, 3, (2, 4, 7, 9)).clamp(min=0).float()
    small = torch.randn(2, 4, 3, 4)
    program = torch.onnx.export(Unpool(), (small, features), dynamo=True, verbose=False)
    assert program is not None
    graph = program.model_proto
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert not kinds["MaxUnpool"] + kinds["Reshape"], "TensorRT has no former, a batch no latter"
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, (small.numpy(), features.numpy()), strict=True))
    (exported,) = session.run(None, feed)
    assert np.array_equal(exported, unpool_by_indices(small, features).numpy())
