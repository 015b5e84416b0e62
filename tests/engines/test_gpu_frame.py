"""bench/gpu/frame.py: what it says without a GPU, and all of its steps on a stand-in."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engines.frame_cases import needs_compiler
from engines.plans import adapter, bench
from onnx import ModelProto
from scripts import scripts
from standin import kernels
from standin.device import Device

from edgeseg import machine
from edgeseg.engines.cuda import Cuda


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with scripts("gpu") as load:
        module = load("frame")
        monkeypatch.setattr(module, "SIZES", ((36, 64),))
        monkeypatch.setattr(module, "ODD", ((7, 33),))
        monkeypatch.setattr(module, "BATCHES", (1, 2))
        yield module


@pytest.fixture
def cuda(frame: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = adapter("cuda-python", Device())
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("Stand-in GPU"),))
    monkeypatch.setattr(frame, "open_cuda", lambda: made)
    monkeypatch.setattr(frame, "sanitizer", lambda: "exit 0: ERROR SUMMARY: 0 errors")
    return made


@needs_compiler
def test_all_rows_and_the_page(
    frame: ModuleType,
    cuda: Any,
    shipped: Path,
    brightest: Callable[..., ModelProto],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench(brightest(), tmp_path, device=cuda._cuda.device)
    monkeypatch.setitem(sys.modules, "tensorrt", made.trt)
    out = tmp_path / "out"
    frame.main([str(made.plan), "--rounds", "1", "--calls", "2", "--out", str(out)])
    document = json.loads((out / "frame.json").read_text())
    assert len(document["correctness"]) == 2 * 2 * 3
    assert all(row["same_bits"] for row in document["correctness"])
    assert [(row["stage"], row["batch"]) for row in document["bandwidth"]] == [
        (stage, batch) for batch in (1, 2) for stage in ("preprocess", "argmax", "overlay")
    ]
    one, two = document["throughput"]
    assert one["on_gpu"]
    assert one["share_of_network"] == pytest.approx(one["frame_fps"] / one["network_fps"])
    assert "takes 1 to 1 frames, not 2" in two["error"]
    assert "12 comparisons, 0 differ" in (out / "frame.md").read_text()


@needs_compiler
def test_a_kernel_that_is_wrong_is_found(
    frame: ModuleType,
    cuda: Cuda,
    shipped: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda name, *rest: name == "overlay" or launch(name, *rest)
    )
    with pytest.raises(SystemExit) as ended:
        frame.main(["--check"])
    assert ended.value.code == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["stage"] for row in rows if not row["same_bits"]} == {"overlay"}
