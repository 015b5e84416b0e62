"""Running an engine, on every version of TensorRT and through both libraries of CUDA.

The stand-in's engine is the ONNX network in ONNX Runtime, reading and writing the addresses that
it was given, when the stream that it was queued on is waited for. So labels are right only where
addresses, sizes, copies, streams and graphs are.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from engines.plans import Bench, bench, open_sized, spoilt
from onnx import ModelProto, TensorProto, helper
from standin.device import Device

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, OpenSize
from edgeseg.data.folders import load_image
from edgeseg.engines.cuda.replay import Replay
from edgeseg.engines.tensorrt.session import Session
from edgeseg.errors import DeviceError, MismatchedArtifact, UsageError
from edgeseg.ops.preprocess import preprocess

Maker = Callable[..., ModelProto]
RTX = "rtx-1.7.1"


@pytest.fixture(scope="module")
def pictures(nuclei: Path) -> np.ndarray:
    """Float32 (14, 3, 16, 24): real pictures whose highest channel is 0 in their brighter half."""
    made = []
    for path in sorted((nuclei / "val" / "images").iterdir()):
        image = load_image(path)
        middle = (float(np.median(image)) / 255,) * 3
        spec = InputSpec(height=16, width=24, mean=middle, std=(0.1, 0.2, 0.4))
        made.append(preprocess(image, spec))
    return np.stack(made)


def batches(pictures: np.ndarray, *sizes: int) -> Iterator[np.ndarray]:
    """One after the other, of these sizes, no picture twice in a row."""
    start = 0
    for size in sizes:
        yield np.take(pictures, range(start, start + size), axis=0, mode="wrap")
        start += size


def assert_right(made: Bench, pictures: np.ndarray, *sizes: int, **arguments: Any) -> None:
    with made.engine(**arguments) as engine:
        for batch in batches(pictures, *sizes):
            assert np.array_equal(engine.infer(batch), made.expected(batch))


@pytest.mark.parametrize(
    ("version", "open_batch", "graph", "through"),
    [
        ("8.6.1", False, True, "pycuda"),
        ("10.3.0", True, True, "cuda-python"),
        ("10.16.1", True, False, "pycuda"),
        ("11.4.0", False, False, "cuda-python"),
        (RTX, True, True, "pycuda"),
        (RTX, False, False, "cuda-python"),
    ],
)
def test_labels_are_those_of_onnx_runtime(
    brightest: Maker,
    tmp_path: Path,
    pictures: np.ndarray,
    version: str,
    open_batch: bool,
    graph: bool,
    through: str,
) -> None:
    made = bench(brightest("N" if open_batch else 2), tmp_path, version, through=through)
    sizes = (1, 1, 3, 3, 3, 1, 4) if open_batch else (2, 2, 2)
    expected = [made.expected(batch) for batch in batches(pictures, *sizes)]
    assert len({labels.tobytes() for labels in expected}) == len(sizes)
    with made.engine(graph=graph) as engine:
        assert engine.capabilities.batch == (None if open_batch else 2)
        assert engine.runtime == ("tensorrt-rtx" if version == RTX else "tensorrt")
        for batch, labels in zip(batches(pictures, *sizes), expected, strict=True):
            assert np.array_equal(engine.infer(batch), labels)
    captured = graph and version != RTX
    assert made.device.captures == (captured and (2 if open_batch else 1))
    assert made.device.launches == (captured and (3 if open_batch else 2))
    strategies = standin.called(made.trt, "IRuntimeConfig.cuda_graph_strategy")
    assert [each.name for (each,) in strategies] == (
        ["WHOLE_GRAPH_CAPTURE"] if graph and version == RTX else []
    )
    gc.collect()
    assert made.device.live() == []


@pytest.mark.parametrize("version", ["8.6.1", RTX])
def test_scores_become_labels(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, version: str
) -> None:
    assert_right(bench(brightest("N", "logits"), tmp_path, version), pictures, 1, 1, 3)


@pytest.mark.parametrize("version", ["8.6.1", "11.4.0", RTX])
def test_sizes_may_vary_too(
    brightest: Maker, card: ModelCard, tmp_path: Path, version: str
) -> None:
    spec = card.input.model_copy(update={"open_size": OpenSize(step=8, smallest=8)})
    model = open_sized(brightest("N", card=card.model_copy(update={"input": spec})))
    made = bench(model, tmp_path, version)
    random = np.random.default_rng(0)
    with made.engine() as engine:
        for shape in ((1, 16, 24), (1, 16, 24), (2, 8, 32), (2, 8, 32), (2, 8, 32), (1, 16, 24)):
            batch = random.normal(size=(shape[0], 3, *shape[1:])).astype(np.float32)
            assert np.array_equal(engine.infer(batch), made.expected(batch))
        with pytest.raises(UsageError, match=r"to \(4, 3, 32, 48\), not \(1, 3, 40, 24\)"):
            engine.infer(np.zeros((1, 3, 40, 24), np.float32))
    assert made.device.captures == (0 if version == RTX else 2)


def test_a_graph_kept_past_its_shape_would_give_old_labels(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of shapes above would see a graph that is not captured again."""
    run = Replay.run
    monkeypatch.setattr(Replay, "run", lambda self, shape: run(self, ()))
    with pytest.raises(AssertionError):
        assert_right(bench(brightest("N"), tmp_path), pictures, 1, 1, 3, 3)


