"""bench/gpu/probe.py: what it says without a GPU, and all of its steps on a stand-in."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import standin
from scripts import scripts
from standin.cuda import Driver, Library, Runtime
from standin.device import Device

from edgeseg import machine
from edgeseg.engines.cuda import pycuda


@pytest.fixture(scope="module")
def probe() -> Iterator[ModuleType]:
    with scripts("gpu") as load:
        yield load("probe")


@pytest.mark.timeout(300)  # it builds six engines, on a machine that may be busy
def test_every_engine_becomes_a_row(
    probe: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(trained, run)
    shutil.copytree(trained.parents[1] / "calib", tmp_path / "calib")
    device = Device()
    driver = Driver(device)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("Stand-in GPU"),))
    monkeypatch.setattr(probe, "install", lambda wheels: None)
    monkeypatch.setattr(pycuda.ctypes, "CDLL", lambda name: Library(driver))
    trt = standin.tensorrt("rtx-1.7.1", gpu=device.name, device=device)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(device))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    probe.main([str(run), "--rounds", "1", "--calls", "1", "--out", str(tmp_path / "out")])
    document = json.loads((tmp_path / "out" / "probe.json").read_text())
    for found in document["adapters"].values():
        assert (found["copied"], found["graph"]) == (True, True)
    engines = document["engines"]
    assert [(e["precision"], e["target"]) for e in engines] == [
        (precision, target) for precision in ("fp32", "fp16", "int8") for target in (None, "sm_86")
    ]
    for row in (row for engine in engines for row in engine["runs"]):
        assert row["agreement_same_graph"] == 1
        assert row["infer_ms_p50"] > 0
    page = (tmp_path / "out" / "probe.md").read_text()
    assert page.count("\n| ") == 2 + 6 * 4
    # A device that fails is a row, not the end.
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert "pycuda cannot be imported" in probe.try_adapter("pycuda")["error"]
