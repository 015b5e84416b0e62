"""A TensorRT plan on the GPU: its context, buffers and inference.

One code path over TensorRT 8.6 … 11 and TensorRT-RTX: tensors by name, ``execute_async_v3`` on a
stream of its own. What TensorRT-RTX has besides (kernels compiled at run time and kept, graphs of
its own) is asked for where it is.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.cuda import Cuda, DeviceMemory, Pinned
from edgeseg.engines.cuda.replay import Replay
from edgeseg.engines.cuda.stages import DeviceTensors
from edgeseg.engines.tensorrt.library import is_rtx, log_collector, product
from edgeseg.engines.tensorrt.preflight import EngineFile, rebuild_command
from edgeseg.engines.tensorrt.tensors import Shape, Tensors, read_tensors
from edgeseg.engines.tensorrt.timing_cache import RuntimeCache, cache_path
from edgeseg.errors import DeviceError, MismatchedArtifact


class Session:
    """All GPU resources of an engine; :meth:`close` releases them.

    Buffers are static, for the largest batch, so that a captured graph stays right. Where the GPU
    shares its memory with the processor they are mapped and nothing is copied.

    Args:
        engine: Engine file that passed :func:`edgeseg.engines.tensorrt.preflight.check`.
        cuda: The GPU, current on this thread.
        graph: Whether to replay CUDA graphs.

    Raises:
        MismatchedArtifact: TensorRT does not take the engine, or it is not what the card says.
        DeviceError: The GPU failed, or has not enough memory.
    """

    def __init__(self, engine: EngineFile, trt: Any, cuda: Cuda, *, graph: bool) -> None:
        sidecar = engine.sidecar
        self._trt, self._cuda, self._card = trt, cuda, sidecar.card
        self._log = log_collector(trt)
        self._runtime: Any = trt.Runtime(self._log)
        self._shape: Shape = ()
        self._settled = 0
        self._cache: RuntimeCache | None = None
        # A DLA cannot be captured, and TensorRT-RTX makes graphs of its own.
        graph = graph and "dla_core" not in sidecar.build_options
        with contextlib.ExitStack() as undo:
            undo.callback(self._forget)
            self._plan: Any = self._deserialize(engine)
            self.tensors: Tensors = read_tensors(trt, self._plan, sidecar.card, engine.path)
            memory = undo.enter_context(DeviceMemory(cuda))
            self.stream = memory.stream()
            undo.callback(self._drop_context)
            self._context: Any = self._usual_context(sidecar, graph=graph)
            self._take_buffers(memory)
            # What is still queued must not find its memory gone.
            undo.callback(cuda.synchronize, self.stream)
            self.graph = graph and not is_rtx(trt)
            self._replay = Replay(cuda, self.stream, self._enqueue, wanted=self.graph)
            undo.callback(self._replay.drop)
            self._owned = undo.pop_all()

    def run(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Run ``batch`` of a supported shape; the next call overwrites the output.

        Raises:
            DeviceError: The GPU failed, or TensorRT refused.
        """
        settled = self.settle(batch.shape)
        into, out = self._views()
        np.copyto(into, batch)
        if not self._replay.run(settled):
            raise self._refusal("refuses to run")
        self._cuda.synchronize(self.stream)
        return out

    def profile(self) -> list[tuple[str, float]]:
        """Milliseconds of each layer, when the last batch is repeated in another context."""
        times = _layer_times(self._trt)
        usual, self._context = self._context, self._new_context()
        try:
            self._bind()
            shape, self._shape = self._shape, ()
            settled = self._settled
            self.settle(shape)
            self._settled = settled  # of the usual context, which was left as it is
            self._context.profiler = times
            if not self._enqueue():
                raise self._refusal("refuses to run")
            self._cuda.synchronize(self.stream)
        finally:
            self._context = usual
        return list(times.layers)

    def keep_kernels(self) -> None:
        """Save the kernels that TensorRT-RTX compiled, for the next start."""
        if self._cache is not None:
            self._cache.write()

    def close(self) -> None:
        """Release graph, context, memory and plan, in that order."""
        self._owned.close()

    def _forget(self) -> None:
        self._plan = self._runtime = None

    def _drop_context(self) -> None:
        self._context = self._cache = None

    def _refusal(self, what: str, hint: str | None = None) -> DeviceError:
        return DeviceError(f"{product(self._trt)} {what}: {self._log.reason()}", hint=hint)

    def _deserialize(self, engine: EngineFile) -> Any:
        sidecar = engine.sidecar
        core = sidecar.build_options.get("dla_core")
        if core is not None:
            self._runtime.DLA_core = int(core)
        if sidecar.build_options.get("version_compatible") is True:
            self._runtime.engine_host_code_allowed = True  # It carries its own runtime.
        plan = self._runtime.deserialize_cuda_engine(engine.data)
        if plan is None:
            raise MismatchedArtifact(
                f"{engine.path}: {product(self._trt)} does not take it on {self._cuda.facts.name}: "
                f"{self._log.reason()}",
                hint=rebuild_command(engine.path, sidecar),
            )
        return plan

    def _usual_context(self, sidecar: SideCar, *, graph: bool) -> Any:
        """An execution context; that of TensorRT-RTX keeps kernels, and makes graphs."""
        if not (is_rtx(self._trt) and hasattr(self._plan, "create_runtime_config")):
            return self._new_context()
        config = self._plan.create_runtime_config()
        version, gpu = str(self._trt.__version__), self._cuda.facts.name
        file = cache_path(sidecar.artifact_sha256, version, gpu)
        self._cache = RuntimeCache(config.create_runtime_cache(), file)
        self._cache.read()
        config.set_runtime_cache(self._cache.kernels)
        if graph and hasattr(self._trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._new_context(config)

    def _new_context(self, *arguments: Any) -> Any:
        context = self._plan.create_execution_context(*arguments)
        if context is None:
            raise self._refusal(
                "makes no execution context", "free GPU memory, or build with a smaller --workspace"
            )
        return context

    def _take_buffers(self, memory: DeviceMemory) -> None:
        mapped = self._cuda.facts.integrated
        out = self.tensors.output_shape(self.tensors.largest)
        self._input: Pinned = memory.pinned(self.tensors.largest, np.float32, mapped=mapped)
        self._output: Pinned = memory.pinned(out, self.tensors.output_dtype, mapped=mapped)
        self._device_input = self._input.device or memory.device(self._input.array.nbytes)
        self._device_output = self._output.device or memory.device(self._output.array.nbytes)
        self._bind()

    def _views(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The start of both buffers, in the shapes of this call."""
        out = self.tensors.output_shape(self._shape)
        return _start(self._input.array, self._shape), _start(self._output.array, out)

    def _bind(self) -> None:
        """Set the addresses of input and output in the context; they never change."""
        places = {self.tensors.input: self._device_input, self.tensors.output: self._device_output}
        for name, address in places.items():
            if not self._context.set_tensor_address(name, address):
                raise self._refusal(f"does not take the address of {name!r}")

    def settle(self, shape: Shape) -> tuple[int, ...]:
        """Make the context take ``shape``: what a captured graph depends on.

        A graph is of one shape and of the context as it was: settling another shape between, for
        whoever else uses this session, changes what this gives.

        Raises:
            DeviceError: TensorRT refused.
        """
        if shape != self._shape:
            if not self._context.set_input_shape(self.tensors.input, shape):
                raise self._refusal(f"does not take {shape}")
            self._shape = shape
            self._settled += 1
        return (*shape, self._settled)

    def device_tensors(self) -> DeviceTensors:
        """Where its tensors are, for kernels that fill and read them on the device."""
        return DeviceTensors(
            self._card, self._device_input, self._device_output, self.tensors.classes
        )

    def enqueue(self) -> bool:
        """Queue the network alone, for the shape that was settled; False where refused."""
        return bool(self._context.execute_async_v3(self.stream))

    def _enqueue(self) -> bool:
        """Queue the copies and the network; False where TensorRT refused."""
        into, out = self._views()
        if self._input.device is None:
            host = self._input.address
            self._cuda.copy_in(self._device_input, host, into.nbytes, self.stream)
        if not self.enqueue():
            return False
        if self._output.device is None:
            host = self._output.address
            self._cuda.copy_out(host, self._device_output, out.nbytes, self.stream)
        return True


def _start(array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    return array.reshape(-1)[: math.prod(shape)].reshape(shape)


def _layer_times(trt: Any) -> Any:
    """A profiler that collects the times of the layers."""

    class LayerTimes(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append((layer_name, ms))

    return LayerTimes()
