import contextlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cards import model_card
from onnx import ModelProto, numpy_helper
from torch import nn

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.sidecar import read, verify
from edgeseg.engines import open_engine
from edgeseg.errors import InferenceError, NonFiniteOutput
from edgeseg.export.network import ExportResult, check_parity, export_module, export_onnx
from edgeseg.models import build
from edgeseg.precision.graph import copy_of, read_card, tensors, typed
from edgeseg.training.checkpoint import save_checkpoint

OPTIONS = {"width": 8, "depth": 2}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and batch statistics such that every class is answered somewhere."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                # Fresh score layers may be all zero, and a zero bias is not exported.
                module.weight.normal_(0, 0.1)
                module.bias.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return model_card(("background", "nucleus", "other"), 32, 48, name="small", options=OPTIONS)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return lively(build("unet-lite", 3, **OPTIONS))


@pytest.fixture(scope="module")
def checkpoint(model: nn.Module, card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_checkpoint(path, model, card)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> ExportResult:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        result = export_onnx(checkpoint, checkpoint.with_name("model.onnx"))
    assert said.getvalue() == "", "stdout is for results"
    return result


@pytest.fixture(scope="module")
def graph(exported: ExportResult) -> ModelProto:
    return onnx.load(exported.path)


def inputs(count: int, card: ModelCard) -> np.ndarray:
    random = np.random.default_rng(count)
    return random.normal(size=(count, *card.input.shape)).astype(np.float32)


def test_parity_is_counted(exported: ExportResult) -> None:
    parity = exported.parity
    assert (parity.images, parity.pixels) == (2, 2 * 32 * 48)
    assert parity.mismatched == parity.near_ties


def test_onnx_runtime_answers_as_pytorch(
    model: nn.Module, exported: ExportResult, card: ModelCard
) -> None:
    tensor = inputs(1, card)
    with torch.inference_mode():
        expected = model(torch.from_numpy(tensor)).argmax(dim=1).numpy()
    assert set(np.unique(expected)) == {0, 1, 2}
    with open_engine(exported.path) as engine:
        assert (engine.infer(tensor) == expected).mean() > 0.999


def test_the_graph_is_plain(graph: ModelProto) -> None:
    kinds = Counter(node.op_type for node in graph.graph.node)
    # A UNetLite of depth 2 has 3 + 2 double convolutions, 2 narrowing ones and a head.
    assert kinds == {
        "Conv": 13,
        "Relu": 10,
        "MaxPool": 2,
        "Resize": 2,
        "Concat": 2,
        "ArgMax": 1,
        "Cast": 1,
    }
    assert (graph.opset_import[0].version, graph.ir_version) == (18, 8)
    known = tensors(typed(graph, "model.onnx"))
    assert known["image"].shape == (1, 3, 32, 48)
    assert known["labels"].shape == (1, 32, 48)
    assert all(None not in tensor.shape for tensor in known.values())
    for node in graph.graph.node:
        if node.op_type == "Resize":
            assert len(node.input) == 3, "scales, not sizes, which would fix the batch"


def test_nodes_are_named_by_their_modules(graph: ModelProto) -> None:
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem.0/Conv", "head/Conv", "up.0.narrow/Conv", "up.1/Resize"} <= set(names)


def test_nothing_of_this_machine_is_in_the_file(exported: ExportResult) -> None:
    data = exported.path.read_bytes()
    for trace_of in (b"site-packages", b".py", str(Path(__file__).parents[1]).encode()):
        assert trace_of not in data


def test_card_and_side_car(checkpoint: Path, exported: ExportResult, graph: ModelProto) -> None:
    parent = read(checkpoint)
    made = verify(exported.path, required=True)
    assert parent is not None
    assert made is not None
    assert made.card == exported.card == read_card(graph, "model.onnx")
    assert made.card.parent_sha256 == parent.artifact_sha256
    assert made.runtime == "onnxruntime"
    assert made.precision is not None
    assert made.precision.precision == "fp32"


def test_export_is_repeatable_and_an_open_batch_changes_nothing_else(
    model: nn.Module, exported: ExportResult, tmp_path: Path
) -> None:
    result = export_module(model, exported.card, tmp_path / "any.onnx", dynamic_batch=True)
    with open_engine(result.path) as engine:
        assert engine.capabilities.batch is None
        many = inputs(3, exported.card)
        together = engine.infer(many).copy()
        for tensor, labels in zip(many, together, strict=True):
            assert np.array_equal(engine.infer(tensor[np.newaxis])[0], labels)
    opened = onnx.load(result.path)
    for value in (*opened.graph.input, *opened.graph.value_info, *opened.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        if dimension.dim_param:
            dimension.dim_value = 1
    # Byte for byte, which says as well that a second export of the same weights is the first.
    assert opened.SerializeToString(deterministic=True) == exported.path.read_bytes()


def save_with_bias(graph: ModelProto, added: float, path: Path) -> None:
    """Save a copy of the network in which class 0 scores higher."""
    changed = copy_of(graph)
    bias = next(w for w in changed.graph.initializer if w.name == "head.bias")
    shifted = numpy_helper.to_array(bias) + np.array([added, 0, 0], np.float32)
    bias.CopyFrom(numpy_helper.from_array(shifted, bias.name))
    onnx.save(changed, path)


def test_a_tampered_graph_fails_parity(
    model: nn.Module, exported: ExportResult, graph: ModelProto, card: ModelCard, tmp_path: Path
) -> None:
    assert check_parity(model, exported.path, inputs(2, card)).images == 2
    save_with_bias(graph, 0.05, tmp_path / "model.onnx")
    with pytest.raises(InferenceError, match=r"differs from PyTorch in \d+ of 3072 pixels"):
        check_parity(model, tmp_path / "model.onnx", inputs(2, card))


def test_near_ties_may_differ(
    model: nn.Module, graph: ModelProto, card: ModelCard, tmp_path: Path
) -> None:
    save_with_bias(graph, 0.0005, tmp_path / "model.onnx")
    parity = check_parity(model, tmp_path / "model.onnx", inputs(24, card))
    assert parity.mismatched == parity.near_ties > 0


def test_a_failed_export_writes_nothing(
    card: ModelCard, graph: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeseg.export.network.trace", lambda *_, **__: graph)
    of_other_weights = lively(build("unet-lite", 3, **OPTIONS), seed=1)
    target = tmp_path / "run" / "model.onnx"
    with pytest.raises(InferenceError, match="nothing was written"):
        export_module(of_other_weights, card, target)
    assert not any(target.parent.iterdir())


def test_networks_that_are_not_finite_are_refused(exported: ExportResult, card: ModelCard) -> None:
    broken = build("unet-lite", 3, **OPTIONS).eval()
    with torch.no_grad():
        broken.head.bias[1] = float("nan")  # type: ignore[index,operator,union-attr]
    with pytest.raises(NonFiniteOutput):
        check_parity(broken, exported.path, inputs(1, card))
