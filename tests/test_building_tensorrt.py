"""``edgeseg build --runtime tensorrt`` from network to side-car, on stand-ins of the library."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import standin
from typer.testing import CliRunner

from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import SideCar, verify
from edgeseg.building import BuildConfig, build
from edgeseg.building import plan as plans
from edgeseg.cli import make_app
from edgeseg.engines.cuda import DeviceFacts
from edgeseg.engines.tensorrt import LayerTable, PlanOptions
from edgeseg.errors import MismatchedArtifact, RuntimeMissing, UsageError
from edgeseg.machine import Gpu
from edgeseg.precision.ranges import Ranges


def no_cuda() -> None:
    raise RuntimeMissing("there is no CUDA for Python here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, and a GPU as NVML would list it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plans, "open_cuda", no_cuda)
    monkeypatch.setattr(plans, "gpus", lambda: (Gpu("NVIDIA X 40", "580.1", 8192, "8.9"),))
    return tmp_path / "cache" / "edgeseg"


@pytest.fixture(autouse=True)
def log_of_before() -> Iterator[None]:
    """The command line turns the log of this process to stderr; turn it back."""
    log = logging.getLogger("edgeseg")
    handlers, level, propagate = list(log.handlers), log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


def installed(monkeypatch: pytest.MonkeyPatch, version: str, **machine: Any) -> Any:
    trt = standin.tensorrt(version, **machine)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt


def sidecar_of(engine: Path) -> SideCar:
    found = verify(engine, required=True)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("version", "precision"), [("8.6.1", "int8"), ("10.3.0", "fp16"), ("11.4.0", "fp32")]
)
def test_an_engine_and_what_ties_it_to_its_machine(
    version: str, precision: Any, run_copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, version)
    config = BuildConfig(run_copy / "model.onnx", precision, "tensorrt", min_agreement=0)
    result = build(config)
    made = sidecar_of(result.engine)
    assert result.engine.name == f"model.{precision}.engine"
    assert (made.runtime, made.runtime_version) == ("tensorrt", version)
    assert (made.gpu, made.compute_capability) == ("NVIDIA X 40", "sm_89")
    assert made.driver_version == "580.1"
    assert str(made.platform).startswith("linux ")
    assert made.precision is not None
    assert made.precision.precision == precision
    assert result.layers is not None
    assert result.layers.source == "engine"
    timed = cache / f"tensorrt-{version}-NVIDIA-X-40.timing"
    assert made.build_options["timing_cache"] == str(timed)
    assert timed.is_file()


def test_cuda_says_which_gpu_where_it_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Jetson:
        facts = DeviceFacts("Orin", (8, 7), True, 30_000, "12.6", "12.6")

    monkeypatch.setattr(plans, "open_cuda", Jetson)
    found = plans.machine_of_engine("tensorrt")
    assert (found["gpu"], found["compute_capability"]) == ("Orin", "sm_87")
    assert found["cuda_version"] == "12.6"
    assert set(plans.machine_of_engine("tensorrt-rtx")) == {"platform"}


def test_a_dla_of_old_gets_the_measured_ranges(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trt = installed(monkeypatch, "10.3.0", dla_cores=2)
    network = run_copy / "model.onnx"
    options = PlanOptions(dla_core=1)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        result = build(BuildConfig(network, "int8", "tensorrt", options, min_agreement=0))
    made = sidecar_of(result.engine)
    assert made.onnx_sha256 == sha256_file(network), "it was fed the FP32 network"
    assert made.build_options["quantisation"] == "ranges of tensors"
    assert made.build_options["dla_core"] == 1
    assert made.gate is not None, "and judged on the Q/DQ graph of the same ranges"
    assert made.precision is not None
    assert made.precision.precision == "int8"
    assert "the DLA leaves" in caplog.text
    ranges = load(Ranges, run_copy / "model.ranges.json").ranges
    largest = {max(abs(low), abs(high)) for low, high in ranges.values()}
    given = standin.called(trt, "ITensor.set_dynamic_range")
    assert given
    assert all(low == -high and high in largest for low, high in given)


def test_a_dla_has_no_fp32(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.3.0", dla_cores=1)
    options = PlanOptions(dla_core=0)
    with pytest.raises(UsageError, match="computes in FP16 and INT8"):
        build(BuildConfig(run_copy / "model.onnx", "fp32", "tensorrt", options))


@pytest.mark.parametrize(
    ("machine", "error", "said"),
    [
        ({"gpu": None}, RuntimeMissing, "on the GPU that the engine is for"),
        ({"build_error": "no memory"}, MismatchedArtifact, "cannot compile"),
    ],
)
def test_what_fails_leaves_nothing(
    machine: dict[str, Any],
    error: type[Exception],
    said: str,
    run_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, "11.4.0", **machine)
    before = sorted(path.name for path in run_copy.iterdir())
    with pytest.raises(error, match=said):
        build(BuildConfig(run_copy / "model.onnx", "fp32", "tensorrt"))
    assert sorted(path.name for path in run_copy.iterdir()) == before


def test_ctrl_c_leaves_nothing(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    def interrupted(items: Any, description: str, total: int | None = None) -> Any:
        for item in items:
            if description == "compiling the engine":
                raise KeyboardInterrupt
            yield item

    before = sorted(path.name for path in run_copy.iterdir())
    config = BuildConfig(run_copy / "model.onnx", "fp16", "tensorrt-rtx", min_agreement=0)
    with pytest.raises(KeyboardInterrupt):
        build(config, interrupted)
    assert sorted(path.name for path in run_copy.iterdir()) == before


def test_options_of_tensorrt_are_refused_elsewhere(run_copy: Path) -> None:
    with pytest.raises(UsageError, match="does not support the options of TensorRT"):
        build(BuildConfig(run_copy / "model.onnx", "fp16", "onnxruntime", PlanOptions(tf32=False)))


def test_the_command_passes_every_option(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = installed(monkeypatch, "10.16.1")
    listing, timed = tmp_path / "layers.json", tmp_path / "mine.timing"
    options = (
        f"--fp16 --runtime tensorrt --min-agreement 0 --workspace 128 --optimisation-level 4 "
        f"--timing-cache {timed} --hardware-compatibility same --no-tf32 --batch 1:1:1 "
        f"--layers {listing} --json"
    )
    done = CliRunner().invoke(make_app(), ["build", str(run_copy / "model.onnx"), *options.split()])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    used = sidecar_of(Path(result["engine"])).build_options
    assert used["workspace_mib"] == 128
    assert used["optimisation_level"] == 4
    assert used["hardware_compatibility"] == "same"
    assert used["tf32"] is False
    assert used["batch"] == 1
    assert timed.is_file()
    table = load(LayerTable, listing)
    assert result["layers"] == table.model_dump(mode="json")
    assert "layers of the engine" in done.stderr
    assert any(row.precision == "fp16" for row in table.layers)
    assert standin.called(trt, "IBuilderConfig.clear_flag") == [(trt.BuilderFlag.TF32,)]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--batch 1:8", "expected SMALLEST:TYPICAL:LARGEST"),
        ("--batch 4:2:8", "smallest <= typical <= largest"),
        ("--sizes 64:64:64", "expected WIDTHxHEIGHT"),
        ("--sizes 64x64:32x32:128x128", "smallest <= typical"),
        ("--layers layers.json", "TensorRT engines only"),
    ],
)
def test_options_that_say_nothing_sensible(run_copy: Path, option: str, said: str) -> None:
    words = ["build", str(run_copy / "model.onnx"), "--fp16", *option.split()]
    done = CliRunner().invoke(make_app(), words)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
