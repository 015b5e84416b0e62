import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.engines.choice import (
    MODULES,
    Here,
    best_here,
    probe_machine,
    runtime_choices,
    runtimes_here,
)
from edgeseg.errors import RuntimeMissing

ALL = Here(modules=frozenset(MODULES), gpu=True, x86=True)


def test_the_best_that_can_run_is_first() -> None:
    assert runtimes_here(ALL) == ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
    assert runtimes_here(replace(ALL, gpu=False)) == ("openvino", "onnxruntime")
    assert runtimes_here(replace(ALL, gpu=False, x86=False)) == ("onnxruntime", "openvino")
    assert best_here(without(ALL, "tensorrt")) == "tensorrt-rtx"
    assert best_here(without(ALL, "cuda.bindings")) == "tensorrt"
    assert best_here(without(ALL, "cuda.bindings", "pycuda")) == "openvino"
    assert best_here(without(replace(ALL, gpu=False), "openvino")) == "onnxruntime"


def test_each_says_why_not() -> None:
    reasons = {c.runtime: c.reason for c in runtime_choices(without(ALL, "tensorrt", "openvino"))}
    assert reasons["tensorrt"] == reasons["openvino"] == "not installed"
    assert "pycuda" in {c.runtime: c.reason for c in runtime_choices(
        without(ALL, "cuda.bindings", "pycuda"))}["tensorrt-rtx"]  # fmt: skip
    assert "no NVIDIA GPU" in runtime_choices(replace(ALL, gpu=False))[0].reason


def test_the_choice_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgeseg"):
        best_here(replace(without(ALL, "openvino"), gpu=False))
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("runtime onnxruntime: ")
    assert "not tensorrt: no NVIDIA GPU" in said
    assert "not openvino: not installed" in said


def test_a_machine_without_any_runtime_says_what_to_install() -> None:
    with pytest.raises(RuntimeMissing, match="onnxruntime: not installed") as caught:
        best_here(Here(frozenset(), gpu=False, x86=True))
    assert "edgeseg[cpu]" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["nvidiactl", "nvhost-gpu"])
def test_a_gpu_is_known_by_the_drivers_file(tmp_path: Path, name: str) -> None:
    assert not probe_machine(tmp_path).gpu
    (tmp_path / name).touch()
    assert probe_machine(tmp_path).gpu


def test_inside_wsl_a_gpu_is_known_by_windows_driver(tmp_path: Path) -> None:
    driver = tmp_path / "libcuda.so.1"
    (tmp_path / "dxg").touch()  # any GPU, Intel's too
    assert not probe_machine(tmp_path, driver).gpu
    driver.touch()
    assert probe_machine(tmp_path, driver).gpu
    (tmp_path / "dxg").unlink()
    assert not probe_machine(tmp_path, driver).gpu


def without(here: Here, *modules: str) -> Here:
    return replace(here, modules=here.modules - set(modules))
