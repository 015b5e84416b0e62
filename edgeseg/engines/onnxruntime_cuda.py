"""ONNX Runtime's CUDA provider: NVIDIA GPUs without TensorRT, frames kept on the device.

Needs ``onnxruntime-gpu`` in the place of ``onnxruntime``. It has not run on a GPU yet: a stand-in
with the same members, over the real library's binding of memory by address, is what tests drive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeseg.engines.cuda import Cuda, DeviceMemory
from edgeseg.engines.cuda.frames import open_gpu_frames
from edgeseg.engines.cuda.stages import Network
from edgeseg.engines.frames import FrameJob, FrameRunner, check_job
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import DeviceError, RuntimeMissing, UsageError

_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
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

    def __init__(self, path: Path, cuda: Cuda, threads: int | None = None) -> None:
        _require(onnxruntime.get_available_providers())
        self.cuda = cuda
        self._runners: list[FrameRunner] = []
        self._said: set[str] = set()
        self._tensors: dict[int, Network] = {}
        with ExitStack() as undo:
            self._memory = undo.enter_context(DeviceMemory(cuda))
            self.stream = self._memory.stream()
            options = {"device_id": "0", "user_compute_stream": str(self.stream)}
            self.providers = ((_PROVIDER, options), "CPUExecutionProvider")
            undo.callback(super().close)
            super().__init__(path, threads)
            _require(self._session.get_providers())
            self._owned = undo.pop_all()

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        with self.on_gpu():
            return super()._infer(batch)

    def open_frames(self, job: FrameJob) -> FrameRunner:
        """Like :meth:`Engine.open_frames`, on the GPU throughout, but without CUDA graphs."""
        check_job(self, job)
        if self._session is None:
            raise UsageError(f"{self.path.name} was closed")
        with self.on_gpu():
            bound = _Bound(self, job.batch)
        runner = open_gpu_frames(self, bound, job, self._said)
        self._runners = [*(each for each in self._runners if not each.closed), runner]
        return runner

    def tensors(self, batch: int) -> Network:
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
            self._tensors[batch] = Network(
                self.card, given, np.dtype(np.float32), taken, dtype, classes
            )
        return self._tensors[batch]

    def bind(self, batch: int) -> Any:
        """Bind input and output of the session to the memory from :meth:`tensors`."""
        binding, there = self._session.io_binding(), self.tensors(batch)
        planes = () if there.classes is None else (there.classes,)
        size = self.card.input.shape[1:]
        binding.bind_input(
            self._input, "cuda", 0, np.float32, (batch, *self.card.input.shape), there.input
        )
        binding.bind_output(
            self._output, "cuda", 0, there.output_dtype.type, (batch, *planes, *size), there.output
        )
        return binding

    def run_bound(self, binding: Any) -> None:
        """Queue the network on the stream without waiting.

        Raises:
            DeviceError: ONNX Runtime failed.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's classes share no base but Exception.
            raise DeviceError(f"ONNX Runtime: {' '.join(str(error).split())[:300]}") from error

    def close(self) -> None:
        """Release frames, session and stream, in that order."""
        for runner in self._runners:
            runner.close()
        self._runners = []
        with self.on_gpu():
            self._owned.close()

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """Make the device current, and name the network in its errors."""
        try:
            with self.cuda.current():
                yield
        except DeviceError as error:
            raise DeviceError(f"{self.path}: {error.message}", hint=error.hint) from error


class _Bound:
    """Adapter of the engine for :class:`~edgeseg.engines.cuda.frames.GpuFrames`."""

    # The provider allocates while it runs, which a capture of ours forbids.
    graph = False

    def __init__(self, engine: OnnxRuntimeCudaEngine, batch: int) -> None:
        self._engine = engine
        self.cuda, self.stream = engine.cuda, engine.stream
        self._network, self._binding = engine.tensors(batch), engine.bind(batch)

    def network(self) -> Network:
        return self._network

    def guard(self) -> AbstractContextManager[None]:
        return self._engine.on_gpu()

    def settle(self, batch: int) -> tuple[int, ...]:
        return (batch,)

    def enqueue(self, batch: int) -> bool:
        del batch  # Bound already.
        self._engine.run_bound(self._binding)
        return True


def _require(providers: Sequence[str]) -> None:
    if _PROVIDER not in providers:
        raise RuntimeMissing(
            f"ONNX Runtime {onnxruntime.__version__} has no {_PROVIDER} here, only "
            f"{', '.join(providers)}",
            hint="pip install --force-reinstall --no-deps onnxruntime-gpu, which the package "
            "onnxruntime hides; where that is in use, look whether its CUDA and cuDNN are there",
        )
