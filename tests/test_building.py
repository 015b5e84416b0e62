import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import SideCar, verify
from edgeseg.building import BuildConfig, EngineRuntime, build
from edgeseg.building import plan as plans
from edgeseg.data.folders import read_split
from edgeseg.engines import open_engine
from edgeseg.engines.cpu import int8_saturates
from edgeseg.engines.tensorrt import Plan, PlanOptions
from edgeseg.errors import (
    AccuracyGateError,
    CorruptArtifact,
    MismatchedArtifact,
    RuntimeMissing,
    UsageError,
)
from edgeseg.evaluation import evaluate
from edgeseg.precision.ranges import Ranges


def files(folder: Path) -> Mapping[str, str]:
    """Name and hash of all that lies in a folder, hidden files included."""
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.is_file()} | {
        path.name: "folder" for path in folder.iterdir() if path.is_dir()
    }


def checked(path: Path) -> SideCar:
    found = verify(path, required=True)
    assert found is not None
    return found


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_fp32_for_onnx_runtime_is_the_network_itself(run_copy: Path) -> None:
    network = run_copy / "model.onnx"
    before = files(run_copy)
    result = build(BuildConfig(network, "fp32", "onnxruntime"))
    assert result.engine == network
    assert result.sidecar.precision is not None
    assert result.sidecar.precision.precision == "fp32"
    assert files(run_copy) == before
    network.with_name("model.onnx.json").unlink()
    build(BuildConfig(network, "fp32", "onnxruntime"))
    assert checked(network).card == result.sidecar.card


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_networks_for_onnx_runtime(
    run_copy: Path, small_data: Path, precision: Precision, capfd: pytest.CaptureFixture[str]
) -> None:
    network = run_copy / "model.onnx"
    config = BuildConfig(network, precision, "onnxruntime", data=small_data, max_drop=0.5)
    old = sha256_file(run_copy / f"model.{precision}.onnx")
    result = build(config)
    assert capfd.readouterr().out == ""
    assert result.engine == run_copy / f"model.{precision}.onnx"
    made = checked(result.engine)
    assert made == result.sidecar
    assert made.artifact_sha256 == old, "the same network and options give the same bytes"
    assert made.card.precision == precision
    assert made.onnx_sha256 == made.card.parent_sha256 == sha256_file(network)
    assert made.precision is not None
    assert made.precision.precision == precision
    # By multiply-accumulates; the first convolution and the head are much of so small a network.
    assert made.precision.low_precision_share > (0.99 if precision == "fp16" else 0.8)
    assert made.gate is not None
    assert (made.gate.metric, made.gate.judged_on) == ("mean_iou", "onnxruntime")
    split = read_split(small_data, "val")
    with open_engine(result.engine) as engine, open_engine(network) as full:
        assert evaluate(engine, split).mean_iou == pytest.approx(made.gate.value)
        assert evaluate(full, split).mean_iou == pytest.approx(made.gate.reference)
    if precision == "int8":
        ranges = load(Ranges, run_copy / "model.ranges.json")
        assert made.calibration_set == ranges.set_sha256
        assert made.build_options["reduce_range"] == int8_saturates()
        assert build(replace(config, reduce_range=False)).sidecar.artifact_sha256 != old or (
            not int8_saturates()
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_networks_for_openvino(run_copy: Path, small_data: Path, precision: Precision) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed", exc_type=ImportError)
    network = run_copy / "model.onnx"
    result = build(BuildConfig(network, precision, "openvino", data=small_data, max_drop=0.5))
    assert result.engine == run_copy / f"model.{precision}.openvino.onnx"
    made = checked(result.engine)
    assert (made.runtime, made.card.precision) == ("openvino", precision)
    assert made.onnx_sha256 == made.card.parent_sha256 == sha256_file(network)
    assert made.precision is not None
    assert made.precision.precision == precision
    assert made.gate is not None
    assert made.gate.judged_on == "openvino"
    split = read_split(small_data, "val")
    with open_engine(result.engine) as engine, open_engine(network) as full:
        assert (engine.runtime, full.runtime) == ("openvino", "onnxruntime")
        assert made.computes_in == engine.computes_in is not None
        assert evaluate(engine, split).mean_iou == pytest.approx(made.gate.value)
        assert evaluate(full, split).mean_iou == pytest.approx(made.gate.reference)
    if precision == "fp32":
        assert made.computes_in == "fp32"
        assert abs(made.gate.drop) < 1e-3
    if precision == "int8":
        assert made.build_options["reduce_range"] == int8_saturates()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_for_tensorrt_rtx(
    rtx: None,
    run_copy: Path,
    small_data: Path,
    precision: Precision,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = BuildConfig(
        run_copy / "model.onnx",
        precision,
        "tensorrt-rtx",
        plan=PlanOptions(targets=("sm_86", "sm_89")),
        data=small_data,
        max_drop=0.5,
    )
    before = set(files(run_copy))
    result = build(config)
    assert capfd.readouterr().out == ""
    made = checked(result.engine)
    fed = (
        run_copy
        / {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.tensorrt.onnx"}[
            precision
        ]
    )
    assert result.engine.name == f"model.{precision}.engine"
    assert made.onnx_sha256 == made.card.parent_sha256 == sha256_file(fed)
    assert (made.runtime, made.targets) == ("tensorrt-rtx", ("sm_86", "sm_89"))
    assert made.precision is not None
    assert made.precision.precision == precision
    if precision == "fp32":
        assert made.gate is None
    else:
        assert made.gate is not None
        assert made.gate.judged_on == "onnxruntime"
        assert checked(fed).gate == made.gate
    new = {result.engine.name, f"{result.engine.name}.json", fed.name, f"{fed.name}.json"}
    assert set(files(run_copy)) == before | new
    assert build(config).sidecar.artifact_sha256 == made.artifact_sha256
    with pytest.raises(RuntimeMissing, match=f"engine in {precision} for tensorrt-rtx"):
        open_engine(result.engine)


def test_without_labels_the_calibration_pictures_judge(run_copy: Path) -> None:
    network = run_copy / "model.onnx"
    result = build(BuildConfig(network, "fp16", min_agreement=0.9))
    gate = result.sidecar.gate
    assert gate is not None
    assert (gate.metric, gate.images) == ("pixel_agreement", 8)


def test_without_pictures_the_gate_is_said_not_to_have_run(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run_copy / "model.ranges.json").unlink()
    with caplog.at_level("WARNING", "edgeseg"):
        result = build(BuildConfig(run_copy / "model.onnx", "fp16"))
    assert result.sidecar.gate is None
    assert "was NOT compared with FP32" in caplog.text


def test_stale_ranges_do_not_stop_fp16(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = run_copy / "model.ranges.json"
    load(Ranges, path).model_copy(update={"onnx_sha256": "0" * 64}).save(path)
    with caplog.at_level("WARNING", "edgeseg"):
        result = build(BuildConfig(run_copy / "model.onnx", "fp16"))
    assert result.sidecar.gate is None
    assert "measured on another network" in caplog.text
    assert "was NOT compared with FP32" in caplog.text


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_a_destroyed_network_is_refused_and_leaves_nothing(
    run_copy: Path, small_data: Path, runtime: EngineRuntime
) -> None:
    if runtime == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed", exc_type=ImportError)
    path = run_copy / "model.ranges.json"
    ranges = load(Ranges, path)
    clipped = {name: (low / 50, high / 50) for name, (low, high) in ranges.ranges.items()}
    ranges.model_copy(update={"ranges": clipped}).save(path)
    before = files(run_copy)
    config = BuildConfig(run_copy / "model.onnx", "int8", runtime)
    # By labels and, without, by the labels of FP32: the same for each runtime.
    without = (config,) if runtime == "onnxruntime" else ()
    for judged in (replace(config, data=small_data), *without):
        with pytest.raises(AccuracyGateError, match="was not written") as caught:
            build(judged)
        assert caught.value.exit_code == 7
        assert files(run_copy) == before


def test_int8_needs_ranges_of_this_network(run_copy: Path, tmp_path: Path) -> None:
    network = run_copy / "model.onnx"
    ranges = run_copy / "model.ranges.json"
    document = load(Ranges, ranges)
    document.model_copy(update={"onnx_sha256": "0" * 64}).save(tmp_path / "other.json")
    before = files(run_copy)
    with pytest.raises(MismatchedArtifact, match="measured on another network"):
        build(BuildConfig(network, "int8", ranges=tmp_path / "other.json"))
    ranges.write_bytes(ranges.read_bytes()[:300])
    with pytest.raises(CorruptArtifact, match=r"model\.ranges\.json"):
        build(BuildConfig(network, "int8"))
    ranges.unlink()
    with pytest.raises(UsageError, match="INT8 needs measured ranges") as caught:
        build(BuildConfig(network, "int8"))
    assert f"edgeseg calibrate {network}" in str(caught.value.hint)
    assert files(run_copy) == {name: h for name, h in before.items() if name != ranges.name}


def test_ranges_that_miss_a_tensor_are_refused(run_copy: Path) -> None:
    path = run_copy / "model.ranges.json"
    ranges = load(Ranges, path)
    some = dict(list(ranges.ranges.items())[:4])
    ranges.model_copy(update={"ranges": some}).save(path)
    with pytest.raises(MismatchedArtifact, match="do not cover the network"):
        build(BuildConfig(run_copy / "model.onnx", "int8"))


def test_wrong_configurations(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = run_copy / "model.onnx"
    with pytest.raises(UsageError, match="does not compile for a target"):
        build(BuildConfig(network, "fp16", "onnxruntime", plan=PlanOptions(targets=("sm_86",))))
    with pytest.raises(UsageError, match="is a network in fp16"):
        build(BuildConfig(run_copy / "model.fp16.onnx", "int8"))
    with pytest.raises(UsageError, match="max_drop: Input should be less"):
        build(BuildConfig(network, "fp16", max_drop=1.5))
    with pytest.raises(MismatchedArtifact, match="nothing in the graph computes in it"):
        build(BuildConfig(network, "fp16", keep=("*",)))
    with pytest.raises(UsageError, match="OpenVINO does not compile for a target"):
        build(BuildConfig(network, "fp16", "openvino", plan=PlanOptions(targets=("sm_86",))))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing, match="OpenVINO is not installed"):
        build(BuildConfig(network, "fp16", "openvino"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(RuntimeMissing, match="TensorRT-RTX"):
        build(BuildConfig(network, "fp16", "tensorrt-rtx"))


def test_an_engine_of_another_precision_than_its_graph_is_refused(
    rtx: None, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT 11 once built FP32 where FP16 was asked, and said nothing."""
    honest = plans.build_engine

    def silently_fp32(*args: object, **options: object) -> Plan:
        plan = honest(*args, **options)  # type: ignore[arg-type]
        return replace(plan, precisions=dict.fromkeys(plan.precisions, "fp32"))

    monkeypatch.setattr(plans, "build_engine", silently_fp32)
    before = files(run_copy)
    with pytest.raises(MismatchedArtifact, match="made fp32 layer of the fp16 node"):
        build(BuildConfig(run_copy / "model.onnx", "fp16", "tensorrt-rtx", min_agreement=0))
    assert files(run_copy) == before


def test_kept_layers_are_in_the_side_car(run_copy: Path) -> None:
    result = build(BuildConfig(run_copy / "model.onnx", "int8", keep=("up.*",), min_agreement=0))
    assert result.sidecar.precision is not None
    assert any(name.startswith("up.0") for name in result.sidecar.precision.kept)
    assert result.sidecar.build_options["keep"] == "up.*"
