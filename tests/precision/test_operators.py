"""The operators of published networks in INT8 and FP16: MobileNetV3, SegFormer, DeepLab."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graphs import onnx_network
from numpy.typing import ArrayLike
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import PrecisionReport
from edgeseg.building import BuildConfig, build
from edgeseg.building import plan as plans
from edgeseg.data.folders import list_images
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.export.network import trace
from edgeseg.precision.calibration import collect
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import precision_report, producers, serialize
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.ranges import Ranges, measure_ranges
from edgeseg.precision.sensitivity import Probe


class Mobile(nn.Module):
    """Depthwise convolution, hard-swish, squeeze-and-excite and a residual (MobileNetV3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.grouped = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2)
        self.squeeze = nn.Conv2d(2 * width, width, 1)
        self.excite = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.hardswish(self.depthwise(functional.hardswish(self.expand(x))))
        inner = functional.relu6(self.grouped(inner))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(inner, 1)))
        return x + self.project(inner * functional.hardsigmoid(self.excite(gate)))


class Attention(nn.Module):
    """Layer normalisation, attention to fewer keys, a GELU between linear layers (SegFormer)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.reduce = nn.Conv2d(width, width, 4, stride=4)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        inner = self.before(tokens)
        fewer = self.reduce(inner.transpose(1, 2).reshape(x.shape)).flatten(2).transpose(1, 2)
        weights = self.q_proj(inner) @ self.k_proj(fewer).transpose(1, 2) / inner.shape[-1] ** 0.5
        tokens = tokens + weights.softmax(-1) @ self.v_proj(fewer)
        tokens = tokens + self.fc2(functional.gelu(self.fc1(self.after(tokens))))
        return tokens.transpose(1, 2).reshape(x.shape)


class Pyramid(nn.Module):
    """Dilated convolutions beside an image pooling that is enlarged again (DeepLab)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 1)
        self.far = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.pooling = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.relu(self.pooling(functional.adaptive_avg_pool2d(x, 1)))
        pooled = functional.interpolate(pooled, x.shape[-2:], mode="bilinear")
        parts = [functional.relu(self.near(x)), functional.relu(self.far(x)), pooled]
        return functional.relu(self.project(torch.cat(parts, 1)))


class Published(nn.Module):
    """One block of each kind between a strided stem and scores at a quarter of the size."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.mobile, self.attention, self.pyramid = Mobile(width), Attention(width), Pyramid(width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.pyramid(self.attention(self.mobile(self.stem(x))))
        scores: Tensor = functional.interpolate(
            self.head(inner), scale_factor=4, mode="bilinear", align_corners=False
        )
        return scores


ATTENTION = {"attention/MatMul", "attention/MatMul_2"}


@pytest.fixture(scope="module")
def run(card: ModelCard, nuclei: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, its ranges and the pictures that they were measured on."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(1)
    onnx.save(trace(Published().eval(), card), folder / "model.onnx")
    (folder / "pictures").mkdir()
    for path in list_images(nuclei / "train" / "images")[:4]:
        shutil.copy(path, folder / "pictures")
    manifest = folder / "manifest.json"
    collect(folder / "pictures", manifest, count=4, seed=0)
    measure_ranges(folder / "model.onnx", manifest).save(folder / "model.ranges.json")
    return folder


@pytest.fixture(scope="module")
def published(run: Path) -> ModelProto:
    return onnx.load(run / "model.onnx")


@pytest.fixture(scope="module")
def measured(run: Path) -> Ranges:
    return Ranges.model_validate_json((run / "model.ranges.json").read_text())


@pytest.fixture(scope="module")
def probe(run: Path, published: ModelProto) -> Probe:
    with OnnxRuntimeEngine(run / "model.onnx") as engine:
        return Probe(engine, published, list_images(run / "pictures"), 4)


@pytest.mark.parametrize("graph_format", ["onnxruntime", "openvino", "tensorrt"])
def test_every_layer_with_weights_is_quantised_but_the_ends(
    published: ModelProto, measured: Ranges, probe: Probe, graph_format: GraphFormat
) -> None:
    made = to_int8(published, measured.ranges, graph_format=graph_format)
    onnx.checker.check_model(made, full_check=True)
    assert set(precision_report(made).kept) == {"stem/Conv", "head/Conv", *ATTENTION}
    # Products are exact here on any processor.
    error = probe.score_error(made)
    assert error is not None
    assert error < 0.05
    wrong = {name: (low / 20, high / 20) for name, (low, high) in measured.ranges.items()}
    clipped = probe.score_error(to_int8(published, wrong, graph_format=graph_format))
    assert clipped is not None
    assert clipped > 0.1


def test_depthwise_and_grouped_weights_have_a_scale_per_channel(
    published: ModelProto, measured: Ranges
) -> None:
    for graph_format in ("onnxruntime", "tensorrt"):
        made = to_int8(published, measured.ranges, graph_format=graph_format)
        makers = producers(made)
        weights = {w.name: numpy_helper.to_array(w) for w in made.graph.initializer}
        for name in ("mobile.depthwise", "mobile.grouped"):
            node = next(n for n in made.graph.node if n.name == f"{name}/Conv")
            assert weights[makers[node.input[1]].input[1]].shape == (32,)


def test_attention_is_quantised_on_request(published: ModelProto, measured: Ranges) -> None:
    made = to_int8(
        published, measured.ranges, graph_format="tensorrt", quantise=["attention/MatMul*"]
    )
    assert set(precision_report(made).kept) == {"stem/Conv", "head/Conv"}


def test_linear_layers_become_integer_kernels_of_onnx_runtime(
    published: ModelProto, measured: Ranges, tmp_path: Path
) -> None:
    """Without Q/DQ behind a MatMul, ONNX Runtime fuses it with its bias to a floating Gemm."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    made = serialize(to_int8(published, measured.ranges, graph_format="onnxruntime"))
    onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearMatMul") + kinds.count("QGemm") == 5
    assert kinds.count("Gemm") == 0


