from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from edgeseg.artifacts.card import ModelCard
from edgeseg.building import BuildConfig, build
from edgeseg.data.folders import list_images, load_image
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import NonFiniteOutput
from edgeseg.evaluation import agreement
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import copy_of
from edgeseg.precision.overflow import overflowing, require_finite
from edgeseg.precision.ranges import Ranges, measure_ranges


def scale(model: ModelProto, weight: str, factor: float) -> None:
    found = next(w for w in model.graph.initializer if w.name == weight)
    values = numpy_helper.to_array(found) * np.float32(factor)
    found.CopyFrom(numpy_helper.from_array(values, weight))


@pytest.fixture
def loud(model: ModelProto) -> ModelProto:
    """``deep`` and its ReLU reach beyond 65504; what reads them is as much quieter."""
    made = copy_of(model)
    for weight, factor in {"w2": 2.0**16, "b2": 2.0**16, "w3": 2.0**-16, "w4": 2.0**-16}.items():
        scale(made, weight, factor)
    return made


@pytest.fixture
def loud_network(loud: ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(loud, path)
    return path


@pytest.fixture
def loud_ranges(loud_network: Path, manifest: Path) -> Ranges:
    return measure_ranges(loud_network, manifest)


# They make or read the activation that is too large.
LOUD = {"deep", "deep_relu", "narrow", "up"}


def test_exactly_the_nodes_around_a_large_activation_are_found(
    loud: ModelProto, loud_ranges: Ranges, model: ModelProto, ranges: Ranges
) -> None:
    found = overflowing(loud, loud_ranges.ranges)
    assert {one.node for one in found} == LOUD
    reached = {one.tensor: one.magnitude for one in found}
    for tensor in reached.keys() & loud_ranges.ranges.keys():
        low, high = loud_ranges.ranges[tensor]
        assert reached[tensor] == pytest.approx(max(-low, high))
    assert overflowing(model, ranges.ranges) == ()


def test_there_is_room_for_twice_what_was_measured(model: ModelProto, ranges: Ranges) -> None:
    for largest, found in ((32752.0, set()), (32760.0, {"deep_relu", "narrow", "up"})):
        reached = dict(ranges.ranges) | {"deep_relu": (0.0, largest)}
        assert {one.node for one in overflowing(model, reached)} == found


def test_large_weights_are_found_without_pictures(model: ModelProto) -> None:
    scale(model, "w5", 1e6)
    (found,) = overflowing(model, {})
    assert (found.node, found.tensor) == ("refine", "w5")


def test_a_plain_cast_destroys_what_the_kept_nodes_save(
    loud: ModelProto, loud_network: Path, loud_ranges: Ranges, pictures: Path, tmp_path: Path
) -> None:
    kept = [one.node for one in overflowing(loud, loud_ranges.ranges)]

    def share(model: ModelProto) -> float:
        path = tmp_path / "half.onnx"
        onnx.save(model, path)
        with OnnxRuntimeEngine(loud_network) as full, OnnxRuntimeEngine(path) as half:
            return agreement(full, half, map(load_image, list_images(pictures)))

    assert share(to_fp16(loud, kept)) > 0.99
    # On a CPU ONNX Runtime drops the casts between its own operators; beside a kept one they are
    # there, as they are everywhere on a GPU.
    assert share(to_fp16(loud, ["deep"])) < 0.9


def test_the_cast_network_is_looked_at_too(
    loud: ModelProto, loud_ranges: Ranges, pictures: Path, card: ModelCard
) -> None:
    paths = list_images(pictures)
    kept = [one.node for one in overflowing(loud, loud_ranges.ranges)]
    require_finite(to_fp16(loud, kept), card.input, paths, origin="half")
    with pytest.raises(NonFiniteOutput, match="'deep"):
        require_finite(to_fp16(loud, ["deep"]), card.input, paths, origin="half")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_refuse_the_build_and_are_named(
    model: ModelProto, network: Path, pictures: Path, value: float
) -> None:
    bias = next(w for w in model.graph.initializer if w.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, value, np.float32), "b3"))
    onnx.save(model, network)
    data = labelled(pictures)
    before = sorted(network.parent.iterdir())
    with pytest.raises(NonFiniteOutput, match="'narrow'"):
        build(BuildConfig(network, "fp16", data=data))
    assert sorted(network.parent.iterdir()) == before


def labelled(pictures: Path) -> Path:
    """A data set of these pictures, all of the first class."""
    import cv2

    root = pictures.parent / "labelled"
    (root / "val" / "masks").mkdir(parents=True)
    pictures.rename(root / "val" / "images")
    for path in list_images(root / "val" / "images"):
        mask = np.zeros(load_image(path).shape[:2], np.uint8)
        mask[:2, :3] = (0, 1, 2)
        cv2.imwrite(str(root / "val" / "masks" / f"{path.stem}.png"), mask)
    return root


@pytest.mark.parametrize("known_from", ["ranges", "percentile", "data", "nothing"])
def test_build_keeps_and_names_them(
    loud_network: Path,
    manifest: Path,
    pictures: Path,
    known_from: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = None
    if known_from in ("ranges", "percentile"):
        method = "minmax" if known_from == "ranges" else "percentile"
        ranges = measure_ranges(loud_network, manifest, method=method)  # type: ignore[arg-type]
        ranges.save(loud_network.with_name("model.ranges.json"))
    elif known_from == "data":
        data = labelled(pictures)
    with caplog.at_level("WARNING", "edgeseg"):
        made = build(BuildConfig(loud_network, "fp16", data=data)).sidecar
    assert made.precision is not None
    if known_from == "nothing":
        assert "were NOT looked for" in caplog.text
        assert "overflow" not in made.build_options
        return
    assert set(str(made.build_options["overflow"]).split()) == LOUD
    assert set(made.precision.kept) == LOUD - {"deep_relu"}
    assert made.precision.low_precision_share < 1
    assert made.precision.low_precision_weights < 1
    assert all(f"{name} stays in FP32" in caplog.text for name in LOUD)
