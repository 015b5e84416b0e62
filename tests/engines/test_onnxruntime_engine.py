from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.artifacts import sha256_file
from edgeseg.card import ClassMap, InputSpec, ModelCard
from edgeseg.engines.cpu import int8_saturates
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.precision.graph import write_card
from edgeseg.sidecar import SideCar, sidecar_path

Maker = Callable[..., ModelProto]


def random_batch(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(size, 3, 16, 24)).astype(np.float32)


@pytest.mark.parametrize("output", ["labels_u8", "logits"])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (4, 4), ("N", 1), ("N", 5)])
def test_labels_are_those_of_a_numpy_twin(
    brightest: Maker, tmp_path: Path, output: str, batch: int | str, size: int
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(brightest(batch, output), path)
    tensor = random_batch(size)
    with OnnxRuntimeEngine(path, threads=1) as engine:
        assert engine.batch == (None if batch == "N" else batch)
        labels = engine.infer(tensor)
        engine.warm_up()
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, tensor.argmax(axis=1))


def test_wrong_tensors_are_refused(network: Path) -> None:
    with OnnxRuntimeEngine(network) as engine:
        with pytest.raises(UsageError, match="takes batches of 1, not 2"):
            engine.infer(random_batch(2))
        with pytest.raises(UsageError, match="takes float32"):
            engine.infer(random_batch(1)[..., :-1])
        with pytest.raises(UsageError, match="not float64"):
            engine.infer(random_batch(1).astype(np.float64))  # type: ignore[arg-type]


def test_it_can_be_closed_twice_and_says_so_after(network: Path) -> None:
    engine = OnnxRuntimeEngine(network)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="was closed"):
        engine.infer(random_batch(1))


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_are_at_least_one(network: Path, threads: int) -> None:
    with pytest.raises(UsageError, match="at least 1 thread"):
        OnnxRuntimeEngine(network, threads)


def test_a_network_without_card_says_which_key_to_write(brightest: Maker, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(brightest(card=None), path)
    with pytest.raises(MismatchedArtifact, match=r"no key 'edgeseg\.card'") as caught:
        OnnxRuntimeEngine(path)
    assert "onnx.helper.set_model_props" in str(caught.value.mend)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": InputSpec(height=16, width=32)}, r"input .*16, 32.*\(1, 3, 16, 24\)"),
        (
            {"input": InputSpec(height=16, width=24, color="gray", mean=(0.5,), std=(0.5,))},
            r"input .*1, 16, 24",
        ),
        ({"output": "logits"}, r"output float32.*'labels' uint8"),
    ],
)
def test_a_card_that_is_not_the_graphs_is_refused(
    brightest: Maker, card: ModelCard, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "model.onnx"
    model = brightest()
    write_card(model, card.model_copy(update=change))
    onnx.save(model, path)
    with pytest.raises(MismatchedArtifact, match=said):
        OnnxRuntimeEngine(path)


def test_the_number_of_classes_is_held_where_the_graph_tells(
    brightest: Maker, card: ModelCard, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    model = brightest(output="logits")
    two = ClassMap(names=("background", "red"))
    write_card(model, card.model_copy(update={"output": "logits", "classes": two}))
    onnx.save(model, path)
    with pytest.raises(MismatchedArtifact, match=r"\(N, 2, 16, 24\)"):
        OnnxRuntimeEngine(path)


def test_several_outputs_are_refused(brightest: Maker, tmp_path: Path) -> None:
    model = brightest()
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 16, 24])
    model.graph.output.append(scores)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(MismatchedArtifact, match="one input and one output"):
        OnnxRuntimeEngine(tmp_path / "model.onnx")


def test_the_side_car_decides_over_the_bytes(
    network: Path, card: ModelCard, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "edgeseg"):
        OnnxRuntimeEngine(network).close()
    assert "nothing vouches for its bytes" in caplog.text
    caplog.clear()
    vouch(network, card)
    with caplog.at_level(logging.INFO, "edgeseg"):
        OnnxRuntimeEngine(network).close()
    assert not caplog.records
    data = bytearray(network.read_bytes())
    data[data.index(b"kernel") + 1] ^= 1
    network.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="bytes changed"):
        OnnxRuntimeEngine(network)


def vouch(path: Path, card: ModelCard, **options: bool) -> None:
    SideCar(
        artifact_sha256=sha256_file(path),
        card=card,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        build_options=options,
    ).save(sidecar_path(path))


@pytest.fixture
def overflowing(card: ModelCard, tmp_path: Path) -> Path:
    """An integer convolution whose products of two neighbours overflow 16 bits, and labels by it.

    Every activation is 255 and every weight 127, so that the sum is 255·127·9·32. Class 1 is
    answered where the sum came out right within 10 %, class 0 where it lost bits.
    """
    largest = 255.0 * 127 * 32
    constants = {
        "one": np.float32(1),
        "a_zero": np.uint8(0),
        "weight": np.full((2, 32, 1, 1), 127, np.int8),
        "w_scale": np.ones(2, np.float32),
        "w_zero": np.zeros(2, np.int8),
        "y_scale": np.float32(largest / 200),
        "to_255": np.float32(255),
        "offset": np.array([0.9 * largest, 0], np.float32).reshape(1, 2, 1, 1),
        "slope": np.array([0, 1], np.float32).reshape(1, 2, 1, 1),
        "widen": np.zeros((32, 3, 1, 1), np.float32),
        "full": np.full(32, 255, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "widen", "full"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "one", "a_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "a_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "w_scale", "w_zero"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "y_scale", "a_zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "a_zero"], ["yd"]),
        helper.make_node("Mul", ["yd", "slope"], ["sum"]),
        helper.make_node("Add", ["sum", "offset"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "overflowing",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 24])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 16, 24])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    write_card(model, card.model_copy(update={"precision": "int8"}))
    path = tmp_path / "model.int8.onnx"
    onnx.save(model, path)
    return path


def test_full_range_int8_is_right_on_every_cpu(overflowing: Path, card: ModelCard) -> None:
    with OnnxRuntimeEngine(overflowing) as engine:
        assert engine.infer(random_batch(1)).all()
    vouch(overflowing, card, reduce_range=False)
    with OnnxRuntimeEngine(overflowing) as engine:
        assert engine.infer(random_batch(1)).all()


def test_the_cpu_flags_foretell_what_the_fast_kernels_do(
    overflowing: Path, card: ModelCard
) -> None:
    """The side-car claims 7-bit weights, which these are not: the fast kernels are taken."""
    vouch(overflowing, card, reduce_range=True)
    with OnnxRuntimeEngine(overflowing) as engine:
        assert engine.infer(random_batch(1)).all() == (not int8_saturates())
