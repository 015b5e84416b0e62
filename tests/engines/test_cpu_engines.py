"""ONNX Runtime and OpenVINO: labels of a NumPy twin, and INT8 that is right on every processor."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from engines.plans import random_batch, vouch
from onnx import ModelProto

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.base import Engine
from edgeseg.engines.cpu import int8_saturates
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import UsageError

Maker = Callable[..., ModelProto]
Opener = Callable[..., Engine]


@pytest.fixture(params=["onnxruntime", "openvino"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "onnxruntime":
        return OnnxRuntimeEngine
    pytest.importorskip("openvino", reason="OpenVINO is not installed", exc_type=ImportError)
    from edgeseg.engines.openvino import OpenVinoEngine

    return OpenVinoEngine


@pytest.mark.parametrize("output", ["labels_u8", "logits"])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (4, 4), ("N", 1), ("N", 5)])
def test_labels_are_those_of_a_numpy_twin(
    opener: Opener, brightest: Maker, tmp_path: Path, output: str, batch: int | str, size: int
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(brightest(batch, output), path)
    tensor = random_batch(size)
    with opener(path, threads=1) as engine:
        assert engine.capabilities.batch == (None if batch == "N" else batch)
        assert engine.computes_in in (None, "fp32")
        engine.warm_up()
        labels = engine.infer(tensor[..., ::-1, ::-1])
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, tensor[..., ::-1, ::-1].argmax(axis=1))


def test_an_engine_splits_into_others_that_run_side_by_side(
    opener: Opener, brightest: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(brightest("N", "labels_u8"), path)
    tensors = [random_batch(1)[..., ::step, :] for step in (1, -1)]
    with opener(path) as whole, ThreadPoolExecutor(2) as pool:
        parts = whole.split(2, 1)
        for _ in range(20):
            found = pool.map(lambda engine, batch: engine.infer(batch).copy(), parts, tensors)
            for labels, batch in zip(found, tensors, strict=True):
                assert np.array_equal(labels, batch.argmax(axis=1))
        parts[0].close()
        assert np.array_equal(parts[1].infer(tensors[0]), tensors[0].argmax(axis=1))
        parts[1].close()
        with pytest.raises(UsageError, match="closed"):
            parts[1].infer(tensors[0])
    with opener(path, threads=1) as fixed:
        assert not fixed.split(2, 1), "a number of threads that was given is kept to"


def test_full_range_int8_is_right_on_every_cpu(
    opener: Opener, overflowing: Path, card: ModelCard
) -> None:
    with opener(overflowing) as engine:
        runtime = engine.runtime
        assert engine.infer(random_batch(1)).all()
    vouch(overflowing, card, runtime, reduce_range=False)
    with opener(overflowing) as engine:
        assert engine.infer(random_batch(1)).all()


def test_the_cpu_flags_foretell_what_the_fast_kernels_do(
    opener: Opener, overflowing: Path, card: ModelCard
) -> None:
    """The side-car claims 7-bit weights, which these are not: the fast kernels are taken."""
    runtime = "onnxruntime" if opener is OnnxRuntimeEngine else "openvino"
    vouch(overflowing, card, runtime, reduce_range=True)
    with opener(overflowing) as engine:
        assert engine.infer(random_batch(1)).all() == (not int8_saturates())
