"""Graphs of reduced precision that other tools made, taken by ``build --onnx``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgeseg.artifacts.sidecar import verify
from edgeseg.building import BuildConfig, build
from edgeseg.building.foreign import precision_of
from edgeseg.data.folders import list_images, load_image
from edgeseg.errors import AccuracyGateError, MismatchedArtifact, UsageError
from edgeseg.ops.preprocess import preprocess
from edgeseg.precision.graph import load_model, read_card, write_card

# What ONNX Runtime's quantiser must be told for its graphs to be read by TensorRT.
FOR_TENSORRT: dict[str, Any] = {
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "op_types_to_quantize": ["Conv"],
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
    },
}


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, network: Path, folder: Path) -> None:
        model = load_model(network)
        spec = read_card(model, "network").input
        name = model.graph.input[0].name
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(
            [{name: preprocess(load_image(p), spec)[np.newaxis]} for p in list_images(folder)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantised(run: Path, data: Path, **options: Any) -> Path:
    path = run / "theirs.onnx"
    network = run / "model.onnx"
    reader = Pictures(network, data / "train" / "images")
    quantize_static(str(network), str(path), reader, **options)
    return path


@pytest.fixture
def bare(run_copy: Path) -> Path:
    """The run without reduced networks and ranges of ours."""
    for name in ("model.int8.onnx", "model.fp16.onnx", "model.ranges.json"):
        (run_copy / name).unlink()
        (run_copy / f"{name}.json").unlink(missing_ok=True)
    return run_copy


def config(run: Path, foreign: Path, data: Path, runtime: Any = "onnxruntime") -> BuildConfig:
    return BuildConfig(
        run / "model.onnx", precision_of(foreign), runtime, foreign=foreign, data=data, max_drop=0.3
    )


def test_the_default_recipe_of_onnx_runtime_is_for_itself_alone(
    bare: Path, small_data: Path
) -> None:
    theirs = quantised(bare, small_data)
    made = build(config(bare, theirs, small_data))
    assert made.engine == bare / "model.int8.onnx"
    assert verify(made.engine, required=True) == made.sidecar
    assert made.sidecar.card.precision == "int8"
    assert made.sidecar.card.classes == read_card(load_model(bare / "model.onnx"), "").classes
    assert made.sidecar.gate is not None
    assert str(made.sidecar.build_options["made_by"]).startswith("onnx.quantize")
    assert made.sidecar.precision is not None
    assert made.sidecar.precision.low_precision_share == 1
    with pytest.raises(MismatchedArtifact, match="zero point|bias") as caught:
        build(config(bare, theirs, small_data, "tensorrt-rtx"))
    assert "theirs.onnx" in caught.value.message


def test_its_recipe_for_tensorrt_is_compiled(bare: Path, small_data: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    theirs = quantised(bare, small_data, **FOR_TENSORRT)
    made = build(config(bare, theirs, small_data, "tensorrt-rtx"))
    assert made.engine.name == "model.int8.engine"
    assert made.sidecar.gate is not None
    assert (bare / "model.int8.tensorrt.onnx").exists()


def test_half_precision_of_onnx_runtime(edgeseg: Any, bare: Path, small_data: Path) -> None:
    half = convert_float_to_float16(onnx.load(bare / "model.onnx"), keep_io_types=True)
    theirs = bare / "half.onnx"
    onnx.save(half, theirs)
    outcome = edgeseg("build", "--onnx", theirs, "--data", small_data, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["precision"] == "fp16"
    assert outcome.document["low_precision_weights"] == 1
    wrong = edgeseg("build", "--onnx", theirs, "--int8", "--data", small_data, "--json")
    assert wrong.code == 2
    assert "is a graph in fp16, not int8" in wrong.document["error"]["message"]


def test_the_gate_refuses_a_bad_one(bare: Path, small_data: Path) -> None:
    theirs = quantised(bare, small_data)
    model = onnx.load(theirs)
    integers = {w.name for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8}
    scales = {n.input[1] for n in model.graph.node if integers.intersection(n.input[:1])}
    assert scales
    for weight in model.graph.initializer:
        if weight.name in scales:
            values = onnx.numpy_helper.to_array(weight) * np.float32(-1)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, theirs)
    before = sorted(bare.iterdir())
    with pytest.raises(AccuracyGateError):
        build(replace(config(bare, theirs, small_data), max_drop=0.01))
    assert sorted(bare.iterdir()) == before


def test_what_is_no_such_graph_is_refused(bare: Path, small_data: Path) -> None:
    with pytest.raises(MismatchedArtifact, match="none of its layers so"):
        precision_of(bare / "model.onnx")
    operators = quantised(bare, small_data, quant_format=QuantFormat.QOperator)
    with pytest.raises(MismatchedArtifact, match="integer operators"):
        precision_of(operators)
    theirs = quantised(bare, small_data)
    # As the network itself it would be compared with nothing but itself.
    with pytest.raises(UsageError, match="is a network in int8") as caught:
        build(BuildConfig(theirs, "int8"))
    assert f"--onnx {theirs}" in str(caught.value.hint)
    with pytest.raises(UsageError, match="--onnx brings one"):
        BuildConfig(bare / "model.onnx", "int8", foreign=theirs, keep=("*",))


def test_the_card_of_another_network_is_refused(bare: Path, small_data: Path) -> None:
    theirs = quantised(bare, small_data)
    model = onnx.load(theirs)
    card = read_card(load_model(bare / "model.onnx"), "")
    classes = card.classes.model_copy(update={"names": ("a", "b")})
    write_card(model, card.model_copy(update={"classes": classes}))
    onnx.save(model, theirs)
    with pytest.raises(MismatchedArtifact, match="the classes in its card"):
        build(config(bare, theirs, small_data))
