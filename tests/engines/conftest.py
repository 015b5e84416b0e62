"""ONNX files that say of themselves what they compute."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cards import model_card
from graphs import onnx_network
from onnx import ModelProto

import edgeseg
from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.cuda.compiling import SOURCE

CLASSES = ("background", "blue", "red")


@pytest.fixture
def card() -> ModelCard:
    return model_card(CLASSES, 16, 24, name="brightest", arch="brightest")


@pytest.fixture
def brightest(card: ModelCard) -> Callable[..., ModelProto]:
    """A maker of networks that answer with the channel that is highest, through a 3×3 kernel."""

    def make(
        batch: int | str = 1, output: str = "labels_u8", card: ModelCard | None = card
    ) -> ModelProto:
        kernel = np.zeros((3, 3, 3, 3), np.float32)
        kernel[[0, 1, 2], [0, 1, 2], 1, 1] = 1
        nodes = "scores = Conv <pads=[1,1,1,1]> (image, kernel)"
        made = f"float[{batch},3,16,24] scores"
        if output != "logits":
            made = f"uint8[{batch},16,24] labels"
            nodes += """
            index = ArgMax <axis=1, keepdims=0> (scores)
            labels = Cast <to=2> (index)
            """
        if card is not None:
            card = card.model_copy(update={"output": output})
        image = f"float[{batch},3,16,24] image"
        model = onnx_network(image, made, nodes, card=card, kernel=kernel)
        for node in model.graph.node:
            node.name = node.op_type.lower()
        onnx.checker.check_model(model, full_check=True)
        return model

    return make


@pytest.fixture
def network(brightest: Callable[..., ModelProto], tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(brightest(), path)
    return path


@pytest.fixture
def overflowing(card: ModelCard, tmp_path: Path) -> Path:
    """An integer convolution whose products of two neighbours overflow 16 bits, and labels by it.

    Every activation is 255 and every weight 127, so that the sum is 255·127·9·32. Class 1 is
    answered where the sum came out right within 10 %, class 0 where it lost bits.
    """
    largest = 255.0 * 127 * 32
    model = onnx_network(
        "float[1,3,16,24] image",
        "uint8[1,16,24] labels",
        """
        x = Conv (image, widen, full)
        xq = QuantizeLinear (x, one, a_zero)
        xd = DequantizeLinear (xq, one, a_zero)
        wd = DequantizeLinear <axis=0> (weight, w_scale, w_zero)
        y = Conv (xd, wd)
        yq = QuantizeLinear (y, y_scale, a_zero)
        yd = DequantizeLinear (yq, y_scale, a_zero)
        sum = Mul (yd, slope)
        scores = Add (sum, offset)
        index = ArgMax <axis=1, keepdims=0> (scores)
        labels = Cast <to=2> (index)
        """,
        card=card.model_copy(update={"precision": "int8"}),
        one=np.float32(1),
        a_zero=np.uint8(0),
        weight=np.full((2, 32, 1, 1), 127, np.int8),
        w_scale=np.ones(2, np.float32),
        w_zero=np.zeros(2, np.int8),
        y_scale=np.float32(largest / 200),
        offset=np.array([0.9 * largest, 0], np.float32).reshape(1, 2, 1, 1),
        slope=np.array([0, 1], np.float32).reshape(1, 2, 1, 1),
        widen=np.zeros((32, 3, 1, 1), np.float32),
        full=np.full(32, 255, np.float32),
    )
    path = tmp_path / "model.int8.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeseg"


@pytest.fixture(autouse=True)
def no_kernels_of_this_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the package under test was installed beside nvcc must not matter."""
    installed = {folder for folder in edgeseg.__path__ if list(Path(folder).glob("*.fatbin"))}
    monkeypatch.setattr(
        "edgeseg.engines.cuda.kernels._folders",
        lambda: (folder for folder in edgeseg.__path__ if folder not in installed),
    )


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with kernels for the stand-in GPUs."""
    folder = tmp_path / "package"
    folder.mkdir()
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    (folder / f"kernels-{digest}.fatbin").write_bytes(b"fatbin: sm_86 sm_87")
    monkeypatch.setattr(edgeseg, "__path__", [*edgeseg.__path__, str(folder)])
    return folder