def test_a_refused_capture_is_said_once_and_the_labels_stay_right(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    made = bench(brightest(), tmp_path, refuses_call=lambda capturing: capturing)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert_right(made, pictures, 1, 1, 1, 1)
    assert [record.message for record in caplog.records] == [
        "this engine runs without a CUDA graph: its runtime refused the call"
    ]
    gc.collect()
    assert (made.device.launches, made.device.live()) == (0, [])


def test_a_refused_capture_taken_for_one_would_give_old_labels(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = Session._enqueue
    monkeypatch.setattr(Session, "_enqueue", lambda self: enqueue(self) or True)
    made = bench(brightest(), tmp_path, refuses_call=lambda capturing: capturing)
    with pytest.raises(AssertionError):
        assert_right(made, pictures, 1, 1, 1)


def test_a_capture_that_cuda_breaks_is_no_end(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """A layer that allocates or waits while it is queued invalidates the capture."""
    device = Device()

    def waits(capturing: bool) -> bool:
        for stream in device.streams.values():
            stream.broken = capturing
        return False

    made = bench(brightest(), tmp_path, device=device, refuses_call=waits)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert_right(made, pictures, 1, 1, 1, 1)
    assert "cudaErrorStreamCaptureInvalidated" in caplog.text
    assert len(caplog.records) == 1


def test_a_refused_call_is_an_error_of_the_device(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray
) -> None:
    made = bench(brightest(), tmp_path, refuses_call=lambda capturing: True)
    with (
        made.engine() as engine,
        pytest.raises(DeviceError, match=r"fp32\.engine: TensorRT 10\.3\.0 refuses to run"),
    ):
        engine.infer(pictures[:1])


@pytest.mark.parametrize(
    ("version", "through", "integrated"),
    [("10.3.0", "cuda-python", False), ("8.6.1", "pycuda", True), (RTX, "pycuda", False)],
)
def test_no_memory_at_any_point_leaves_nothing_behind(
    brightest: Maker, tmp_path: Path, version: str, through: str, integrated: bool
) -> None:
    device = Device(integrated=integrated)
    made = bench(brightest(), tmp_path, version, device=device, through=through)
    steps = 3 if integrated else 5  # stream, two arrays, and their places on the device
    for refused in range(1, steps + 1):
        device.fail_at = device.taken + refused
        with pytest.raises(DeviceError, match=r"model\.fp32\.engine: .*MemoryAllocation"):
            made.engine()
        gc.collect()
        assert device.live() == []
    device.fail_at = device.taken + steps + 1
    made.engine().close()


def test_shared_memory_is_not_copied(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray
) -> None:
    for integrated in (True, False):
        device = Device("Orin", (8, 7), integrated=integrated)
        made = bench(brightest(), tmp_path, device=device, changes={"compute_capability": "sm_87"})
        assert_right(made, pictures, 1, 1, 1)
        assert device.copies == (0 if integrated else 6)


def test_what_an_engine_takes_is_said(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray
) -> None:
    with bench(brightest("N"), tmp_path).engine() as engine:
        with pytest.raises(UsageError, match=r"\(1, 3, .* to \(4, 3, 16, 24\), not \(5") as caught:
            engine.infer(pictures[:5])
        assert "edgeseg build" in str(caught.value.hint)
        with pytest.raises(UsageError, match="takes float32"):
            engine.infer(pictures[:1, :, 1:])
    with (
        bench(brightest(2), tmp_path).engine() as engine,
        pytest.raises(UsageError, match="takes batches of 2, not 1"),
    ):
        engine.infer(pictures[:1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"input": InputSpec(height=16, width=32)},
            r"'image' is \(1, 3, 16, 32\), the engine says \(1, 3, 16, 24\)",
        ),
        ({"output": "logits"}, r"'labels' is \(1, 3, 16, 24\), the engine says \(1, 16, 24\)"),
    ],
)
def test_a_card_that_is_not_the_engines_is_refused(
    brightest: Maker, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    made = bench(brightest(), tmp_path)
    other = bench(brightest(), tmp_path).engine().card.model_copy(update=change)
    made = bench(brightest(), tmp_path, changes={"card": other})
    with pytest.raises(MismatchedArtifact, match=said):
        made.engine()


def test_the_number_of_classes_is_held(brightest: Maker, tmp_path: Path) -> None:
    made = bench(brightest(output="logits"), tmp_path)
    two = ClassMap(names=("background", "red"))
    card = made.engine().card.model_copy(update={"classes": two})
    with pytest.raises(MismatchedArtifact, match=r"is \(1, 2, 16, 24\), the engine says \(1, 3"):
        bench(brightest(output="logits"), tmp_path, changes={"card": card}).engine()


def test_several_outputs_are_refused(brightest: Maker, tmp_path: Path) -> None:
    model = brightest()
    model.graph.output.append(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 16, 24])
    )
    with pytest.raises(MismatchedArtifact, match="one input and one output"):
        bench(model, tmp_path).engine()


