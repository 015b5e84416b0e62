"""Each way in which an artefact goes bad × each kind, through the commands that take one.

Refused with exit code 3 in one sentence that names the file and how to hint it, before any
runtime or deserialiser is reached, before gigabytes are hashed, and with nothing written.
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import safetensors

from edgeseg.artifacts import sidecar
from edgeseg.artifacts.files import sha256_bytes, write_atomic
from edgeseg.artifacts.sidecar import SideCar, sidecar_path

GIGABYTES = 2 * 1024**3
KINDS = {
    "checkpoint": "model.safetensors",
    "network": "model.onnx",
    "engine": "model.fp16.engine",
    "ranges": "model.ranges.json",
    "manifest": "manifest.json",
}
ARTEFACTS = ("checkpoint", "network", "engine")


def commands(kind: str, path: Path, data: Path) -> dict[str, tuple[object, ...]]:
    """Command lines that read a file of this kind."""
    inspect = {"inspect": ("inspect", path)}
    if kind in ("ranges", "manifest"):  # `build` opens the network before it: test_cli_errors.
        return inspect
    runs = {
        "eval": ("eval", path, "--data", data),
        "infer": ("infer", path, data / "val" / "images"),
        "stream": ("stream", path, "--source", "test:?frames=1", "--no-window"),
        "bench": ("bench", path, "--seconds", "0.1"),
    }
    if kind == "checkpoint":
        return inspect | runs | {"export": ("export", path, "--out", "new.onnx")}
    if kind == "network":
        build = {
            "build": ("build", path, "--fp16", "--overwrite"),
            "int8": ("build", path, "--int8", "--overwrite"),
        }
        return (
            inspect
            | runs
            | build
            | {"calibrate": ("calibrate", path, "--from", data, "--overwrite")}
        )
    return inspect | runs


def replaced(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def moved_behind_a_link(path: Path) -> None:
    """To a file outside of the folder, with nothing beside the link that vouches for it."""
    outside = path.parent.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)
    sidecar_path(path).unlink(missing_ok=True)


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def write_foreign(path: Path) -> None:
    """The side-car of another artefact of that kind."""
    edit(path, artifact_sha256="0" * 64)


def link_to_copy(path: Path) -> None:
    copy = path.parent.parent / f"copy-{path.name}"
    shutil.copy(path, copy)
    link(path, str(copy))


def edit(path: Path, **values: object) -> None:
    document = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(document | values))


DEFECTS: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: replaced(path, b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "random": lambda path: replaced(path, random.Random(0).randbytes(path.stat().st_size)),
    "sparse": lambda path: os.truncate(path, GIGABYTES),
    "dangling-link": lambda path: link(path, "nowhere"),
    "link-in-a-circle": lambda path: link(path, path.name),
    "link-to-a-device": lambda path: link(path, "/dev/zero"),
    "pipe": pipe,
}
DEFECTS_OF_ARTEFACTS: dict[str, Callable[[Path], None]] = {
    "one-bit-flipped": flip,
    "link": moved_behind_a_link,
    "foreign-side-car": write_foreign,
    "side-car-empty": lambda path: replaced(sidecar_path(path), b""),
    "side-car-not-json": lambda path: replaced(sidecar_path(path), b"engine: yes\n"),
    "side-car-too-large": lambda path: os.truncate(sidecar_path(path), GIGABYTES),
    "side-car-of-schema-99": lambda path: edit(path, schema_version=99),
    "side-car-with-a-key-more": lambda path: edit(path, more=1),
    "side-car-dangling": lambda path: link(sidecar_path(path), "nowhere"),
    "side-car-in-a-circle": lambda path: link(sidecar_path(path), sidecar_path(path).name),
    "side-car-a-pipe": lambda path: pipe(sidecar_path(path)),
}
DEFECTS_OF_ENGINES: dict[str, Callable[[Path], None]] = {
    "no-side-car": lambda path: sidecar_path(path).unlink(),
    "writable-by-all": lambda path: path.chmod(0o666),
    "folder-writable-by-all": lambda path: path.parent.chmod(0o777),
    "side-car-a-link": lambda path: link_to_copy(sidecar_path(path)),
    "linked-with-side-car": link_to_copy,
}


ALL_DEFECTS = DEFECTS | DEFECTS_OF_ARTEFACTS | DEFECTS_OF_ENGINES
CASES = [
    *((kind, name) for name in DEFECTS for kind in KINDS),
    *((kind, name) for name in DEFECTS_OF_ARTEFACTS for kind in ARTEFACTS),
    *(("engine", name) for name in DEFECTS_OF_ENGINES),
]


def commands_of(kind: str, name: str, path: Path, data: Path) -> dict[str, tuple[object, ...]]:
    """Every second command, so that each meets each defect in one kind or another."""
    lines = commands(kind, path, data)
    if len(lines) == 1 or name in DEFECTS_OF_ENGINES:
        return lines
    first = (list(ALL_DEFECTS).index(name) + list(KINDS).index(kind)) % 2
    return dict(list(lines.items())[first::2])


def test_each_command_meets_each_defect_and_each_kind() -> None:
    met = {
        (command, what)
        for kind, name in CASES
        for command in commands_of(kind, name, Path("a"), Path("b"))
        for what in (name, kind)
    }
    for kind in ARTEFACTS:
        for command in commands(kind, Path("a"), Path("b")):
            assert (command, kind) in met
            if command in commands("engine", Path("a"), Path("b")):
                assert {(command, name) for name in DEFECTS | DEFECTS_OF_ARTEFACTS} <= met


@pytest.fixture
def whole_run(run_copy: Path) -> Path:
    """A run that also holds an engine, and the manifest of its ranges."""
    (run_copy / "model.int8.onnx").unlink()
    engine = run_copy / KINDS["engine"]
    write_atomic(engine, b"vtrt" + random.Random(1).randbytes(5000))
    made = sidecar.read(run_copy / "model.fp16.onnx")
    assert made is not None
    data = engine.read_bytes()
    update = {
        "artifact_sha256": sha256_bytes(data),
        "artifact_bytes": len(data),
        "runtime": "tensorrt-rtx",
        "runtime_version": "1.7.1",
    }
    made.model_copy(update=update).save(sidecar_path(engine))
    manifest = run_copy / KINDS["manifest"]
    shutil.copy("calib/small/manifest.json", manifest)
    ranges = json.loads((run_copy / KINDS["ranges"]).read_text())
    ranges["manifest"] = str(manifest)
    (run_copy / KINDS["ranges"]).write_text(json.dumps(ranges))
    return run_copy


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes and deserialisers that must not be reached, and gigabytes not be hashed."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a deserialiser was reached")

    monkeypatch.setattr(onnxruntime, "InferenceSession", reached)
    monkeypatch.setattr(onnx, "load", reached)
    monkeypatch.setattr(onnx, "load_model", reached)
    monkeypatch.setattr(safetensors, "safe_open", reached)
    for name, module in list(sys.modules.items()):
        if not name.startswith("edgeseg."):
            continue
        if hasattr(module, "safe_open"):
            monkeypatch.setattr(module, "safe_open", reached)
        if hasattr(module, "sha256_file"):
            monkeypatch.setattr(module, "sha256_file", hash_of_small(module.sha256_file))


def hash_of_small(hashed: Callable[[Path], str]) -> Callable[[Path], str]:
    def checked(path: Path) -> str:
        if path.stat().st_size >= GIGABYTES:
            pytest.fail(f"gigabytes of {path} are hashed")
        return hashed(path)

    return checked


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_refused(
    kind: str, name: str, whole_run: Path, small_data: Path, edgeseg: Any, guarded: None
) -> None:
    path = whole_run / KINDS[kind]
    lines = commands_of(kind, name, path, small_data)
    ALL_DEFECTS[name](path)
    before = files(whole_run.parent)
    for line in lines.values():
        outcome = edgeseg(*line, "--json")
        assert outcome.code == 3, (line, outcome.err)
        assert "Traceback" not in outcome.err
        document = outcome.document
        errors = [document["error"]] if "error" in document else document["problems"]
        assert errors, line
        assert any(path.name in error["message"] for error in errors), errors
        assert all(error["hint"] and "\n" not in error["message"] for error in errors), errors
        assert files(whole_run.parent) == before, line


def files(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*") if not path.is_dir()}


def test_the_guard_fires(whole_run: Path, small_data: Path, edgeseg: Any, guarded: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="deserialiser was reached"):
        edgeseg("eval", whole_run / "model.onnx", "--data", small_data, "--json")
    (whole_run / "model.onnx.json").unlink()
    os.truncate(whole_run / "model.onnx", GIGABYTES)
    from edgeseg.building import fp32

    with pytest.raises(pytest.fail.Exception, match="gigabytes"):
        fp32.sha256_file(whole_run / "model.onnx")


@pytest.mark.parametrize("kind", ["checkpoint", "network"])
def test_a_sparse_file_that_no_side_car_bounds(
    kind: str, whole_run: Path, small_data: Path, edgeseg: Any
) -> None:
    path = whole_run / KINDS[kind]
    sidecar_path(path).unlink()
    replaced(path, b"")
    os.truncate(path, GIGABYTES)
    for line in commands(kind, path, small_data).values():
        outcome = edgeseg(*line, "--json")
        assert outcome.code == 3, (line, outcome.err)


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_sound_passes(
    kind: str, whole_run: Path, edgeseg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = edgeseg("inspect", whole_run / KINDS[kind], "--json")
    problems = outcome.document["problems"]
    assert [p for p in problems if "vtrt" not in p["message"]] == [], problems
    assert outcome.code == 0


def test_the_size_in_a_side_car_is_that_of_the_file(trained: Path) -> None:
    found = [path for path in trained.iterdir() if sidecar_path(path).exists()]
    assert len(found) >= 4
    for path in found:
        made = sidecar.read(path)
        assert isinstance(made, SideCar)
        assert made.artifact_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "model.safetensors"),
        ("import", "model.onnx", "--classes", "a,b"),
        ("infer", "model.onnx", "."),
        ("infer", "picture.png"),
        ("build", "model.onnx", "--fp16", "--runtime", "onnxruntime"),
        ("stream", "--source", "clip.mp4", "--no-window"),
    ],
    ids=" ".join,
)
def test_pointers_of_git_lfs(
    edgeseg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """A repository cloned without Git LFS holds these texts in place of its files."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    for name in ("model.safetensors", "model.onnx", "picture.png", "clip.mp4"):
        (tmp_path / name).write_text(pointer)
    monkeypatch.chdir(tmp_path)
    outcome = edgeseg(*arguments)
    assert outcome.code in (3, 5)
    assert "is a pointer of Git LFS" in outcome.err + outcome.out
    assert "git lfs pull" in outcome.err + outcome.out
