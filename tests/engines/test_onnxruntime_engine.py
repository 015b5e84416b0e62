import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from engines.plans import random_batch, vouch
from onnx import ModelProto, TensorProto, helper

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.precision.graph import write_card

Maker = Callable[..., ModelProto]


def test_wrong_tensors_are_refused(network: Path) -> None:
    with OnnxRuntimeEngine(network) as engine:
        with pytest.raises(UsageError, match="takes batches of 1, not 2"):
            engine.infer(random_batch(2))
        with pytest.raises(UsageError, match=r"takes float32 .*, not int64 \(2,\)"):
            engine.infer([1, 2])  # type: ignore[arg-type]  # a list
        with pytest.raises(UsageError, match="takes float32"):
            engine.infer(random_batch(1)[..., :-1])
        with pytest.raises(UsageError, match="not float64"):
            engine.infer(random_batch(1).astype(np.float64))  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_are_at_least_one(network: Path, threads: int) -> None:
    with pytest.raises(UsageError, match="at least 1 thread"):
        OnnxRuntimeEngine(network, threads)


def test_a_network_without_card_says_how_to_import_it(brightest: Maker, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(brightest(card=None), path)
    with pytest.raises(MismatchedArtifact, match=r"no key 'edgeseg\.card'") as caught:
        OnnxRuntimeEngine(path)
    assert "edgeseg import" in str(caught.value.hint)


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
    vouch(network, card, "onnxruntime")
    with caplog.at_level(logging.INFO, "edgeseg"):
        OnnxRuntimeEngine(network).close()
    assert not caplog.records
    data = bytearray(network.read_bytes())
    data[data.index(b"kernel") + 1] ^= 1
    network.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="bytes changed"):
        OnnxRuntimeEngine(network)