def test_closing(brightest: Maker, tmp_path: Path, pictures: np.ndarray) -> None:
    made = bench(brightest(), tmp_path)
    engine = made.engine()
    labels = engine.infer(pictures[:1])
    engine.close()
    engine.close()
    assert np.array_equal(labels, made.expected(pictures[:1]))  # page-locked, and still there
    gc.collect()
    assert made.device.live() == ["host memory"]
    del labels
    gc.collect()
    assert made.device.live() == []
    for call in (lambda: engine.infer(pictures[:1]), lambda: engine.profile(pictures[:1])):
        with pytest.raises(UsageError, match="was closed"):
            call()


@pytest.mark.parametrize("version", standin.VERSIONS)
def test_layers_are_timed_without_disturbing_the_graph(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray, version: str
) -> None:
    made = bench(brightest("N"), tmp_path, version)
    with made.engine() as engine:
        for _ in range(3):
            engine.infer(pictures[:2])
        captures = made.device.captures
        layers = engine.profile(pictures[:2])
        assert [name for name, _ in layers] == ["conv", "argmax", "cast"]
        assert all(ms > 0 for _, ms in layers)
        assert np.array_equal(engine.infer(pictures[2:4]), made.expected(pictures[2:4]))
        assert made.device.captures == captures


def test_a_dla_is_chosen_and_never_captured(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray
) -> None:
    made = bench(brightest(), tmp_path, dla_cores=2, changes={"build_options": {"dla_core": 1}})
    assert_right(made, pictures, 1, 1, 1)
    assert standin.called(made.trt, "Runtime.DLA_core") == [(1,)]
    assert made.device.captures == 0


def test_an_engine_that_tensorrt_refuses_says_why_and_how_to_build_it_again(
    brightest: Maker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = bench(brightest(), tmp_path)
    other = standin.tensorrt("10.3.0", gpu="Another GPU", device=made.device)
    made.trt = other
    with pytest.raises(MismatchedArtifact, match="incompatible device") as caught:
        made.engine()
    assert str(caught.value.hint).startswith(f"edgeseg build {made.onnx} --fp32 --runtime tensorrt")
    assert capfd.readouterr() == ("", "")


def test_a_failing_gpu_is_named_with_the_engine(
    brightest: Maker, tmp_path: Path, pictures: np.ndarray
) -> None:
    made = bench(brightest(), tmp_path)
    engine = made.engine()
    for block in list(made.device.blocks.values()):
        if block.kind == "device":
            made.device.give(block.address, ("device",))
    with pytest.raises(DeviceError, match=r"engine: cudaStreamSync.*cudaErrorIllegalAddress"):
        engine.infer(pictures[:1])


def test_compiled_kernels_are_kept_between_runs(
    brightest: Maker, tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bench(brightest(), tmp_path, RTX)
    with made.engine() as engine:
        engine.warm_up()
        (file,) = cache_folder.iterdir()  # already, so that a killed process need not do it again
    assert file.name.startswith("tensorrt-rtx-1.7.1-Stand-in-GPU-")
    written = file.stat().st_mtime_ns
    read = len(standin.called(made.trt, "IRuntimeCache.deserialize"))
    with made.engine() as engine:
        engine.warm_up()
    assert len(standin.called(made.trt, "IRuntimeCache.deserialize")) == read + 1
    assert file.stat().st_mtime_ns == written
    assert not caplog.records


@spoilt
def test_a_kernel_cache_that_nothing_vouches_for_is_left_aside(
    brightest: Maker,
    tmp_path: Path,
    cache_folder: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], Any],
    said: str,
) -> None:
    made = bench(brightest(), tmp_path, RTX)
    with made.engine() as engine:
        engine.warm_up()
    (file,) = cache_folder.iterdir()
    spoil(file)
    read = len(standin.called(made.trt, "IRuntimeCache.deserialize"))
    with caplog.at_level(logging.WARNING, "edgeseg"), made.engine() as engine:
        engine.warm_up()
    assert len(standin.called(made.trt, "IRuntimeCache.deserialize")) == read
    assert pytest.approx(1, abs=1) == len(caplog.records) - 1
    assert any(word in caplog.text for word in said.split("|"))


def test_kernels_of_another_driver_are_compiled_again(
    brightest: Maker,
    tmp_path: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = bench(brightest(), tmp_path, RTX)
    with made.engine() as engine:
        engine.warm_up()
    monkeypatch.setattr(made.trt.IRuntimeCache, "deserialize", lambda self, data: False)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        made.engine().close()
    assert "of another version, GPU or driver" in caplog.text
