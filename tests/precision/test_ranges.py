import itertools
import shutil
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.data.folders import load_image
from edgeseg.errors import MismatchedArtifact, NonFiniteOutput, UsageError
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.building import Method
from edgeseg.precision import ranges as ranges_module
from edgeseg.precision.calibration import collect
from edgeseg.precision.calibration_set import load_set
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import copy_of, derived_card, tensors, typed, write_card
from edgeseg.precision.histograms import Histogram
from edgeseg.precision.probing import run
from edgeseg.precision.ranges import (
    Ranges,
    activations,
    check_measurable,
    check_ranges,
    measure_methods,
    measure_ranges,
)
from edgeseg.precision.thresholds import METHODS, bounds


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


@pytest.fixture
def histograms(model: ModelProto, card: ModelCard, manifest: Path) -> dict[str, Histogram]:
    """Made of all values at once, by ONNX Runtime on the graph as it is."""
    made = {}
    for name, values in all_values(model, input_tensors(manifest, card)).items():
        made[name] = Histogram()
        made[name].add(values)
    return made


@pytest.mark.parametrize("elements", [ranges_module.GROUP_ELEMENTS, 40_000])
def test_every_method_in_one_pass(
    network: Path,
    manifest: Path,
    histograms: dict[str, Histogram],
    elements: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Few elements: several groups, as a large network has them.
    monkeypatch.setattr(ranges_module, "GROUP_ELEMENTS", elements)
    runs: list[int] = []
    monkeypatch.setattr(ranges_module, "run", lambda *a: runs.append(1) or run(*a))
    found = measure_methods(network, manifest, METHODS)
    groups = 1 if elements > 40_000 else 4
    assert len(runs) == groups * 4, "one run a group and picture, whatever the methods"
    for method, ranges in found.items():
        assert ranges.method == method
        for name, histogram in histograms.items():
            expected = bounds(method, histogram)
            tolerance = (1e-5 if method == "minmax" else 0.05) * (histogram.high - histogram.low)
            assert ranges.ranges[name] == pytest.approx(expected, abs=tolerance), (method, name)
    alone = measure_ranges(network, manifest, method="mse")
    assert alone.ranges == found["mse"].ranges


def test_methods_really_differ(network: Path, manifest: Path) -> None:
    """ONNX Runtime's entropy with its default of 128 bins is exactly minmax."""
    methods: tuple[Method, ...] = ("minmax", "entropy", "mse")  # Too few values for percentile.
    found = measure_methods(network, manifest, methods)
    for one, other in itertools.combinations(methods, 2):
        assert found[one].ranges["refine_relu"] != found[other].ranges["refine_relu"], (one, other)


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_memory_does_not_grow_with_the_pictures(
    method: Method, network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = [activations_alive(method, network, pictures, tmp_path, n) for n in (2, 6)]
    assert most[0] == most[1]

    # What keeps outputs is found out.
    class Hoard(Histogram):
        hoard: ClassVar[list[np.ndarray]] = []

        def add(self, values: np.ndarray) -> bool:
            self.hoard.append(values)
            return super().add(values)

    monkeypatch.setattr(ranges_module, "Histogram", Hoard)
    monkeypatch.setattr(ranges_module, "Extremes", Hoard)
    most = [activations_alive(method, network, pictures, tmp_path, n) for n in (2, 6)]
    assert most[0] < most[1]


def activations_alive(
    method: Method, network: Path, pictures: Path, folder: Path, count: int
) -> int:
    """The most tensors that are held at once while ``count`` pictures are measured."""
    manifest = folder / f"{count}.json"
    collect(pictures, manifest, count=count)
    alive: set[int] = set()
    most = 0

    def counting(session: Any, tensor: np.ndarray) -> list[np.ndarray]:
        nonlocal most
        outputs = run(session, tensor)
        for output in outputs:
            alive.add(id(output))
            weakref.finalize(output, alive.discard, id(output))
        most = max(most, len(alive))
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges_module, "run", counting)
        measure_ranges(network, manifest, method=method)
    return most


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
    with pytest.raises(UsageError, match="measured on the FP32 one"):
        check_measurable(tmp_path / "model.fp16.onnx")


def test_a_network_of_another_size_than_its_card_is_refused(
    model: ModelProto, card: ModelCard, network: Path
) -> None:
    check_measurable(network)
    write_card(model, card.model_copy(update={"input": InputSpec(height=64, width=48)}))
    onnx.save(model, network)
    with pytest.raises(MismatchedArtifact, match=r"its card says input \(N, 3, 64, 48\)"):
        check_measurable(network)


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
    assert f"edgeseg calibrate {network}" in str(caught.value.hint)


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
