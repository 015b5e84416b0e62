"""Depthwise deconvolutions compute what the dense ones did, and only where they may."""

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import onnx_network
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeseg.models.fcn import bilinear_deconvolution
from edgeseg.precision.deconvolution import split_channels
from edgeseg.precision.graph import copy_of, serialize

ARRAY = NDArray[np.float32]


def bilinear(channels: int, factor: int) -> ARRAY:
    kernels: ARRAY = bilinear_deconvolution(channels, factor).weight.detach().numpy()
    return kernels


def network(kernels: ARRAY, *, layers: int = 1, bias: bool = False, group: int = 1) -> ModelProto:
    """Deconvolutions of stride 2 on maps of 5×6, one after the other, of the same kernels."""
    inputs, outputs = len(kernels), kernels.shape[1] * group
    weights = {"kernels": kernels}
    if bias:
        weights["bias"] = np.linspace(-1, 1, outputs, dtype=np.float32)
    stride = f"strides=[2, 2], pads=[1, 1, 1, 1], group={group}"
    operands = ", ".join(weights)
    return onnx_network(
        f"float[N,{inputs},5,6] map0",
        f"float[N,{outputs},H,W] map{layers}",
        "\n".join(
            f"map{layer + 1} = ConvTranspose <{stride}> (map{layer}, {operands})"
            for layer in range(layers)
        ),
        **weights,
    )


def run(model: ModelProto, batch: int = 2) -> ARRAY:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    random = np.random.default_rng(0).normal(size=(batch, channels, 5, 6))
    answer: ARRAY = session.run(None, {"map0": random.astype(np.float32)})[0]
    return answer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("channels", "factor", "layers"), [(21, 32, 1), (3, 2, 1), (4, 2, 2)])
def test_the_same_values(channels: int, factor: int, layers: int, bias: bool) -> None:
    dense = network(bilinear(channels, factor), layers=layers, bias=bias)
    split = copy_of(dense)
    assert split_channels(split) == ("kernels",)
    assert tuple(split.graph.initializer[0].dims) == (channels, 1, 2 * factor, 2 * factor)
    assert len(split.graph.node) == layers
    assert np.array_equal(run(split), run(dense))
    assert len(serialize(dense)) > channels / 2 * len(serialize(split)) - 2000
    # Once done there is nothing left to do.
    assert split_channels(split) == ()


def test_kernels_may_differ_from_channel_to_channel() -> None:
    """Bilinear or not makes no difference: all that counts is that no channels are mixed."""
    kernels = np.zeros((3, 3, 4, 4), np.float32)
    random = np.random.default_rng(1).normal(size=(3, 4, 4))
    kernels[range(3), range(3)] = random
    dense = network(kernels)
    split = copy_of(dense)
    assert split_channels(split)
    assert np.allclose(run(split), run(dense), rtol=0, atol=1e-6)
    reordered = network(kernels[::-1].copy())
    assert not np.allclose(run(reordered), run(dense), atol=1e-2)


def learnt() -> ARRAY:
    kernels = bilinear(3, 2).copy()
    kernels[0, 2, 1, 1] = 1e-30
    return kernels


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(network(learnt()), id="mixes channels, however little"),
        pytest.param(network(bilinear(1, 2)), id="of one channel"),
        pytest.param(network(bilinear(3, 2)[:, :2].copy()), id="of other channels than it reads"),
        pytest.param(network(bilinear(4, 2)[:, :2].copy(), group=2), id="in groups already"),
    ],
)
def test_others_stay_as_they_are(model: ModelProto) -> None:
    before = serialize(model)
    assert split_channels(model) == ()
    assert serialize(model) == before


def test_kernels_that_something_else_reads_stay() -> None:
    model = network(bilinear(3, 2))
    model.graph.node.append(helper.make_node("Shape", ["kernels"], ["size"]))
    model.graph.output.append(helper.make_tensor_value_info("size", TensorProto.INT64, [4]))
    before = serialize(model)
    assert split_channels(model) == ()
    assert serialize(model) == before
