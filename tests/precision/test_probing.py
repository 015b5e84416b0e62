"""Large weights leave the memory and the network computes the same."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from edgeseg.precision import probing
from edgeseg.precision.graph import tensors
from edgeseg.precision.probing import opened, run


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 32, 48)).astype(np.float32)


@pytest.mark.parametrize("large", [100, 10**9])
def test_outputs_are_those_of_the_network(
    network: Path, model: ModelProto, picture: np.ndarray, large: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(probing, "LARGE", large)
    names = ("stem", "concat", "head")
    with opened(network) as probed:
        found = run(probed.session(names), picture)
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for ours, theirs in zip(found, session.run(list(names), {"image": picture}), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_large_weights_lie_in_a_file_until_the_end(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LARGE", 100)
    before = set(network.parent.iterdir())
    with opened(network) as probed:
        inside = {w.name for w in probed.graph.graph.initializer if w.HasField("raw_data")}
        outside = [w for w in probed.graph.graph.initializer if w.external_data]
        assert {"w1", "w2", "w5"} <= {w.name for w in outside}
        assert "twice" in inside
        assert probed.folder.parent == network.parent
        size = sum(path.stat().st_size for path in probed.folder.iterdir())
        assert size >= sum(4 * int(np.prod(w.dims)) for w in outside)
        assert probed.graph.ByteSize() < network.stat().st_size / 2
    assert set(network.parent.iterdir()) == before


def test_small_networks_write_nothing(network: Path) -> None:
    before = set(network.parent.iterdir())
    with opened(network) as probed:
        assert set(network.parent.iterdir()) == before
        assert not any(w.external_data for w in probed.graph.graph.initializer)


def test_a_fixed_batch_is_filled(model: ModelProto, picture: np.ndarray, tmp_path: Path) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "three.onnx")
    with opened(tmp_path / "three.onnx") as probed:
        (head,) = run(probed.session(["head"]), picture)
    assert head.shape[0] == 3
    assert np.array_equal(head[0], head[2])


def test_an_open_size_is_that_of_the_card(
    model: ModelProto, picture: np.ndarray, tmp_path: Path
) -> None:
    for value, places in ((model.graph.input[0], (2, 3)), (model.graph.output[0], (1, 2))):
        for place in places:
            value.type.tensor_type.shape.dim[place].dim_param = f"size_{place}"
    onnx.save(model, tmp_path / "open.onnx")
    with opened(tmp_path / "open.onnx") as probed:
        assert tensors(probed.graph)["concat"].shape == (1, 24, 32, 48)
        (concat,) = run(probed.session(["concat"]), picture)
    assert concat.shape == (1, 24, 32, 48)
