"""ONNX Runtime's CUDA provider: NVIDIA GPUs without TensorRT, frames kept on the device.

Needs ``onnxruntime-gpu`` in the place of ``onnxruntime``. It has not run on a GPU yet: a stand-in
with the same members, over the real library's binding of memory by address, is what tests drive.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.engines.cuda import Cuda, DeviceMemory
from edgeseg.engines.cuda.engine import GpuEngine
from edgeseg.engines.cuda.stages import DeviceTensors
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import DeviceError, RuntimeMissing

_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine(GpuEngine, OnnxRuntimeEngine):
    """An ONNX network in ONNX Runtime on the first GPU, on a stream of its own.

    Args:
        path: Network in FP32 or FP16, since the CUDA provider has no int8 kernels.
        cuda: GPU to run on.
        threads: CPU threads for operators that run on the processor.

    Raises:
        RuntimeMissing: ONNX Runtime has no CUDA provider, or it does not start.
        UsageError: The file does not exist, or ``threads`` is below 1.
        ArtifactError: The file is unusable; see :class:`OnnxRuntimeEngine`.
        DeviceError: The GPU failed.
    """

    # The provider allocates while it runs, which a capture of ours forbids.
    graph = False

    def __init__(self, path: Path, cuda: Cuda, threads: int | None = None) -> None:
        _require(onnxruntime.get_available_providers())
        self.cuda = cuda
        self._tensors: dict[int, DeviceTensors] = {}
        self._bindings: dict[tuple[int, ...], Any] = {}
        self._bound: Any = None
        with ExitStack() as undo:
            self._memory = undo.enter_context(DeviceMemory(cuda))
            self.stream = self._memory.stream()
            options = {"device_id": "0", "user_compute_stream": str(self.stream)}
            self.providers = ((_PROVIDER, options), "CPUExecutionProvider")
            undo.callback(super().close)
            super().__init__(path, threads)
            _require(self._session.get_providers())
            self.capabilities = replace(self.capabilities, frames_on_gpu=True)
            self._owned = undo.pop_all()

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        with self.on_gpu():
            return super()._infer(batch)

    def device_network(self, shape: tuple[int, ...]) -> Self:
        """Return the engine itself, which is the network of its pipelines; without CUDA graphs."""
        del shape  # Checked by the pipeline, and bound when it is settled.
        self._require_open()
        return self

    def device_tensors(self, batch: int) -> DeviceTensors:
        """Device memory for ``batch`` pictures, the same at each call.

        Raises:
            DeviceError: Not enough memory.
        """
        if batch not in self._tensors:
            spec, logits = self.card.input, self.card.output == "logits"
            classes = len(self.card.classes) if logits else None
            pixels = batch * spec.height * spec.width
            dtype = np.dtype(np.float32 if logits else np.uint8)
            given = self._memory.device(pixels * spec.channels * 4)
            taken = self._memory.device(pixels * (classes or 1) * dtype.itemsize)
            self._tensors[batch] = DeviceTensors(
                self.card, given, np.dtype(np.float32), taken, dtype, classes
            )
        return self._tensors[batch]

    def settle(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Bind input and output of the session to the memory from :meth:`device_tensors`."""
        if shape not in self._bindings:
            self._bindings[shape] = self._bind(shape)
        self._bound = self._bindings[shape]
        return shape

    def _bind(self, shape: tuple[int, ...]) -> Any:
        binding, memory = self._session.io_binding(), self.device_tensors(shape[0])
        planes = () if memory.classes is None else (memory.classes,)
        labels = (shape[0], *planes, *shape[2:])
        binding.bind_input(self._input, "cuda", 0, np.float32, shape, memory.input)
        binding.bind_output(
            self._output, "cuda", 0, memory.output_dtype.type, labels, memory.output
        )
        return binding

    def enqueue(self) -> bool:
        """Queue the network on the stream without waiting.

        Raises:
            DeviceError: ONNX Runtime failed.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self._session.run_with_iobinding(self._bound, options)
        except Exception as error:  # ONNX Runtime's classes share no base but Exception.
            raise DeviceError(f"ONNX Runtime: {' '.join(str(error).split())[:300]}") from error
        return True

    def close(self) -> None:
        """Release pipelines, session and stream, in that order."""
        self._close_pipelines()
        self._bindings.clear()
        self._bound = None
        with self.on_gpu():
            self._owned.close()


def _require(providers: Sequence[str]) -> None:
    if _PROVIDER not in providers:
        raise RuntimeMissing(
            f"ONNX Runtime {onnxruntime.__version__} has no {_PROVIDER} here, only "
            f"{', '.join(providers)}",
            hint="pip install --force-reinstall --no-deps onnxruntime-gpu, which the package "
            "onnxruntime hides; where that is in use, look whether its CUDA and cuDNN are there",
        )
