from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

from edgeseg.card import ModelCard
from edgeseg.data.folders import load_image
from edgeseg.errors import MismatchedArtifact, NonFiniteOutput, UsageError
from edgeseg.ops.preprocess import preprocess
from edgeseg.precision import ranges as ranges_module
from edgeseg.precision.calibration import collect, load_set
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import copy_of, derived_card, tensors, typed, write_card
from edgeseg.precision.ranges import (
    Ranges,
    activations,
    central_range,
    check_ranges,
    histogram,
    measure_ranges,
)


def input_tensors(manifest: Path, card: ModelCard) -> list[np.ndarray]:
    _, paths = load_set(manifest)
    return [preprocess(load_image(path), card.input)[np.newaxis] for path in paths]


def all_values(model: ModelProto, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Every activation on every picture, all in memory."""
    model = typed(model, "test")
    names = list(activations(model))
    probed, known = copy_of(model), tensors(model)
    del probed.graph.output[:]
    for name in names:
        probed.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, known[name].shape))
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    runs = [session.run(None, {"image": tensor}) for tensor in inputs]
    return {
        name: np.concatenate([run[place].ravel() for run in runs])
        for place, name in enumerate(names)
    }


def test_minmax_is_what_onnxruntime_measures(
    network: Path, manifest: Path, ranges: Ranges, card: ModelCard, tmp_path: Path
) -> None:
    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting = iter(input_tensors(manifest, card))

        def get_next(self) -> dict[str, np.ndarray] | None:
            tensor = next(self.waiting, None)
            return None if tensor is None else {"image": tensor}

    calibrater = MinMaxCalibrater(network, augmented_model_path=str(tmp_path / "augmented.onnx"))
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(Reader())
    expected = calibrater.compute_data()
    assert set(ranges.ranges) == set(expected.keys())
    for name, (low, high) in ranges.ranges.items():
        theirs = [float(np.ravel(bound)[0]) for bound in expected[name].range_value]
        assert (low, high) == pytest.approx(theirs, rel=1e-5, abs=1e-6), name


def test_percentile_cuts_the_share_it_says(
    network: Path,
    manifest: Path,
    model: ModelProto,
    card: ModelCard,
    ranges: Ranges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Several groups, as a large network has them.
    monkeypatch.setattr(ranges_module, "_GROUP_ELEMENTS", 40_000)
    # 99.999 % of a few thousand values are all of them.
    monkeypatch.setattr(ranges_module, "PERCENTILE", 99.5)
    found = measure_ranges(network, manifest, method="percentile")
    values = all_values(model, input_tensors(manifest, card))
    cut = (100 - ranges_module.PERCENTILE) / 2
    narrower = 0
    for name, (low, high) in found.ranges.items():
        whole = ranges.ranges[name]
        step = (whole[1] - whole[0]) / 4096
        expected = np.percentile(values[name], [cut, 100 - cut], method="inverted_cdf")
        assert (low, high) == pytest.approx(tuple(expected), abs=1.01 * step), name
        narrower += (low, high) != pytest.approx(whole, rel=1e-6)
    assert narrower, "percentile and minmax must differ somewhere"


def test_histogram_counts_both_ends() -> None:
    values = np.array([[-1, 0, 0.5, 3, 3]], np.float32)
    counts = histogram(values, -1, 3)
    assert counts.sum() == 5
    assert (counts[0], counts[-1]) == (1, 2)
    assert histogram(np.zeros((2, 2), np.float32), 0, 0).sum() == 4


def test_central_range_by_hand() -> None:
    counts = np.array([1, 0, 98, 0, 1])
    assert central_range(counts, 0.0, 5.0, percentile=98) == (2.0, 3.0)
    assert central_range(counts, 0.0, 5.0, percentile=99.9) == (0.0, 5.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_tensor_that_is_not_finite_is_named(
    model: ModelProto, network: Path, manifest: Path, value: float
) -> None:
    weight = next(w for w in model.graph.initializer if w.name == "w3")
    array = numpy_helper.to_array(weight).copy()
    array[2, 1, 0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(array, "w3"))
    onnx.save(model, network)
    with pytest.raises(NonFiniteOutput, match="tensor 'narrow' holds NaN or infinity"):
        measure_ranges(network, manifest)


def test_reduced_networks_are_refused(
    model: ModelProto, card: ModelCard, manifest: Path, tmp_path: Path
) -> None:
    half = to_fp16(model)
    write_card(half, derived_card(card, "0" * 64, "fp16"))
    onnx.save(half, tmp_path / "model.fp16.onnx")
    with pytest.raises(UsageError, match="measured on the FP32 one"):
        measure_ranges(tmp_path / "model.fp16.onnx", manifest)


def test_ranges_of_another_network_are_refused(
    network: Path, model: ModelProto, ranges: Ranges, tmp_path: Path
) -> None:
    saved = tmp_path / "model.ranges.json"
    ranges.save(saved)
    assert len(check_ranges(ranges, saved, network)) == 4
    model.graph.name = "another"
    onnx.save(model, network)
    with pytest.raises(MismatchedArtifact, match="measured on another network") as caught:
        check_ranges(ranges, saved, network)
    assert f"edgeseg calibrate {network}" in str(caught.value.mend)


def test_ranges_of_another_set_are_refused(
    network: Path, pictures: Path, manifest: Path, ranges: Ranges, tmp_path: Path
) -> None:
    collect(pictures, manifest, count=2)
    with pytest.raises(MismatchedArtifact, match="measured on another calibration set"):
        check_ranges(ranges, tmp_path / "model.ranges.json", network)


def test_ranges_outlive_a_move_but_not_a_changed_picture(
    network: Path, pictures: Path, manifest: Path, ranges: Ranges, tmp_path: Path
) -> None:
    saved = tmp_path / "run" / "model.ranges.json"
    ranges.save(saved)
    shutil.move(manifest, saved.parent)
    assert check_ranges(ranges, saved, network)
    victim = load_set(saved.parent / manifest.name)[1][0]
    victim.write_bytes(b"another picture")
    with pytest.raises(MismatchedArtifact, match="changed since the set was made"):
        check_ranges(ranges, saved, network)
    (saved.parent / manifest.name).unlink()
    assert check_ranges(ranges, saved, network) == []
