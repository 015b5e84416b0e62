"""Whole frames through engines: the same bits, wherever the stages run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import standin
from engines.frame_cases import JOB, LOOK, assert_right, camera, expected, needs_compiler, same
from engines.plans import bench
from onnx import ModelProto
from standin.device import Device

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.cuda.frames import GpuFrames
from edgeseg.engines.frames import CpuFrames, FrameJob
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
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
@pytest.mark.parametrize("through", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("output", ["labels_u8", "logits"])
@pytest.mark.parametrize("version", standin.VERSIONS)
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


def test_no_more_than_two_batches_are_under_way(network: Path) -> None:
    with OnnxRuntimeEngine(network, threads=1) as engine, engine.open_frames(JOB) as runner:
        (batch,) = camera(JOB, 1)
        with pytest.raises(UsageError, match="submit one before"):
            runner.collect()
        for _ in range(2):
            runner.submit(batch)
        with pytest.raises(UsageError, match="2 batches are under way"):
            runner.submit(batch)
