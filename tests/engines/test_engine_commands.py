"""The commands give with an engine what they give with the network that it was built from."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines.plans import Bench, bench

from edgeseg.data.folders import load_image
from edgeseg.ops.preprocess import preprocess


@pytest.fixture
def built(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """``model.onnx`` and its engine, and a machine on which it runs."""
    made = bench(onnx.load(trained / "model.onnx"), tmp_path)
    monkeypatch.chdir(tmp_path)
    made.install(monkeypatch)
    return made


def test_pictures_are_segmented_as_in_onnx_runtime(built: Bench, nuclei: Path) -> None:
    with built.engine() as engine:
        engine.warm_up()
        for path in sorted((nuclei / "val" / "images").iterdir())[:3]:
            image = load_image(path)
            tensor = preprocess(image, engine.card.input)[np.newaxis]
            assert np.array_equal(engine.infer(tensor), built.expected(tensor))
            assert engine.segment(image).shape == image.shape[:2]


def test_eval(built: Bench, small_data: Path, edgeseg: Any) -> None:
    scores = [
        edgeseg("eval", path, "--data", small_data, "--json").document["mean_iou"]
        for path in (built.plan, built.onnx)
    ]
    assert scores[0] == scores[1] > 0
    assert built.device.launches > 0


def test_stream_and_infer(built: Bench, small_data: Path, edgeseg: Any) -> None:
    # Every frame: in real time those that pass while the engine warms up count as nothing.
    source = ("--source", "test:64x48?frames=5", "--every-frame", "--no-window")
    streamed = edgeseg("stream", built.plan, *source, "--json").document
    assert (streamed["frames"], streamed["dropped"]) == (5, 0)
    written = [
        edgeseg("infer", path, small_data / "val/images", "--out", out, "--json").code
        or sorted(out.glob("*.labels.png"))
        for path, out in ((built.plan, Path("engine")), (built.onnx, Path("network")))
    ]
    assert [p.read_bytes() for p in written[0]] == [p.read_bytes() for p in written[1]]
    assert len(written[0]) == 4


@pytest.mark.usefixtures("no_cold_starts")
def test_bench(built: Bench, small_data: Path, edgeseg: Any) -> None:
    outcome = edgeseg(
        "bench", built.onnx, built.plan, "--data", small_data, "--seconds", "0.1", "--json"
    )
    runs = {Path(run["engine"]).name: run for run in outcome.document["runs"]}
    assert runs["model.fp32.engine"]["runtime"] == "tensorrt"
    assert runs["model.fp32.engine"]["mean_iou"] == runs["model.onnx"]["mean_iou"]
