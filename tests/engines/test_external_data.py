"""The wire-format reader against the onnx package, on graphs that hide tensors in odd places."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg.engines.external_data import external_locations, require_local_weights
from edgeseg.errors import CorruptArtifact

Hide = Callable[[onnx.ModelProto, TensorProto], None]


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="w", dims=[2], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    return tensor


def model() -> onnx.ModelProto:
    inner = onnx.numpy_helper.from_array(np.zeros(300, np.float32), "inner")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [], [inner])
    return helper.make_model(graph)


def in_initializer(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.initializer.append(tensor)


def in_constant(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_branch_of_branch(network: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [tensor])
    outer = helper.make_graph([helper.make_node("If", ["a"], [], then_branch=inner)], "o", [], [])
    network.graph.node.append(helper.make_node("If", ["a"], [], else_branch=outer))


def in_sparse(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.sparse_initializer.add().values.CopyFrom(tensor)


def in_function(network: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    network.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))


@pytest.mark.parametrize(
    "hide", [in_initializer, in_constant, in_branch_of_branch, in_sparse, in_function]
)
def test_found_wherever_it_hides(hide: Hide, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    network = model()
    path.write_bytes(network.SerializeToString())
    assert external_locations(path) == []
    hide(network, outside("../secret"))
    path.write_bytes(network.SerializeToString())
    assert external_locations(path) == ["../secret"]
    with pytest.raises(CorruptArtifact, match="'../secret' lies outside"):
        require_local_weights(path)


@pytest.mark.parametrize("location", ["/etc/hostname", "a/../../b", "..\\b", "link/b"])
def test_ways_out(location: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to("/etc")
    path = tmp_path / "run" / "model.onnx"
    network = model()
    in_initializer(network, outside(location))
    path.write_bytes(network.SerializeToString())
    with pytest.raises(CorruptArtifact, match="lies outside"):
        require_local_weights(path)


def test_a_file_beside_the_network_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    network = model()
    in_initializer(network, outside("weights/model.data"))
    path.write_bytes(network.SerializeToString())
    require_local_weights(path)


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_give_an_answer_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    with contextlib.suppress(CorruptArtifact):
        assert isinstance(external_locations(path), list)
