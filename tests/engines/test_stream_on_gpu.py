"""The camera loop around engines that keep whole frames on their GPU: the same results."""

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines.frame_cases import needs_compiler
from engines.plans import Bench, bench
from onnx import ModelProto
from standin.device import Device
from streaming import Kept

from edgeseg.engines.base import Engine
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.engines.pipeline import PipelineResult
from edgeseg.engines.tensorrt.pipeline import GpuPipeline
from edgeseg.errors import DeviceError, InferenceError, RuntimeMissing
from edgeseg.stream import Stream, StreamOptions, StreamResult, run
from edgeseg.stream.lanes import Lane

Maker = Callable[..., ModelProto]
SOURCE = "test:50x37?frames=9"
MODES = ("latency", "throughput")
pytestmark = needs_compiler


@pytest.fixture
def made(brightest: Maker, tmp_path: Path, shipped: Path) -> Bench:
    return bench(brightest(), tmp_path)


@pytest.fixture
def many(brightest: Maker, tmp_path: Path, shipped: Path) -> Bench:
    """Of batches of 1 to 4."""
    return bench(brightest("N"), tmp_path)


def options(mode: Any, **changes: Any) -> StreamOptions:
    return StreamOptions(**({"realtime": False, "mode": mode, "outline": True} | changes))


def streamed(
    engine: Engine, mode: str, sources: Sequence[str] = (SOURCE,), *, overlay: bool = True
) -> tuple[list[StreamResult], dict[str, Any]]:
    kept = Kept(shows_overlay=overlay)
    report = run(Stream(list(sources), engine, options(mode)), [kept])
    return kept.results, report.to_dict()


def on_processor(
    network: Path, sources: Sequence[str] = (SOURCE,)
) -> dict[tuple[int, int], StreamResult]:
    """What the loop gives without a GPU, by camera and number."""
    with OnnxRuntimeEngine(network, threads=1) as engine:
        results, report = streamed(engine, "latency", sources)
    assert report["frames_on_gpu"] is False
    assert all(result.shown is None for result in results)
    return {(result.camera, result.index): result for result in results}


def assert_same(found: Sequence[StreamResult], wanted: dict[tuple[int, int], StreamResult]) -> None:
    """Bit by bit; each camera's in order, none twice and none left out."""
    assert {(each.camera, each.index) for each in found} == set(wanted)
    assert len(found) == len(wanted)
    for camera in {each.camera for each in found}:
        numbers = [each.index for each in found if each.camera == camera]
        assert numbers == sorted(numbers)
    for each in found:
        other = wanted[each.camera, each.index]
        np.testing.assert_array_equal(each.frame, other.frame)
        np.testing.assert_array_equal(each.labels, other.labels)
        np.testing.assert_array_equal(each.overlay(), other.overlay())
        np.testing.assert_array_equal(each.areas(), other.areas())
        np.testing.assert_array_equal(each.mask(), other.mask())


def test_tiles_of_tensorrt_are_cut_on_the_processor(made: Bench) -> None:
    found = []
    for opened in (OnnxRuntimeEngine(made.onnx, threads=1), made.engine()):
        kept = Kept(shows_overlay=True)
        with opened as engine:
            report = run(Stream(SOURCE, engine, options("latency", tiles=True)), [kept])
        assert report.frames_on_gpu is False
        found.append(kept.results)
    assert_same(found[1], {(each.camera, each.index): each for each in found[0]})
    assert len({each.labels.tobytes() for each in found[0]}) > 1


@pytest.mark.parametrize("overlay", [True, False], ids=["overlay", "labels"])
@pytest.mark.parametrize("mode", MODES)
def test_tensorrt_gives_what_the_processor_gives_in_one_graph_a_frame(
    made: Bench, mode: str, overlay: bool
) -> None:
    wanted = on_processor(made.onnx)
    assert len({each.overlay().tobytes() for each in wanted.values()}) > 1
    with made.engine() as engine:
        results, report = streamed(engine, mode, overlay=overlay)
        assert report["frames_on_gpu"] is True
        assert all((each.shown is not None) == overlay for each in results)
        assert_same(results, wanted)
        assert ("overlay" in made.device.ran) == overlay
    assert made.device.captures == 2  # one a slot
    assert made.device.launches > 4
    gc.collect()
    assert made.device.live() == []


def test_smoothed_labels_are_drawn_by_the_processor(made: Bench) -> None:
    """The GPU would draw the labels as they were before."""
    kept = Kept(shows_overlay=True)
    with made.engine() as engine:
        report = run(Stream(SOURCE, engine, options("latency", smooth=0.2)), [kept])
    assert report.frames_on_gpu
    assert all(each.shown is None and "smooth" in each.stages_ms for each in kept.results)
    assert "overlay" not in made.device.ran


def test_times_say_what_is_one_graph(made: Bench) -> None:
    with made.engine() as engine:
        results, report = streamed(engine, "throughput")
    for each in results:
        assert set(each.stages_ms) == {"capture", "infer", "postprocess", "sink"}
        assert each.age_ms >= each.stages_ms["infer"] > 0
    assert report["stages_ms"]["preprocess"] == {"p50": None, "p99": None}
    # Two batches are under way, but the time of none counts twice.
    assert sum(each.stages_ms["infer"] for each in results) <= report["seconds"] * 1000


