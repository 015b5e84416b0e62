"""Engines for benchmarks: a real one that takes any batch, and one that does nothing, quickly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.artifacts.card import CARD_KEY, ClassMap, InputSpec, ModelCard, Precision
from edgeseg.benchmark.cases import Case
from edgeseg.engines.base import Capabilities, Engine

CARD = ModelCard(
    name="threshold",
    arch="unet-lite",
    classes=ClassMap(names=("background", "nucleus")),
    input=InputSpec(height=48, width=64),
)


class Counting(Engine):
    """Labels everything background; ``interrupt_at`` raises as Ctrl-C would at that call."""

    runtime = "counting"

    def __init__(self, name: str, batch: int | None = None, interrupt_at: int = -1) -> None:
        self.card = CARD.model_copy(update={"name": name})
        self.path = Path(f"{name}.onnx")
        self.capabilities = Capabilities(batch)
        self.calls = 0
        self._interrupt_at = interrupt_at

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.calls += 1
        if self.calls == self._interrupt_at:
            raise KeyboardInterrupt
        return np.zeros((len(batch), *batch.shape[2:]), np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture
def make_counting() -> type[Counting]:
    return Counting


@pytest.fixture
def counting() -> Case:
    return Case.of(Counting("counting"))


@pytest.fixture(scope="session")
def write_network() -> Callable[..., Path]:
    """``write_network(path, batch)``: calls bright pixels nuclei; any batch where that is "N"."""

    def write(
        path: Path,
        batch: int | str = "N",
        threshold: float = 0.0,
        precision: Precision = "fp32",
    ) -> Path:
        weight = np.zeros((2, 3, 1, 1), np.float32)
        weight[1] = 1
        bias = np.array([0, -threshold], np.float32)
        nodes = [
            helper.make_node("Conv", ["image", "weight", "bias"], ["logits"]),
            helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
        ]
        shape = (batch, *CARD.input.shape)
        graph = helper.make_graph(
            nodes,
            "threshold",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("labels", TensorProto.UINT8, (batch, 48, 64))],
            [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        helper.set_model_props(
            model, {CARD_KEY: CARD.model_copy(update={"precision": precision}).to_json()}
        )
        onnx.save(model, path)
        return path

    return write
