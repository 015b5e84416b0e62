"""The whole road, for real: training, building, measuring, streaming.

One epoch from the network of the quick start, short measurements, a short clip, and one
interpreter for all commands; ``-m soak`` takes it as users do.
"""

import contextlib
import functools
import io
import itertools
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from benchmarks import shorten_benchmarks
from walking import Walk

from edgeseg.benchmark import coldstart
from edgeseg.cli import demo, main
from edgeseg.data.folders import list_images
from edgeseg.errors import RuntimeMissing, UsageError

pytestmark = pytest.mark.timeout(900)  # it trains and builds, on a machine that may be busy


def in_this_process(
    command: Sequence[str], *, cwd: Path, stdout: int, check: bool
) -> subprocess.CompletedProcess[bytes]:
    """``subprocess.run`` of a command line, without the seconds that its imports take."""
    assert command[:3] == [sys.executable, "-m", "edgeseg"]
    logger = logging.getLogger("edgeseg")
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgeseg", *command[3:]])
        logger.handlers.clear()
        with pytest.raises(SystemExit) as ended:
            main()
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    out.flush()
    printed = out.buffer.getvalue()
    return subprocess.CompletedProcess(list(command), int(ended.value.code or 0), printed)


@pytest.fixture(scope="module")
def road(quickstart: Walk, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    learned = str(quickstart.folder / "runs/nuclei/model.safetensors")
    changes = {"--epochs": "1", "--learning-rate": "0.0005"}
    options = [changes.get(a, b) for a, b in itertools.pairwise(("", *demo.TRAINING))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TRAINING", (*options, "--width", "8", "--weights", learned))
        started = SimpleNamespace(run=in_this_process, PIPE=subprocess.PIPE)
        patch.setattr(demo, "subprocess", started)
        patch.setattr(coldstart, "measure", lambda path, threads: "not tried")
        shorten_benchmarks(patch)
        patch.setattr(demo, "BENCH", (*demo.BENCH, "--seconds", "0.1"))
        patch.setattr(demo, "make_clip", functools.partial(demo.make_clip, seconds=2.0))
        out = tmp_path_factory.mktemp("demo") / "out"
        return out, demo.run_demo(out)


@pytest.mark.soak
def test_the_network_of_the_whole_demo_is_good(tmp_path: Path) -> None:
    summary = demo.run_demo(tmp_path / "out")
    assert summary["val_mean_iou"] >= 0.85


def test_the_network_is_good_and_stays_so_in_every_precision(
    road: tuple[Path, dict[str, Any]],
) -> None:
    _, summary = road
    assert summary["val_mean_iou"] >= 0.8
    here = {run["precision"]: run for run in summary["engines"] if run["runtime"] == "onnxruntime"}
    assert here["fp32"]["mean_iou"] == pytest.approx(summary["val_mean_iou"], abs=1e-3)
    assert here["fp16"]["drop"] <= 0.002
    assert here["int8"]["drop"] <= 0.01
    assert here["int8"]["pixel_agreement"] < here["fp32"]["pixel_agreement"] == 1
    assert here["int8"]["bytes"] < here["fp16"]["bytes"] < here["fp32"]["bytes"]
    assert all(run["latency_ms"].keys() == {"p50", "p95", "p99"} for run in here.values())
    assert summary["peak_rss_mib"] < 3 * 1024


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_gives_what_onnx_runtime_gives(road: tuple[Path, dict[str, Any]]) -> None:
    _, summary = road
    here = {run["precision"]: run for run in summary["engines"] if run["runtime"] == "openvino"}
    assert here["fp32"]["pixel_agreement"] > 0.9999
    assert here["int8"]["drop"] <= 0.01
    assert 0.98 < here["int8"]["pixel_agreement"] < 1


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_engines_are_real_and_vouched_for(road: tuple[Path, dict[str, Any]]) -> None:
    from edgeseg.artifacts import sidecar

    out, summary = road
    built = [run for run in summary["engines"] if run["runtime"] == "tensorrt-rtx"]
    assert {run["precision"] for run in built} == {"fp16", "int8"}
    for run in built:
        path = out / run["path"]
        assert path.read_bytes()[:4] == b"vtrt"[::-1] or b"vtrt" in path.read_bytes()[:64]
        made = sidecar.verify(path, required=True)
        assert made is not None
        assert made.gate is not None
        assert made.gate.passed
        assert made.precision is not None
        assert made.precision.low_precision_share > 0.9


def test_the_overlay_was_recorded_frame_by_frame(road: tuple[Path, dict[str, Any]]) -> None:
    out, summary = road
    assert summary["stream"]["frames"] == 50
    assert summary["stream"]["dropped"] == 0
    video = cv2.VideoCapture(str(out / "overlay.mkv"))
    frames = []
    while (grabbed := video.read())[0]:
        frames.append(grabbed[1])
    assert len(frames) == 50
    green, red = frames[25][..., 1].astype(int), frames[25][..., 2].astype(int)
    assert np.mean(green - red > 30) > 0.01, "nuclei are painted green"


def test_the_report_stands_alone_and_the_summary_is_on_disk(
    road: tuple[Path, dict[str, Any]],
) -> None:
    out, summary = road
    page = Path(summary["report"]).read_text()
    assert not re.search(r"<script|(?:src|href)=[\"']?https?:", page)
    assert all(command.split()[1] in page for command in summary["commands"])
    assert json.loads((out / "summary.json").read_text()) == summary


def test_the_commands_can_be_repeated_in_the_folder(
    road: tuple[Path, dict[str, Any]], edgeseg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary = road
    monkeypatch.chdir(shutil.copytree(out, tmp_path / "out"))
    engine = Path("runs/nuclei/model.int8.onnx")
    command = next(c for c in summary["commands"] if "--int8 --runtime onnxruntime" in c)
    assert edgeseg(*command.split()[1:]).code == 2  # it replaces nothing unasked
    engine.write_bytes(b"another")
    outcome = edgeseg(*command.split()[1:], "--json", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert engine.read_bytes() == (out / engine).read_bytes()


def test_a_failed_step_ends_the_demo_with_its_status(tmp_path: Path) -> None:
    with pytest.raises(demo.StepFailed, match="edgeseg eval") as caught:
        demo.Demo(tmp_path).run("eval", "--data", "nowhere")
    assert caught.value.exit_code == 2


def test_a_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not an empty folder"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("torch", "a_library_nobody_has"))
    with pytest.raises(RuntimeMissing, match="needs a_library_nobody_has") as caught:
        demo.run_demo(None)
    assert caught.value.hint == "pip install 'edgeseg[demo]'"


def test_the_clip_pans_slowly(tmp_path: Path, nuclei: Path) -> None:
    path = tmp_path / "clip.mkv"
    demo.make_clip(list_images(nuclei / "val" / "images"), path)
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 250
    frames = [video.read()[1] for _ in range(70)][60:]
    assert all(frame.shape == (480, 640, 3) for frame in frames)
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32) for frame in frames]
    steps = [np.hypot(*cv2.phaseCorrelate(a, b)[0]) for a, b in itertools.pairwise(grey)]
    assert all(2 < step < 50 for step in steps), steps


@pytest.mark.parametrize(("name", "hint"), [("KILL", "free memory"), ("TERM", "None")])
def test_a_command_that_a_signal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(demo.StepFailed, match=f"ended by SIG{name}") as caught:
        demo.Demo(tmp_path).run("train")
    assert hint in str(caught.value.hint)
    assert caught.value.exit_code == 128 + getattr(signal, f"SIG{name}")