@pytest.mark.parametrize("mode", MODES)
def test_cameras_of_one_size_share_a_batch(many: Bench, mode: str) -> None:
    sources = [SOURCE, "test:50x37?frames=5"]
    wanted = on_processor(many.onnx, sources)
    with many.engine() as engine:
        results, report = streamed(engine, mode, sources)
    assert report["frames_on_gpu"] is True
    assert_same(results, wanted)


@pytest.mark.parametrize("mode", MODES)
def test_frames_of_two_sizes_give_what_the_processor_gives(many: Bench, mode: str) -> None:
    sources = ["test:50x37?frames=6", "test:32x24?frames=6"]
    wanted = on_processor(many.onnx, sources)
    with many.engine() as engine:
        results, _ = streamed(engine, mode, sources)
    assert_same(results, wanted)


def test_a_batch_of_two_sizes_goes_through_the_processor_and_it_is_said_once(
    many: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    # Which frames of two sources meet in a batch is a matter of time; so no stream here.
    frames = [np.full((*size, 3), 90, np.uint8) for size in ((37, 50), (24, 32))]
    caplog.set_level(logging.WARNING, "edgeseg")
    with many.engine() as engine, engine.open_pipeline() as pipeline:
        for _ in range(2):
            assert len(pipeline.run(frames).labels) == 2
    said = [each.message for each in caplog.records if "on the processor" in each.message]
    assert len(said) == 1
    assert "different sizes" in said[0]


def test_one_at_a_time_two_sizes_stay_on_the_gpu(many: Bench) -> None:
    sources = ["test:50x37?frames=4", "test:32x24?frames=4"]
    wanted = on_processor(many.onnx, sources)
    with many.engine() as engine:
        kept = Kept(shows_overlay=True)
        run(Stream(sources, engine, options("throughput", batch=1)), [kept])
    assert_same(kept.results, wanted)
    assert all(each.shown is not None for each in kept.results)


def test_a_batch_that_is_fixed_is_filled_up(
    brightest: Maker, tmp_path: Path, shipped: Path
) -> None:
    made = bench(brightest(3), tmp_path)
    with made.engine() as engine:
        results, report = streamed(engine, "throughput")
    single = tmp_path / "single"
    single.mkdir()
    assert report["frames_on_gpu"] is True
    assert_same(results, on_processor(bench(brightest("N"), single).onnx))


def test_without_kernels_the_processor_does_it_and_says_so_once(
    made: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeMissing("no kernels")

    monkeypatch.setattr("edgeseg.engines.tensorrt.pipeline.load_kernels", missing)
    wanted = on_processor(made.onnx)
    with caplog.at_level(logging.WARNING, "edgeseg"), made.engine() as engine:
        results, report = streamed(engine, "throughput")
    assert report["frames_on_gpu"] is False
    assert report["stages_ms"]["preprocess"]["p50"] is not None
    assert_same(results, wanted)
    assert sum("on the processor" in each.message for each in caplog.records) == 1


def lost(device: Device) -> None:
    """The GPU's memory is gone, as after a fault of its own."""
    for block in list(device.blocks.values()):
        if block.kind == "device":
            device.give(block.address, ("device",))


@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_that_is_lost_ends_the_stream_with_its_name(made: Bench, mode: str) -> None:
    engine = made.engine()
    taken = []
    with pytest.raises(DeviceError, match=r"model\.fp32\.engine: .*IllegalAddress"):
        for result in Stream(SOURCE, engine, options(mode)):
            taken.append(result.index)
            if len(taken) == 3:
                lost(made.device)
    assert issubclass(DeviceError, InferenceError)
    assert taken == list(range(len(taken)))
    assert 3 <= len(taken) < 9


def test_two_streams_one_after_the_other_leave_nothing_behind(made: Bench) -> None:
    wanted = on_processor(made.onnx)
    with made.engine() as engine:
        held = []
        for _ in range(2):
            for number, _ in enumerate(Stream(SOURCE, engine, options("throughput"))):
                if number == 4:  # with batches under way
                    break
            del _
            gc.collect()
            held.append(made.device.live())
        assert held[0] == held[1]
        assert held[0].count("device memory") == 2  # the engine's own
        assert_same(streamed(engine, "throughput")[0], wanted)


@pytest.fixture
def not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that hands out the GPU's buffers themselves."""

    def fetch(self: GpuPipeline, batch: Any) -> PipelineResult:
        found = self._job.collect()  # type: ignore[union-attr]
        painted = found.painted and list(found.painted.host.array)
        return PipelineResult(list(found.labels.host.array), painted, {"infer": 1.0})

    monkeypatch.setattr(GpuPipeline, "_fetch", fetch)


@pytest.mark.usefixtures("not_copied")
def test_buffers_that_the_next_frame_overwrites_would_be_seen(made: Bench) -> None:
    wanted = on_processor(made.onnx)
    with made.engine() as engine, pytest.raises(AssertionError):
        assert_same(streamed(engine, "throughput")[0], wanted)


def test_an_order_that_is_lost_would_be_seen(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = Lane.collect

    def backwards(self: Lane) -> list[StreamResult]:
        self._in_flight.reverse()
        return collect(self)

    monkeypatch.setattr(Lane, "collect", backwards)
    wanted = on_processor(made.onnx)
    with made.engine() as engine, pytest.raises(AssertionError):
        assert_same(streamed(engine, "throughput")[0], wanted)
