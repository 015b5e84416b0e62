"""Whole frames through engines: the same bits, wherever the stages run."""

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
from edgeseg.engines.cuda.stages import FrameJob
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.engines.pipeline import CpuPipeline, FramePipeline
from edgeseg.engines.tensorrt.pipeline import GpuPipeline
from edgeseg.engines.tensorrt.session import Session
from edgeseg.errors import DeviceError, UsageError

Maker = Callable[..., ModelProto]
RTX = "rtx-1.7.1"


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
    with made.engine() as engine, engine.open_pipeline() as pipeline:
        assert pipeline.on_gpu
        assert_right(made.onnx, pipeline, JOB)
        assert isinstance(pipeline, GpuPipeline)
    # A graph a slot; the first call of each is no replay.
    assert made.device.captures == (0 if version == RTX else 2)
    assert made.device.launches == (0 if version == RTX else 8)
    gc.collect()
    assert made.device.live() == []


@needs_compiler
@pytest.mark.parametrize(
    "job",
    [FrameJob((20, 31)), FrameJob((20, 32), look=LOOK), FrameJob((33, 44), batch=3, look=LOOK)],
    ids=["labels", "overlay", "batch"],
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
    with made.engine() as engine, engine.open_pipeline() as pipeline:
        pipeline.run(camera(job, 1)[0], job.look)
        tables = device.copies
        assert_right(made.onnx, pipeline, job)
        ran = 10 * (1 + 1 + (job.look is not None))
        assert device.copies - tables == (10 if integrated else ran)
        if integrated:  # labels alone are moved: the network's memory is written again
            assert set(device.ran[tables:]) <= {*("copy device to device", "preprocess", "overlay")}


@needs_compiler
def test_all_is_one_graph_in_this_order(brightest: Maker, tmp_path: Path, shipped: Path) -> None:
    made = bench(brightest(output="logits"), tmp_path)
    with made.engine() as engine, engine.open_pipeline() as pipeline:
        for batch in camera(JOB, 4):
            pipeline.run(batch, LOOK)
        made.device.ran.clear()
        launches = made.device.launches
        pipeline.run(camera(JOB, 1)[0], LOOK)
        assert made.device.launches == launches + 1
    assert made.device.ran == [
        "copy host to device",
        "preprocess",
        "argmax",
        "overlay",
        *["copy device to host"] * 2,
    ]


@needs_compiler
def test_infer_between_frames_of_another_batch_captures_again(
    brightest: Maker, tmp_path: Path, shipped: Path
) -> None:
    made = bench(brightest("N"), tmp_path)
    rng = np.random.default_rng(0)
    with made.engine() as engine, engine.open_pipeline() as pipeline:
        for _ in range(2):
            assert_right(made.onnx, pipeline, JOB, 3)
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
@pytest.mark.parametrize("fault", ["one buffer for two", "nobody waits"])
def test_what_goes_wrong_would_be_seen(
    brightest: Maker, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    made = bench(brightest(), tmp_path)
    if fault == "one buffer for two":
        buffers = stages._buffers
        monkeypatch.setattr(stages, "_buffers", lambda *given: buffers(*given)[:1] * 2)
    else:
        monkeypatch.setattr(made.cuda, "wait", lambda event: None)
    with made.engine() as engine, engine.open_pipeline() as pipeline, pytest.raises(AssertionError):
        assert_right(made.onnx, pipeline, JOB)


@needs_compiler
def test_a_refused_capture_is_said_once_and_frames_stay_right(
    brightest: Maker, tmp_path: Path, shipped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bench(brightest(), tmp_path, refuses_call=lambda capturing: capturing)
    with (
        caplog.at_level(logging.WARNING, "edgeseg"),
        made.engine() as engine,
        engine.open_pipeline() as pipeline,
    ):
        assert_right(made.onnx, pipeline, JOB)
        assert pipeline.on_gpu
    assert [record.message for record in caplog.records] == [
        "this engine runs without a CUDA graph: its runtime refused the call"
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
        (batch,) = camera(JOB, 1)
        with engine.open_pipeline() as pipeline:
            pipeline.run(batch, LOOK)
        steps = device.taken - before
        assert steps > 10
        for refused in range(2, steps + 1):  # the first is the module, which has a way around
            device.fail_at = device.taken + refused
            with (
                pytest.raises(DeviceError, match=r"model\.fp32\.engine: .*MemoryAllocation"),
                engine.open_pipeline() as pipeline,
            ):
                pipeline.run(batch, LOOK)
            gc.collect()
            assert sorted(device.live()) == held
    gc.collect()
    assert device.live() == []


@needs_compiler
def test_closing(brightest: Maker, tmp_path: Path, shipped: Path) -> None:
    made = bench(brightest(), tmp_path)
    engine = made.engine()
    pipeline = engine.open_pipeline()
    (batch,) = camera(JOB, 1)
    kept = pipeline.run(batch, LOOK)
    pipeline.submit(batch, LOOK)
    engine.close()  # with a batch under way
    pipeline.close()
    same(kept, expected(made.onnx, JOB, batch))
    del kept, pipeline
    gc.collect()
    assert made.device.live() == []


def test_every_engine_takes_frames(network: Path) -> None:
    with OnnxRuntimeEngine(network, threads=1) as engine, engine.open_pipeline() as pipeline:
        assert isinstance(pipeline, CpuPipeline)
        assert not pipeline.on_gpu
        assert_right(network, pipeline, JOB)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([np.zeros((37, 50), np.uint8)], r"uint8 \(H, W, 3\), not uint8 \(37, 50\)"),
        ([np.zeros((37, 50, 3), np.int8)], "not int8"),
        ([np.zeros((37, 0, 3), np.uint8)], r"not uint8 \(37, 0, 3\)"),
        ([], "takes 1 to 1 frames, not 0"),
        ([np.zeros((37, 50, 3), np.uint8)] * 2, "takes 1 to 1 frames, not 2"),
    ],
)
def test_wrong_frames_are_refused(network: Path, frames: Any, said: str) -> None:
    with (
        OnnxRuntimeEngine(network, threads=1) as engine,
        engine.open_pipeline() as pipeline,
        pytest.raises(UsageError, match=said),
    ):
        pipeline.run(frames)


def assert_bounded(pipeline: FramePipeline) -> None:
    """No more batches in flight than it takes, and none once it is closed."""
    (batch,) = camera(JOB, 1)
    with pytest.raises(UsageError, match="submit one before"):
        pipeline.collect()
    for _ in range(pipeline.depth):
        pipeline.submit(batch)
    with pytest.raises(UsageError, match=rf"{pipeline.depth} batch\(es\) in flight"):
        pipeline.submit(batch)
    pipeline.close()
    with pytest.raises(UsageError, match="closed"):
        pipeline.submit(batch)


def test_batches_in_flight_are_bounded(network: Path) -> None:
    with OnnxRuntimeEngine(network, threads=1) as engine:
        assert_bounded(engine.open_pipeline())


@needs_compiler
def test_batches_in_flight_on_the_gpu_are_bounded(
    brightest: Maker, tmp_path: Path, shipped: Path
) -> None:
    with bench(brightest(), tmp_path).engine() as engine:
        assert_bounded(engine.open_pipeline())
