"""ONNX files that say of themselves what they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.card import ClassMap, InputSpec, ModelCard
from edgeseg.precision.graph import write_card

CLASSES = ("background", "blue", "red")


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="brightest",
        arch="brightest",
        classes=ClassMap(names=CLASSES),
        input=InputSpec(height=16, width=24),
    )


@pytest.fixture
def brightest(card: ModelCard) -> Callable[..., ModelProto]:
    """A maker of networks that answer with the channel that is highest, through a 3×3 kernel."""

    def make(
        batch: int | str = 1, output: str = "labels_u8", card: ModelCard | None = card
    ) -> ModelProto:
        kernel = np.zeros((3, 3, 3, 3), np.float32)
        kernel[[0, 1, 2], [0, 1, 2], 1, 1] = 1
        nodes = [helper.make_node("Conv", ["image", "kernel"], ["scores"], "conv", pads=[1] * 4)]
        if output == "logits":
            made = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3, 16, 24])
        else:
            nodes += [
                helper.make_node("ArgMax", ["scores"], ["index"], "argmax", axis=1, keepdims=0),
                helper.make_node("Cast", ["index"], ["labels"], "cast", to=TensorProto.UINT8),
            ]
            made = helper.make_tensor_value_info("labels", TensorProto.UINT8, [batch, 16, 24])
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 24])
        graph = helper.make_graph(
            nodes, "brightest", [image], [made], [numpy_helper.from_array(kernel, "kernel")]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        if card is not None:
            write_card(model, card.model_copy(update={"output": output}))
        onnx.checker.check_model(model, full_check=True)
        return model

    return make


@pytest.fixture
def network(brightest: Callable[..., ModelProto], tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(brightest(), path)
    return path