def test_half_precision_holds_every_operator(published: ModelProto, probe: Probe) -> None:
    half = to_fp16(published)
    onnx.checker.check_model(half, full_check=True)
    assert precision_report(half).kept == ()
    error = probe.score_error(half)
    assert error is not None
    assert error < 0.01


@pytest.mark.parametrize(
    ("runtime", "library"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tensorrt-rtx", "tensorrt_rtx")],
)
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_each_runtime_takes_it(run: Path, runtime: Any, library: str, precision: Any) -> None:
    pytest.importorskip(library, reason=f"{runtime} is not installed")
    made = build(BuildConfig(run / "model.onnx", precision, runtime, min_agreement=0))
    assert made.sidecar.precision is not None
    assert made.sidecar.precision.precision == precision
    kept = {"stem/Conv", "head/Conv", *ATTENTION} if precision == "int8" else set()
    if (precision, runtime) == ("int8", "openvino"):  # which computes it wrongly
        kept |= {"attention.reduce/Conv"}
    assert set(made.sidecar.precision.kept) == kept


def test_what_tensorrt_leaves_floating_is_kept_by_name(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorRT's network, altered: what this version has no such node for, another may."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    name, real = "attention.fc1/MatMul", plans.build_engine

    def altered(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        return made.__class__(**{**vars(made), "precisions": {**made.precisions, name: "fp32"}})

    monkeypatch.setattr(plans, "build_engine", altered)
    with caplog.at_level(logging.WARNING, logger="edgeseg"):
        made = build(BuildConfig(run / "model.onnx", "int8", "tensorrt-rtx", min_agreement=0))
    report = made.sidecar.precision
    assert isinstance(report, PrecisionReport)
    assert name in report.kept
    assert f"tensorrt-rtx computes these nodes in floating point: {name}" in caplog.text
    # Without its Q/DQ, not just told so.
    graph = onnx.load(run / "model.int8.tensorrt.onnx")
    assert name in precision_report(graph).kept
    assert made.sidecar.onnx_sha256 == sha256_file(run / "model.int8.tensorrt.onnx")


def operators_of_newer_exporters(card: ModelCard) -> ModelProto:
    """Gelu as an operator, a Gemm with a transposed weight, weights and factors as Constants."""
    random = np.random.default_rng(0)
    constants: dict[str, ArrayLike] = {
        "w1": random.normal(0, 0.4, (8, 3, 4, 4)).astype(np.float32),
        "w2": random.normal(0, 0.4, (16, 8)).astype(np.float32),
        "b2": random.normal(0, 0.4, 16).astype(np.float32),
        "w3": random.normal(0, 0.4, (16, 3)).astype(np.float32),
        "rows": [8, 96],
        "map": [1, 3, 8, 12],
        "factors": np.array([1, 1, 4, 4], np.float32),
    }
    made = onnx_network(
        "float[1,3,32,48] image",
        "uint8[1,32,48] labels",
        """
        stem = Conv <strides=[4,4]> (image, w1)
        flat = Reshape (stem, rows)
        tokens = Transpose <perm=[1,0]> (flat)
        gemm = Gemm <transB=1> (tokens, w2, b2)
        gelu = Gelu (gemm)
        head = MatMul (gelu, w3)
        scores = Transpose <perm=[1,0]> (head)
        scores_map = Reshape (scores, map)
        enlarged = Resize <mode="linear"> (scores_map, , factors)
        mixed = Conv (enlarged, mix)
        argmax = ArgMax <axis=1, keepdims=0> (mixed)
        labels = Cast <to=2> (argmax)
        """,
        card=card,
        opset=20,
        mix=np.eye(3, dtype=np.float32)[..., None, None],
    )
    made.ir_version = 9
    for name, value in constants.items():
        tensor = numpy_helper.from_array(np.asarray(value), name)
        made.graph.node.insert(0, helper.make_node("Constant", [], [name], name, value=tensor))
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt-rtx"])
def test_operators_of_newer_exporters(
    card: ModelCard, run: Path, tmp_path: Path, runtime: Any
) -> None:
    if runtime == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    network = tmp_path / "model.onnx"
    onnx.save(operators_of_newer_exporters(card), network)
    measure_ranges(network, run / "manifest.json").save(tmp_path / "model.ranges.json")
    kept = {}
    for precision in ("int8", "fp16"):
        made = build(BuildConfig(network, precision, runtime, min_agreement=0.5))
        assert made.sidecar.precision is not None
        kept[precision] = set(made.sidecar.precision.kept)
    assert kept == {"int8": {"stem", "mixed"}, "fp16": set()}
