"""ONNX Runtime's CUDA provider around our kernels, on a stand-in over the real library."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engines.frame_cases import JOB, assert_right, needs_compiler
from engines.plans import adapter
from onnx import ModelProto
from standin.device import Device
from standin.onnxruntime_gpu import Module, _Binding

from edgeseg.engines.cuda.stages import FrameJob
from edgeseg.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from edgeseg.errors import DeviceError, RuntimeMissing, UsageError

Maker = Callable[..., ModelProto]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    for name in ("onnxruntime", "onnxruntime_cuda"):
        monkeypatch.setattr(f"edgeseg.engines.{name}.onnxruntime", Module(made))
    return made


def save(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_the_stand_in_takes_what_the_real_library_takes() -> None:
    for name in ("bind_input", "bind_output"):
        real = inspect.signature(getattr(onnxruntime.IOBinding, name)).parameters
        assert list(real) == list(inspect.signature(getattr(_Binding, name)).parameters)


@needs_compiler
@pytest.mark.parametrize("through", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("output", ["labels_u8", "logits"])
@pytest.mark.parametrize("batch", [1, 3])
def test_frames_stay_on_the_gpu(
    brightest: Maker,
    tmp_path: Path,
    shipped: Path,
    device: Device,
    output: str,
    batch: int,
    through: str,
) -> None:
    path = save(brightest("N", output), tmp_path)
    job = FrameJob(JOB.size, batch=batch, look=JOB.look)
    with OnnxRuntimeCudaEngine(path, adapter(through, device), 1) as engine:
        with engine.open_pipeline() as pipeline:
            assert pipeline.on_gpu
            assert_right(path, pipeline, job)
        kept = [*device.ran]
        with engine.open_pipeline() as pipeline:  # in the same memory of the network
            assert_right(path, pipeline, job)
    assert device.launches == 0
    assert kept.count("copy host to device") == 6 + 10  # tables, then one a batch
    gc.collect()
    assert device.live() == []


def test_infer_is_as_ever(brightest: Maker, tmp_path: Path, device: Device) -> None:
    path = save(brightest("N"), tmp_path)
    tensors = np.random.default_rng(0).normal(size=(2, 3, 16, 24)).astype(np.float32)
    with OnnxRuntimeCudaEngine(path, adapter("cuda-python", device), 1) as engine:
        np.testing.assert_array_equal(engine.infer(tensors), tensors.argmax(1))
    for call in (lambda: engine.infer(tensors), engine.open_pipeline):
        with pytest.raises(UsageError, match="was closed"):
            call()
    engine.close()
    assert device.live() == []


@needs_compiler
def test_what_onnx_runtime_raises_is_an_error_of_the_device(
    brightest: Maker, tmp_path: Path, shipped: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUBLAS failure 13")

    path = save(brightest(), tmp_path)
    with OnnxRuntimeCudaEngine(path, adapter("cuda-python", device), 1) as engine:
        monkeypatch.setattr(engine._session, "run_with_iobinding", fails, raising=False)
        with (
            engine.open_pipeline() as pipeline,
            pytest.raises(DeviceError, match=r"model\.onnx: ONNX Runtime: CUBLAS failure 13"),
        ):
            pipeline.run([np.zeros(JOB.shape, np.uint8)])


@pytest.mark.parametrize("starts", [None, False], ids=["not built in", "does not start"])
def test_a_missing_provider_says_what_to_install(
    network: Path, monkeypatch: pytest.MonkeyPatch, starts: bool | None
) -> None:
    device = Device()
    if starts is not None:
        for name in ("onnxruntime", "onnxruntime_cuda"):
            module = Module(device, starts=starts)
            monkeypatch.setattr(f"edgeseg.engines.{name}.onnxruntime", module)
    with pytest.raises(RuntimeMissing, match="no CUDAExecutionProvider here") as caught:
        OnnxRuntimeCudaEngine(network, adapter("cuda-python", device), 1)
    assert "onnxruntime-gpu" in str(caught.value.hint)
    assert device.live() == []
