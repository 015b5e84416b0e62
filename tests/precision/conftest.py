"""A network small enough to be checked by hand, with every operator that the real ones have."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.precision.calibration import collect
from edgeseg.precision.graph import write_card
from edgeseg.precision.ranges import Ranges, measure_ranges

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return ModelCard(
        name="tiny",
        arch="tiny",
        classes=ClassMap(names=("background", "red", "bright")),
        input=InputSpec(height=HEIGHT, width=WIDTH),
    )


@pytest.fixture
def model(card: ModelCard) -> ModelProto:
    """Encoder, bilinear decoder, skip, transposed convolution, head; seeded weights."""
    random = np.random.default_rng(3)
    weights: list[TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:]))
        value = random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(value, name))
        return name

    def bias(name: str, size: int) -> str:
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, size).astype("f4"), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], output, **attributes)

    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["image", weight("w1", 8, 3, 3, 3), bias("b1", 8)], "stem", **same),
        node("Relu", ["stem"], "stem_relu"),
        node("MaxPool", ["stem_relu"], "pool", **pool),
        node("Conv", ["pool", weight("w2", 16, 8, 3, 3), bias("b2", 16)], "deep", **same),
        node("Relu", ["deep"], "deep_relu"),
        node("Conv", ["deep_relu", weight("w3", 8, 16, 1, 1), bias("b3", 8)], "narrow"),
        node("Resize", ["narrow", "", "twice"], "resize", mode="linear"),
        node("ConvTranspose", ["deep_relu", weight("w4", 16, 8, 2, 2)], "up", strides=[2, 2]),
        node("Concat", ["stem_relu", "resize", "up"], "concat", axis=1),
        node("Conv", ["concat", weight("w5", 8, 24, 3, 3), bias("b5", 8)], "refine", **same),
        node("Relu", ["refine"], "refine_relu"),
        node("Conv", ["refine_relu", weight("w6", 3, 8, 1, 1), bias("b6", 3)], "head"),
        node("ArgMax", ["head"], "argmax", axis=1, keepdims=0),
        node("Cast", ["argmax"], "labels", to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, HEIGHT, WIDTH])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    write_card(made, card)
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.fixture
def network(model: ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def pictures(nuclei: Path, tmp_path: Path) -> Path:
    """A folder with six of the bundled pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for source in sorted((nuclei / "train" / "images").iterdir())[:6]:
        shutil.copy(source, folder)
    return folder


@pytest.fixture
def manifest(pictures: Path) -> Path:
    path = pictures.parent / "calib" / "manifest.json"
    collect(pictures, path, count=4, seed=1)
    return path


@pytest.fixture
def ranges(network: Path, manifest: Path) -> Ranges:
    return measure_ranges(network, manifest)
