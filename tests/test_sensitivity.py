"""A layer that INT8 cannot bear is planted into a trained network, found, and mended."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scripts import scripts

from edgeseg.building import BuildConfig, build, measure_sensitivity
from edgeseg.data.folders import list_images, load_image
from edgeseg.engines import open_engine
from edgeseg.errors import AccuracyGateError
from edgeseg.evaluation import agreement
from edgeseg.precision import sensitivity
from edgeseg.precision.ranges import measure_ranges
from edgeseg.precision.sensitivity import most_harmful_first

PLANTED = "stem.3/Conv"


@pytest.fixture
def planted(run_copy: Path) -> Path:
    """The small run with the harmful layer, calibrated again, without reduced networks."""
    with scripts() as load:
        shutil.copy(run_copy / "model.onnx", run_copy / "original.onnx")
        assert load("sensitivity").plant(run_copy / "model.onnx", PLANTED) == PLANTED
    manifest = run_copy.parents[1] / "calib" / "small" / "manifest.json"
    measure_ranges(run_copy / "model.onnx", manifest).save(run_copy / "model.ranges.json")
    for path in run_copy.glob("model.int8*"):
        path.unlink()
    return run_copy


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_planting_changes_no_label_in_fp32(planted: Path, small_data: Path) -> None:
    images = map(load_image, list_images(small_data / "val" / "images"))
    with (
        open_engine(planted / "original.onnx") as before,
        open_engine(planted / "model.onnx") as after,
    ):
        assert agreement(before, after, images) == 1


def test_a_refused_build_names_the_layer_and_the_way_out(
    edgeseg: Any, planted: Path, small_data: Path
) -> None:
    left = files(planted)
    command = ("build", planted / "model.onnx", "--int8", "--data", small_data, "--max-drop", 5)
    refused = edgeseg(*command, "--json")
    assert refused.code == 7, refused.err
    error = refused.document["error"]
    assert error["layers"][0]["layer"] == PLANTED
    assert error["layers"][0]["loss"] > 0.05
    assert PLANTED in error["message"]
    assert "--auto-mixed" in error["hint"]
    assert files(planted) == left
    # The command that is proposed is taken at its word.
    proposed = shlex.split(error["hint"].split("`")[1])
    assert proposed[:2] == ["edgeseg", "build"]
    assert proposed[-2:] == ["--keep", PLANTED]
    mended = edgeseg(*proposed[1:], "--json")
    assert mended.code == 0, mended.err
    assert PLANTED in mended.document["kept"]


def test_a_refused_build_finds_it_by_groups_where_there_are_many_layers(
    edgeseg: Any, planted: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BuildConfig(planted / "model.onnx", "int8", "onnxruntime", data=small_data)
    every = {layer.layer for layer in measure_sensitivity(config, pictures=1).layers}
    monkeypatch.setattr(sensitivity, "ALONE", 3)
    refused = edgeseg("build", config.onnx, "--int8", "--data", small_data, "--json")
    layers = [layer["layer"] for layer in refused.document["error"]["layers"]]
    assert layers[0] == PLANTED
    assert len(layers) == 3
    assert every.issuperset(layers)
    assert f"{len(every) - 3} others" in refused.document["error"]["message"]


@pytest.mark.parametrize(
    ("runtime", "labelled"), [("onnxruntime", True), ("onnxruntime", False), ("tensorrt-rtx", True)]
)
def test_sensitivity_ranks_it_first(
    planted: Path, small_data: Path, runtime: Any, labelled: bool
) -> None:
    before = files(planted)
    config = BuildConfig(planted / "model.onnx", "int8", runtime, data=small_data)
    if not labelled:
        config = replace(config, data=None)
    found = measure_sensitivity(config, pictures=3, reverse=runtime == "onnxruntime")
    assert found.layers[0].layer == PLANTED
    assert found.layers[0].loss > 5 * max(0.005, *(layer.loss for layer in found.layers[1:]))
    assert found.metric == ("mean_iou" if labelled else "pixel_agreement")
    assert found.images == 3
    assert sum(layer.macs_share for layer in found.layers) == pytest.approx(1)
    assert found.reference - found.all_reduced > 0.05
    if runtime == "onnxruntime":
        others = found.layers[0].loss_of_others
        assert others is not None
        # Without it the others do little, and all others without one of them still have it.
        assert others < found.layers[0].loss / 2
        assert found.layers[1].loss_of_others == pytest.approx(found.layers[0].loss, rel=0.6)
    assert files(planted) == before


def test_every_layer_has_its_error_and_the_most_harmful_comes_first(
    planted: Path, small_data: Path
) -> None:
    """FP16 rounds to 11 bits, so errors are small; which pixels flip depends on the processor."""
    config = BuildConfig(planted / "model.onnx", "fp16", data=small_data)
    found = measure_sensitivity(config, pictures=2)
    errors = [layer.score_error for layer in found.layers]
    assert len(errors) > 5
    assert all(error is not None and 0 <= error < 0.05 for error in errors)
    assert any(errors)
    assert found.layers == most_harmful_first(found.layers)


def test_auto_mixed_keeps_it_and_little_else(planted: Path, small_data: Path) -> None:
    config = BuildConfig(
        planted / "model.onnx", "int8", "onnxruntime", data=small_data, max_drop=0.05
    )
    with pytest.raises(AccuracyGateError):
        build(config)
    made = build(replace(config, auto_mixed=True))
    assert made.sidecar.build_options["auto_mixed"] == PLANTED
    assert made.sidecar.gate is not None
    assert made.sidecar.gate.passed
    assert made.sidecar.precision is not None
    assert PLANTED in made.sidecar.precision.kept
    assert made.sidecar.precision.low_precision_share > 0.5
    assert made.plot == planted / "model.int8.mixed.png"
    picture = cv2.imread(str(made.plot))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_auto_mixed_gives_up_with_7(planted: Path) -> None:
    before = files(planted)
    path = planted / "model.ranges.json"
    ranges = json.loads(path.read_bytes())
    ranges["ranges"] = {k: [lo / 200, hi / 200] for k, (lo, hi) in ranges["ranges"].items()}
    path.write_text(json.dumps(ranges))
    config = BuildConfig(planted / "model.onnx", "int8", auto_mixed=True, min_agreement=1)
    with pytest.raises(AccuracyGateError, match="it alone reduced") as caught:
        build(config)
    assert "--auto-mixed" not in str(caught.value.hint)  # It would find nothing again.
    assert files(planted) == before


def test_the_command(edgeseg: Any, trained: Path, small_data: Path, tmp_path: Path) -> None:
    plot = tmp_path / "layers.png"
    command = ("sensitivity", trained, "--data", small_data, "--pictures", 1, "--plot", plot)
    outcome = edgeseg(*command, "--json")
    assert outcome.code == 0, outcome.err
    assert set(outcome.document) == {
        *("network", "precision", "form", "judged_on", "metric", "images"),
        *("reference", "all_reduced", "layers", "plot"),
    }
    assert cv2.imread(str(plot)) is not None
    assert edgeseg(*command).code == 2  # the plot is there
    shown = edgeseg(*command, "--overwrite")
    assert shown.code == 0, shown.err
    assert outcome.document["layers"][0]["layer"] in shown.out
    assert edgeseg(*command[:-1], tmp_path / "layers.pdf").code == 2
