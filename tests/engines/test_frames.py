"""Whole frames through engines: the same bits, wherever the stages run."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from engines.frame_cases import JOB, LOOK, assert_right, camera, expected, needs_compiler, same
from engines.plans import bench
from onnx import ModelProto
from standin.device import Device

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.cuda import stages
from edgeseg.engines.cuda.frames import GpuFrames
from edgeseg.engines.frames import CpuFrames, FrameJob
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.engines.tensorrt.session import Session
from edgeseg.errors import DeviceError, UsageError

Maker = Callable[..., ModelProto]
RTX = "rtx-1.7.1"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def letterboxed(card: ModelCard) -> ModelCard:
    return card.model_copy(
        update={"input": card.input.model_copy(update={"resize": "letterbox", "color": "bgr"})}
    )


@needs_compiler
@pytest.mark.parametrize(
    ("version", "output", "through"),
    [
        (version, output, ("cuda-python", "pycuda")[(row + column) % 2])
        for row, version in enumerate(standin.VERSIONS)
        for column, output in enumerate(("labels_u8", "logits"))
    ],
)
def test_tensorrt_on_the_gpu(
    brightest: Maker, tmp_path: Path, shipped: Path, version: str, output: str, through: str
) -> None:
    made = bench(brightest(output=output), tmp_path, version, through=through)
    with made.engine() as engine, engine.open_frames(JOB) as runner:
        assert runner.on_gpu
        assert_right(made.onnx, runner, JOB)
        assert isinstance(runner, GpuFrames)
        assert runner.captured == (version != RTX)
    # A graph a slot; the first call of each is no replay.
    assert made.device.captures == (0 if version == RTX else 2)
    assert made.device.launches == (0 if version == RTX else 8)
    gc.collect()
    assert made.device.live() == []


@needs_compiler
@pytest.mark.parametrize(
    "job",
    [
        FrameJob((20, 31)),
        FrameJob((20, 32), look=LOOK),
        FrameJob((64, 9), areas=True),
        FrameJob((33, 44), grey=True, look=LOOK, areas=True),
        FrameJob((33, 44), batch=3, look=LOOK, areas=True),
    ],
    ids=["labels", "overlay", "areas", "grey", "batch"],
)
@pytest.mark.parametrize("integrated", [False, True], ids=["own memory", "shared memory"])
def test_what_is_wanted_of_a_letterbox(
    brightest: Maker,
    letterboxed: ModelCard,
    tmp_path: Path,
    shipped: Path,
    job: FrameJob,
    integrated: bool,
) -> None:
    device = Device(integrated=integrated)
    made = bench(brightest("N", card=letterboxed), tmp_path, device=device)
    with made.engine() as engine, engine.open_frames(job) as runner:
        tables = device.copies
        assert_right(made.onnx, runner, job)
        ran = 10 * (1 + 1 + (job.look is not None) + job.areas)
        assert device.copies - tables == (10 if integrated else ran)
        if integrated:  # labels alone are moved: the network's memory is written again
            assert set(device.ran[tables:]) <= {
                *("copy device to device", "clear", "preprocess_f32", "overlay", "areas")
            }


@needs_compiler
def test_all_is_one_graph_in_this_order(brightest: Maker, tmp_path: Path, shipped: Path) -> None:
    made = bench(brightest(output="logits"), tmp_path)
    with made.engine() as engine, engine.open_frames(JOB) as runner:
        for batch in camera(JOB, 4):
            runner.run(batch)
        made.device.ran.clear()
        launches = made.device.launches
        runner.run(camera(JOB, 1)[0])
        assert made.device.launches == launches + 1
    assert made.device.ran == [
        "copy host to device",
        "preprocess_f32",
        "argmax_f32",
        "clear",
        "areas",
        "overlay",
        *["copy device to host"] * 3,
    ]


@needs_compiler
def test_infer_between_frames_of_another_batch_captures_again(
    brightest: Maker, tmp_path: Path, shipped: Path
) -> None:
    made = bench(brightest("N"), tmp_path)
    rng = np.random.default_rng(0)
    with made.engine() as engine, engine.open_frames(JOB) as runner:
        for _ in range(2):
            assert_right(made.onnx, runner, JOB, 3)
            many = rng.normal(size=(4, 3, 16, 24)).astype(np.float32)
            for _ in range(3):
                np.testing.assert_array_equal(engine.infer(many), made.expected(many))
    assert made.device.captures == 6


@needs_compiler
def test_a_graph_kept_past_another_shape_would_be_seen(
    brightest: Maker, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Session.settle
    monkeypatch.setattr(Session, "settle", lambda self, shape: settle(self, shape)[:-1])
    with pytest.raises(AssertionError):
        test_infer_between_frames_of_another_batch_captures_again(brightest, tmp_path, shipped)


@needs_compiler
@pytest.mark.parametrize("fault", ["one slot for two", "nobody waits", "stale areas"])
def test_what_goes_wrong_would_be_seen(
    brightest: Maker, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    made = bench(brightest(), tmp_path)
    if fault == "one slot for two":
        slots = stages._slots
        monkeypatch.setattr(stages, "_slots", lambda *given: slots(*given)[:1] * 2)
    elif fault == "nobody waits":
        monkeypatch.setattr(made.cuda, "wait", lambda event: None)
    else:
        monkeypatch.setattr(made.cuda, "clear", lambda address, nbytes, stream: None)
    with made.engine() as engine, engine.open_frames(JOB) as runner, pytest.raises(AssertionError):
        assert_right(made.onnx, runner, JOB)


@needs_compiler
def test_a_refused_capture_is_said_once_and_frames_stay_right(
    brightest: Maker, tmp_path: Path, shipped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bench(brightest(), tmp_path, refuses_call=lambda capturing: capturing)
    with (
        caplog.at_level(logging.WARNING, "edgeseg"),
        made.engine() as engine,
        engine.open_frames(JOB) as runner,
    ):
        assert_right(made.onnx, runner, JOB)
        assert runner.on_gpu
    assert [record.message for record in caplog.records] == [
        "no CUDA graph of this engine, it runs without: its runtime refused the call"
    ]


@needs_compiler
@pytest.mark.parametrize(
    ("through", "integrated"), [("cuda-python", False), ("pycuda", True)], ids=["own", "shared"]
)
def test_no_memory_at_any_point_leaves_nothing_behind(
    brightest: Maker, tmp_path: Path, shipped: Path, integrated: bool, through: str
) -> None:
    device = Device(integrated=integrated)
    made = bench(brightest(), tmp_path, device=device, through=through)
    with made.engine() as engine:
        gc.collect()
        held, before = sorted(device.live()), device.taken
        engine.open_frames(JOB).close()
        steps = device.taken - before
        assert steps > 10
        for refused in range(2, steps + 1):  # the first is the module, which has a way around
            device.fail_at = device.taken + refused
            with pytest.raises(DeviceError, match=r"model\.fp32\.engine: .*MemoryAllocation"):
                engine.open_frames(JOB)
            gc.collect()
            assert sorted(device.live()) == held
    gc.collect()
    assert device.live() == []


@needs_compiler
def test_closing(brightest: Maker, tmp_path: Path, shipped: Path) -> None:
    made = bench(brightest(), tmp_path)
    engine = made.engine()
    runner = engine.open_frames(JOB)
    (batch,) = camera(JOB, 1)
    kept = runner.run(batch)
    runner.submit(batch)
    engine.close()  # with a batch under way
    runner.close()
    same(kept, expected(made.onnx, JOB, batch))
    del kept, runner
    gc.collect()
    assert made.device.live() == []


def test_every_engine_takes_frames(network: Path) -> None:
    with OnnxRuntimeEngine(network, threads=1) as engine, engine.open_frames(JOB) as runner:
        assert isinstance(runner, CpuFrames)
        assert not runner.on_gpu
        assert_right(network, runner, JOB)


@pytest.mark.parametrize(
    ("job", "frames", "said"),
    [
        (JOB, [np.zeros((37, 51, 3), np.uint8)], r"uint8 \(37, 50, 3\), not uint8 \(37, 51, 3\)"),
        (JOB, [np.zeros((37, 50, 3), np.int8)], "not int8"),
        (JOB, [], r"expected 1 frame\(s\), not 0"),
        (FrameJob((37, 50), batch=2), [], "takes batches of 1, not 2|cannot take 2"),
        (FrameJob((37, 0)), [], r"cannot take 1 frame\(s\) of \(37, 0\)"),
    ],
)
def test_wrong_frames_are_refused(network: Path, job: FrameJob, frames: Any, said: str) -> None:
    with (
        OnnxRuntimeEngine(network, threads=1) as engine,
        pytest.raises(UsageError, match=said),
        engine.open_frames(job) as runner,
    ):
        runner.run(frames)


def test_no_more_than_two_batches_are_under_way(network: Path) -> None:
    with OnnxRuntimeEngine(network, threads=1) as engine, engine.open_frames(JOB) as runner:
        (batch,) = camera(JOB, 1)
        with pytest.raises(UsageError, match="submit one before"):
            runner.collect()
        for _ in range(2):
            runner.submit(batch)
        with pytest.raises(UsageError, match="2 batches are under way"):
            runner.submit(batch)
