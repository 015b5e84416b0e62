from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from edgeseg.data.folders import list_images, load_image
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import MismatchedArtifact
from edgeseg.evaluation import agreement
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import precision_report, serialize


def weights_of(model: ModelProto) -> dict[str, np.ndarray]:
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}


def test_every_weight_is_rounded_to_half_and_io_stays(model: ModelProto) -> None:
    before = weights_of(model)
    half = to_fp16(model)
    onnx.checker.check_model(half, full_check=True)
    after = weights_of(half)
    for name in before.keys() - {"twice"}:
        assert after[name].dtype == np.float16
        assert np.array_equal(after[name], before[name].astype(np.float16))
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert precision_report(half).low_precision_share == 1
    assert precision_report(half).low_precision_weights == 1


def test_the_given_network_is_left_alone(model: ModelProto) -> None:
    before = serialize(model)
    to_fp16(model, keep=["head"])
    assert serialize(model) == before


def test_labels_agree_with_fp32(
    model: ModelProto, network: Path, pictures: Path, tmp_path: Path
) -> None:
    half = tmp_path / "model.fp16.onnx"
    onnx.save(to_fp16(model), half)
    images = map(load_image, list_images(pictures))
    with OnnxRuntimeEngine(network) as full, OnnxRuntimeEngine(half) as reduced:
        assert agreement(full, reduced, images) > 0.99


@pytest.mark.parametrize("value", [70000.0, -1e9, np.inf, np.nan])
def test_weights_beyond_half_are_refused_unless_kept(model: ModelProto, value: float) -> None:
    weight = next(w for w in model.graph.initializer if w.name == "w2")
    array = numpy_helper.to_array(weight).copy()
    array[3, 2, 1, 0] = value
    weight.CopyFrom(numpy_helper.from_array(array, "w2"))
    with pytest.raises(MismatchedArtifact, match="weight 'w2' of node 'deep'") as caught:
        to_fp16(model)
    assert "--keep deep" in str(caught.value.hint)
    kept = to_fp16(model, keep=["deep"])
    assert np.array_equal(weights_of(kept)["w2"], array, equal_nan=True)
