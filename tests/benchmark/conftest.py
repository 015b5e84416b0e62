"""Engines for benchmarks: a real one that takes any batch, and one that does nothing, quickly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cards import model_card
from graphs import onnx_network
from numpy.typing import NDArray

from edgeseg.artifacts.card import Precision
from edgeseg.benchmark.cases import Case
from edgeseg.engines.base import Capabilities, Engine

CARD = model_card(("background", "nucleus"), 48, 64, name="threshold")


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
        path: Path, batch: int | str = "N", threshold: float = 0.0, precision: Precision = "fp32"
    ) -> Path:
        weight = np.zeros((2, 3, 1, 1), np.float32)
        weight[1] = 1
        model = onnx_network(
            f"float[{batch},3,48,64] image",
            f"uint8[{batch},48,64] labels",
            """
            logits = Conv (image, weight, bias)
            index = ArgMax <axis=1, keepdims=0> (logits)
            labels = Cast <to=2> (index)
            """,
            card=CARD.model_copy(update={"precision": precision}),
            opset=17,
            weight=weight,
            bias=np.array([0, -threshold], np.float32),
        )
        onnx.save(model, path)
        return path

    return write
