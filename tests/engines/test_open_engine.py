import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import standin
from engines.plans import Bench, bench
from onnx import ModelProto
from standin.cuda import Runtime
from standin.device import Device

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import SideCar, read, sidecar_path
from edgeseg.engines import open_engine, runtimes_here
from edgeseg.errors import ArtifactError, CorruptArtifact, RuntimeMissing, UsageError

BAD = Path(__file__).parents[1] / "bad"


@pytest.fixture
def plan(card: ModelCard, tmp_path: Path) -> Path:
    """Something with the name and the side-car of an engine."""
    path = tmp_path / "model.int8.engine"
    path.write_bytes(b"vtrt and what follows")
    SideCar(
        artifact_sha256=sha256_file(path),
        card=card.derive(parent_sha256="0" * 64, precision="int8"),
        runtime="tensorrt-rtx",
        runtime_version="1.7.1.116",
        targets=("sm_86",),
    ).save(sidecar_path(path))
    return path


def test_a_network_is_opened_by_the_runtime_of_this_machine(network: Path) -> None:
    with open_engine(network, threads=1) as engine:
        assert engine.runtime == "onnxruntime"
        assert engine.runtime in runtimes_here()


@pytest.mark.parametrize(
    "path",
    sorted([*BAD.glob("networks/*.onnx"), *BAD.glob("engines/*.engine")]),
    ids=lambda path: path.name,
)
def test_bad_files_are_refused_in_one_sentence_and_silently(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError, match=path.stem) as caught:
        open_engine(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_truncated_networks_are_refused(
    network: Path, keep: float, capfd: pytest.CaptureFixture[str]
) -> None:
    data = network.read_bytes()
    network.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        open_engine(network)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("absent", "reason", "hint"),
    [
        ("tensorrt_rtx", "TensorRT-RTX, which is not installed", r"edgeseg\[tensorrt-rtx\]"),
        ("cuda.bindings.runtime", "cuda-python, which is not installed", r"edgeseg\[cuda\]"),
        (None, "there is no NVIDIA driver on this machine", "install the driver"),
    ],
)
def test_engines_say_why_they_do_not_run_here_and_what_does(
    plan: Path, monkeypatch: pytest.MonkeyPatch, absent: str | None, reason: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", standin.tensorrt("rtx-1.7.1"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(Device(driver=0)))
    if absent:
        monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(
        RuntimeMissing, match=rf"engine in int8 for tensorrt-rtx 1\.7.* sm_86 .*GPU: .*{reason}"
    ) as caught:
        open_engine(plan)
    twin = plan.with_name("model.int8.onnx")
    assert f"use {twin} here (`edgeseg build --int8` makes it); to run" in str(caught.value.hint)
    assert re.search(hint, str(caught.value.hint))
    twin.touch()
    with pytest.raises(RuntimeMissing) as caught:
        open_engine(plan)
    assert str(caught.value.hint).startswith(f"use {twin} here; to run the engine: ")


def test_an_engine_runs_where_all_is_there(
    brightest: Callable[..., ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(brightest(), tmp_path)
    made.install(monkeypatch)
    tensor = np.random.default_rng(0).normal(size=(1, 3, 16, 24)).astype(np.float32)
    with open_engine(made.plan) as engine:
        assert engine.runtime == "tensorrt"
        assert np.array_equal(engine.infer(tensor), made.expected(tensor))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.plan.write_bytes(made.plan.read_bytes()[:-1] + b"!"),
        lambda made: made.plan.write_bytes(made.plan.read_bytes()[:40]),
        lambda made: sidecar_path(made.plan).unlink(),
        lambda made: sidecar_path(made.plan).write_text('{"schema_version": 99}'),
        lambda made: sidecar_path(made.plan).write_text("{}"),
        lambda made: respell(made.plan, runtime_version="10.3.1"),
        lambda made: respell(made.plan, platform="linux riscv64"),
        lambda made: respell(made.plan, gpu="Another GPU"),
        lambda made: respell(made.plan, compute_capability="sm_89"),
        lambda made: respell(made.plan, runtime="onnxruntime"),
    ],
    ids=[
        "altered",
        "cut short",
        "no side-car",
        "schema",
        "no side-car of ours",
        "version",
        "platform",
        "GPU",
        "capability",
        "runtime",
    ],
)
def test_what_does_not_fit_never_reaches_tensorrt(
    brightest: Callable[..., ModelProto],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Bench], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = bench(brightest(), tmp_path)
    made.install(monkeypatch)
    spoil(made)
    with pytest.raises(ArtifactError, match=r"model\.fp32\.engine") as caught:
        open_engine(made.plan)
    assert "\n" not in str(caught.value)
    assert not standin.called(made.trt, "Runtime.deserialize_cuda_engine")
    assert made.device.taken == 0
    assert capfd.readouterr() == ("", "")


def respell(plan: Path, **fields: str) -> None:
    """Another side-car for the same bytes."""
    made = read(plan)
    assert made is not None
    made.model_copy(update=fields).save(sidecar_path(plan))


def test_other_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_engine(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="is a folder"):
        open_engine(tmp_path)
    other = tmp_path / "model.tflite"
    other.write_bytes(b"TFL3")
    with pytest.raises(UsageError, match=r"expected a \.onnx network or a \.engine"):
        open_engine(other)


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin"])
def test_weights_are_read_from_the_networks_own_folder_only(
    brightest: Callable[..., ModelProto],
    tmp_path: Path,
    place: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = brightest()
    weight = model.graph.initializer[0]
    path = tmp_path / "run" / "model.onnx"
    path.parent.mkdir()
    (path.parent / place).write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, place, 0, len(weight.raw_data))
    weight.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    if place == "secret.bin":
        open_engine(path).close()
    else:
        with pytest.raises(CorruptArtifact, match="(?i)external data"):
            open_engine(path)
    assert capfd.readouterr() == ("", "")
