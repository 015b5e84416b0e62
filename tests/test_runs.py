import os
from pathlib import Path

import pytest

from edgeseg import runs
from edgeseg.errors import UsageError


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _touch(path: str, age: int) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    os.utime(file, (1_000_000 - age, 1_000_000 - age))


def test_no_run_names_the_command_that_makes_one() -> None:
    with pytest.raises(UsageError, match="no run under") as caught:
        runs.newest_run()
    assert "edgeseg train" in (caught.value.hint or "")


def test_newest_run_is_the_one_trained_last_even_if_an_older_one_has_engines() -> None:
    _touch("runs/old/model.safetensors", 50)
    _touch("runs/old/model.int8.onnx", 10)
    _touch("runs/new/model.safetensors", 20)
    assert runs.newest_run() == Path("runs/new")
    with pytest.raises(UsageError, match="holds none of") as caught:
        runs.resolve(None, ("model.int8.onnx",), "edgeseg build --int8")
    assert caught.value.hint == "edgeseg build --int8"


def test_a_file_is_taken_as_given_and_a_folder_as_a_run(caplog: pytest.LogCaptureFixture) -> None:
    _touch("runs/a/model.onnx", 10)
    _touch("runs/a/model.int8.onnx", 5)
    assert runs.resolve(Path("x.onnx"), ("model.onnx",), "") == Path("x.onnx")
    with caplog.at_level("INFO"):
        chosen = runs.resolve(Path("runs/a"), ("model.onnx", "model.int8.onnx"), "")
    assert chosen == Path("runs/a/model.int8.onnx")
    assert "taking runs/a/model.int8.onnx" in caplog.text


def test_a_run_is_not_replaced_by_accident() -> None:
    run = Path("runs/a")
    with runs.prepare_run(run, "unet-lite") as made:
        assert made == run
        assert run.is_dir()
    assert not Path("runs").exists(), "what stayed empty is removed"
    _touch("runs/a/model.safetensors", 1)
    _touch("runs/a/model.fp16.engine", 1)
    _touch("runs/a/notes.txt", 1)
    with (
        pytest.raises(UsageError, match="already holds a run") as caught,
        runs.prepare_run(run, "unet-lite"),
    ):
        pass
    assert "--overwrite" in (caught.value.hint or "")
    with runs.prepare_run(run, "unet-lite", overwrite=True):
        pass
    assert os.listdir(run) == ["notes.txt"]


def test_default_name_says_architecture_and_time() -> None:
    with runs.prepare_run(None, "fcn8s") as run, runs.prepare_run(None, "fcn8s") as other:
        assert run.match("runs/fcn8s-????????-??????")
        assert other != run


def test_unwritable_folder() -> None:
    with (
        pytest.raises(UsageError, match="cannot make the run folder /proc/x") as caught,
        runs.prepare_run(Path("/proc/x"), "unet-lite"),
    ):
        pass
    assert "--run" in str(caught.value.hint)
