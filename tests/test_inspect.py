"""``edgeseg inspect`` against what the onnx and safetensors libraries say of real files."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors import safe_open

from edgeseg.artifacts import sidecar
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.headers import read_onnx
from edgeseg.artifacts.sidecar import sidecar_path
from edgeseg.inspection import gathering, inspect, inspect_run
from edgeseg.machine import Gpu

NETWORKS = ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_told_as_onnx_tells_them(name: str, trained: Path) -> None:
    found, model = inspect(trained / name), onnx.load(trained / name)
    assert found.problems == ()
    contents = found.contents
    assert contents is not None
    assert contents.opsets == {op.domain or "ai.onnx": op.version for op in model.opset_import}
    assert contents.operators == dict(Counter(node.op_type for node in model.graph.node))
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert contents.parameters == sum(weight.size for weight in weights)
    sizes: Counter[str] = Counter()
    for weight in weights:
        sizes[str(weight.dtype)] += weight.size
    assert contents.elements == dict(sizes)
    assert [port.shape for port in contents.inputs] == [(1, 3, 64, 96)]
    assert [port.dtype for port in contents.outputs] == ["uint8"]


def test_dimensions_that_are_not_fixed_are_named(trained: Path, tmp_path: Path) -> None:
    model = onnx.load(trained / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "model.onnx")
    contents, _ = read_onnx(tmp_path / "model.onnx")
    assert contents.inputs[0].shape == ("N", 3, 64, 96)


def test_checkpoints_are_told_as_safetensors_tells_them(trained: Path) -> None:
    found = inspect(trained / "model.safetensors")
    assert found.contents is not None
    with safe_open(trained / "model.safetensors", framework="np") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
    assert found.contents.tensors == len(tensors)
    assert found.contents.parameters == sum(tensor.size for tensor in tensors)
    assert found.vouched is True


def test_what_it_was_made_from_is_followed_to_the_checkpoint(run_copy: Path) -> None:
    chain = inspect(run_copy / "model.int8.onnx").chain
    assert [(link.role, link.state) for link in chain] == [
        ("network", "matches"),
        ("checkpoint", "matches"),
        ("calibration set", "matches"),
    ]
    for path in run_copy.glob("last.*"):  # The same bytes, where the last epoch was the best.
        path.unlink()
    shutil.move(run_copy / "model.safetensors", run_copy / "kept.safetensors")
    (run_copy / "model.safetensors").write_bytes(b"another")
    states = {link.role: link.state for link in inspect(run_copy / "model.int8.onnx").chain}
    assert states["checkpoint"] == "differs"
    shutil.move(sidecar_path(run_copy / "model.safetensors"), run_copy / "kept.safetensors.json")
    (link,) = [n for n in inspect(run_copy / "model.onnx").chain if n.role == "checkpoint"]
    assert (link.state, link.path) == ("matches", str(run_copy / "kept.safetensors"))
    (run_copy / "model.onnx").unlink()
    assert inspect(run_copy / "model.int8.onnx").chain[0].state == "absent"


def test_a_damaged_network_is_told_as_far_as_it_can_be(run_copy: Path, edgeseg: Any) -> None:
    path = run_copy / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    outcome = edgeseg("inspect", path, "--json")
    assert outcome.code == 3
    told = outcome.document
    assert told["vouched"] is False
    assert "changed since it was made" in told["problems"][0]["message"]
    assert told["card"]["arch"] == "unet-lite"
    for_people = edgeseg("inspect", path)
    assert for_people.code == 3
    assert for_people.out.splitlines()[1].startswith("  ✗ ")


def test_a_side_car_with_another_card_is_named(run_copy: Path) -> None:
    path = run_copy / "model.onnx"
    made = sidecar.read(path)
    assert made is not None
    other = made.card.model_copy(update={"name": "other"})
    made.model_copy(update={"card": other}).save(sidecar_path(path))
    (problem,) = inspect(path).problems
    assert "its card is not the one in model.onnx" in problem.message


def test_pictures_that_are_gone_or_changed_are_counted(run_copy: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "calib" / "small" / "manifest.json"
    document = json.loads(manifest.read_text())
    gone, changed = document["files"][0], document["files"][1]
    copy = tmp_path / "changed.png"
    copy.write_bytes(b"another picture")
    gone["path"], changed["path"] = "../../nowhere.png", str(copy)
    manifest.write_text(json.dumps(document))
    found = inspect(manifest)
    assert found.calibration is not None
    assert (found.calibration.missing, found.calibration.changed) == (1, 1)
    assert "1 are gone and 1 changed" in found.problems[0].message


def test_a_run_is_each_artefact_in_it(trained: Path, edgeseg: Any) -> None:
    found = {Path(each.path).name: each.kind for each in inspect_run(trained)}
    assert {"model.safetensors", "model.ranges.json", *NETWORKS} <= set(found)
    assert "state.safetensors" not in found
    told = edgeseg("inspect", trained, "--json").document
    assert told["kind"] == "run"
    assert len(told["artefacts"]) == len(found)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.ranges.json"])
def test_nothing_but_the_core_is_needed(name: str, trained: Path) -> None:
    words = ["edgeseg", "inspect", str(trained / name), "--json"]
    absent = ("torch", "onnx", "onnxruntime", "safetensors", "cv2", "matplotlib", "kornia")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); sys.argv = {words!r}; "
        "from edgeseg.cli import main; main()"
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told["problems"] == []
    if told["runs_here"] is not None:
        assert told["runs_here"]["runs"] is False
        assert "pip install 'edgeseg[" in told["runs_here"]["hint"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_network_runs_in_what_it_was_built_for(
    runtime: str, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_copy / "model.int8.onnx"
    made = sidecar.read(path)
    assert made is not None
    made.model_copy(update={"runtime": runtime}).save(sidecar_path(path))
    monkeypatch.setattr(gathering, "find_spec", lambda name: None if name == runtime else name)
    runs = inspect(path).runs_here
    assert runs is not None
    assert (runs.runs, runs.runtime, runs.reason) == (False, runtime, f"{runtime} not installed")
    monkeypatch.setattr(gathering, "find_spec", lambda name: name)
    runs = inspect(path).runs_here
    assert runs is not None
    assert runs.runs


def rtx_engine(folder: Path, *targets: str) -> Path:
    """A file with the header of TensorRT-RTX 1.7.1, and a side-car that vouches for it."""
    path = folder / "model.fp16.engine"
    data = b"vtrt".ljust(16, b"\0") + (64).to_bytes(8, "little") + bytes([1, 7, 1, 116])
    path.write_bytes(data.ljust(64, b"\0"))
    made = sidecar.read(folder / "model.fp16.onnx")
    assert made is not None
    update = {
        "artifact_sha256": sha256_file(path),
        "artifact_bytes": 64,
        "runtime": "tensorrt-rtx",
        "runtime_version": "1.7.1.116",
        "targets": targets,
    }
    made.model_copy(update=update).save(sidecar_path(path))
    return path


@pytest.mark.parametrize(
    ("gpu", "version", "says"),
    [
        ("8.6", "1.7.1.116", None),
        ("8.9", "1.7.1.116", "built for sm_86, and this is A GPU, sm_89"),
        ("8.6", "1.8.0", "built for TensorRT-RTX 1.7.1.116, and this is TensorRT-RTX 1.8.0"),
        ("8.6", None, "tensorrt-rtx is not installed"),
        (None, "1.7.1.116", "no NVIDIA GPU"),
    ],
)
def test_whether_an_engine_can_run_here(
    gpu: str | None,
    version: str | None,
    says: str | None,
    run_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found_gpus = () if gpu is None else (Gpu("A GPU", "580.1", 8192, gpu),)
    monkeypatch.setattr(gathering, "gpus", lambda: found_gpus)
    installed = {} if version is None else {"tensorrt-rtx": version}
    monkeypatch.setattr(gathering, "versions", lambda _: installed)
    found = inspect(rtx_engine(run_copy, "sm_86"))
    assert found.problems == ()
    assert found.contents is not None
    assert found.contents.producer == "TensorRT-RTX 1.7.1"
    runs = found.runs_here
    assert runs is not None
    assert runs.runs is (says is None)
    assert (says or "") in (runs.reason or "")
    if says and "built for" in says:
        assert f"edgeseg build {run_copy / 'model.onnx'} --fp16" in (runs.hint or "")
        assert "--target sm_86" in (runs.hint or "")


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**64 - 1])
def test_a_header_of_no_length_or_of_any_is_not_read(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(100))
    (problem,) = inspect(path).problems
    assert f"a header of {length} bytes in a file of 110" in problem.message
