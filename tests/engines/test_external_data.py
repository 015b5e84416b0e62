"""The wire-format reader against the onnx package, on graphs that hide tensors in odd places."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg.engines.external_data import _MODEL, _TENSOR, external_locations, require_local_weights
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


def in_default_of_function(network: onnx.ModelProto, tensor: TensorProto) -> None:
    """Read by ONNX Runtime 1.23 where a node does not give the attribute."""
    function = network.functions.add(name="f", domain="d")
    function.attribute_proto.append(helper.make_attribute("value", tensor))


def in_training(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.training_info.add().initialization.initializer.append(tensor)


@pytest.mark.parametrize(
    "hide",
    [
        in_initializer,
        in_constant,
        in_branch_of_branch,
        in_sparse,
        in_function,
        in_default_of_function,
        in_training,
    ],
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


def ways_to_tensors(message: Descriptor, seen: tuple[str, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Field numbers from a message down to each ``TensorProto`` in it, no message entered twice."""
    for field in message.fields:
        inner = field.message_type
        if inner is None or inner.name in seen:
            continue
        if inner.name == "TensorProto":
            yield (field.number,)
        else:
            for way in ways_to_tensors(inner, (*seen, message.name)):
                yield (field.number, *way)


def test_every_way_to_a_tensor_in_the_format_itself_is_walked() -> None:
    ways = list(ways_to_tensors(onnx.ModelProto.DESCRIPTOR))
    assert (25, 11, 5) in ways  # a function's default attribute
    for way in ways:
        table: object = _MODEL
        for number in way:
            assert isinstance(table, dict)
            assert number in table, way
            table = table[number]
        assert table is _TENSOR, way


@pytest.mark.parametrize("location", ["/etc/hostname", "a/../../b", "..\\b", "link/hostname"])
def test_ways_out(location: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to("/etc")
    path = tmp_path / "run" / "model.onnx"
    path.write_bytes(naming(location))
    with pytest.raises(CorruptArtifact, match="lies outside|symbolic link"):
        require_local_weights(path)


def naming(location: str) -> bytes:
    network = model()
    in_initializer(network, outside(location))
    return network.SerializeToString()


def test_a_file_beside_the_network_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(naming("weights/model.data"))
    with pytest.raises(CorruptArtifact, match="is not there"):
        require_local_weights(path)
    weights = tmp_path / "weights" / "model.data"
    weights.parent.mkdir()
    weights.write_bytes(bytes(8))
    require_local_weights(path)


@pytest.mark.parametrize("plant", [os.link, os.symlink])
def test_a_link_to_the_file_of_another_is_refused(
    plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    path, secret = tmp_path / "run" / "model.onnx", tmp_path / "secret"
    path.parent.mkdir()
    secret.write_bytes(bytes(8))
    path.write_bytes(naming("model.data"))
    plant(secret, path.with_name("model.data"))
    with pytest.raises(CorruptArtifact, match="link"):
        require_local_weights(path)


def test_a_backslash_is_part_of_a_name(tmp_path: Path) -> None:
    """Runtimes open the file of that very name, whatever lies in the folder before it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(naming("weights\\model.data"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.data").write_bytes(bytes(8))
    with pytest.raises(CorruptArtifact, match="is not there"):
        require_local_weights(path)
    (tmp_path / "weights\\model.data").symlink_to("/etc/hostname")
    with pytest.raises(CorruptArtifact, match="symbolic link"):
        require_local_weights(path)


@pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", ".", "", "model.onnx\0"])
def test_a_location_that_is_no_file_is_refused(location: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(naming(location))
    with pytest.raises(CorruptArtifact, match="is not there|is not a file"):
        require_local_weights(path)


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_give_an_answer_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    with contextlib.suppress(CorruptArtifact):
        assert isinstance(external_locations(path), list)
