"""The classes of TensorRT that run an engine, for all versions at once.

An engine of the stand-in is a line of JSON (version, GPU, profiles) before the ONNX network
that it was built from; one of TensorRT-RTX has its header of 64 bytes before that. Addresses are
of host memory. ``execute_async_v3`` runs the network in ONNX Runtime before it returns, or, where
the machine has a device, once somebody waits for the stream: with the shapes and addresses of the
call, as often as a graph repeats it.
"""

import ctypes
import functools
import json
import re
from typing import Any

import numpy as np
import onnx
import onnxruntime

from standin.attributes import count

MAGIC = b"stand-in engine\n"


def packed(trt: Any, network: Any, config: Any) -> bytes:
    """The bytes of an engine."""
    layers = [
        {
            "name": layer.name,
            "kind": layer._facts.kind,
            "dtype": _engine_dtype(layer),
            "shape": list(layer._facts.outputs[0].shape),
        }
        for layer in network._layers
    ]
    facts = {
        "version": trt._said,
        "gpu": trt._machine.gpu,
        "profiles": [profile._shapes for profile in config._profiles],
        "detailed": getattr(getattr(config, "profiling_verbosity", None), "name", "") == "DETAILED",
        "layers": layers,
    }
    return _start(trt) + MAGIC + json.dumps(facts).encode() + b"\n" + network._data


def _start(trt: Any) -> bytes:
    """The header of an engine: that of TensorRT-RTX has its version at byte 24."""
    if trt.__name__ != "tensorrt_rtx":
        return b""
    numbers = [*map(int, re.findall(r"\d+", trt.__version__)), 0, 0, 0][:4]
    return (b"vtrt" + bytes(20) + bytes(numbers)).ljust(64, b"\0")


def _engine_dtype(layer: Any) -> str:
    if layer._precision is not None:
        return str(layer._precision.name)
    if any(tensor.name in _dequantised(layer._network) for tensor in layer._inputs):
        return "INT8"
    return str(layer._facts.outputs[0].dtype)


def _word(dtype: str) -> str:
    return {"FLOAT": "FP32", "HALF": "FP16"}.get(dtype, dtype)


def _dequantised(network: Any) -> set[str]:
    kind = "DEQUANTIZE"
    return {t.name for each in network._layers if each._facts.kind == kind for t in each._outputs}


class Runtime:
    """Takes back what the same version built on the same GPU."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return int(self._trt._machine.dla_cores)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        data = bytes(serialized_engine)
        reason = self._fault(data)
        if reason:
            self._logger.log(self._trt.ILogger.Severity.ERROR, reason)
            return None
        head, network = data[len(_start(self._trt) + MAGIC) :].split(b"\n", 1)
        return self._trt.ICudaEngine(json.loads(head), network)

    def _fault(self, data: bytes) -> str:
        if self._trt._machine.gpu is None:
            return "CUDA initialization failure with error: 35"
        data = data[len(_start(self._trt)) :]
        if not data.startswith(MAGIC):
            return "Serialization assertion magicTagRead == kMAGIC_TAG failed."
        facts = json.loads(data[len(MAGIC) :].split(b"\n", 1)[0])
        if facts["version"] != self._trt._said:
            return "The engine plan file is not compatible with this version of TensorRT"
        if self._trt.__name__ == "tensorrt" and facts["gpu"] != self._trt._machine.gpu:
            return "The engine plan file is generated on an incompatible device"
        return ""


class ICudaEngine:
    """The network and what is known of its inputs and outputs."""

    def __init__(self, facts: dict[str, Any], network: bytes) -> None:
        self._facts, self._network = facts, network
        graph = onnx.load_from_string(network).graph
        self._io = [*graph.input, *graph.output]
        self._inputs = len(graph.input)

    def _value(self, name: str) -> Any:
        return next(value for value in self._io if value.name == name)

    num_io_tensors = count("_io")

    @property
    def num_layers(self) -> int:
        return len(self._facts["layers"])

    def get_tensor_name(self, index: int) -> str:
        return str(self._io[index].name)

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        names = [value.name for value in self._io]
        return modes.INPUT if names.index(name) < self._inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.UINT8: "UINT8"}
        return self._trt.DataType[kinds[self._value(name).type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(d.dim_value or -1 for d in self._value(name).type.tensor_type.shape.dim)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        return [tuple(shape) for shape in self._facts["profiles"][profile_index][name]]

    def create_execution_context(self, *configs: Any) -> Any:
        context = self._trt.IExecutionContext(self)
        context._config = configs[0] if configs else None
        return context

    def create_engine_inspector(self) -> Any:
        inspector = self._trt.EngineInspector()
        inspector._engine = self
        return inspector

    def create_runtime_config(self) -> Any:
        return self._trt.IRuntimeConfig()


class EngineInspector:
    """Layers as the real one lists them: names alone unless the engine was built DETAILED."""

    _engine: Any = None

    def get_engine_information(self, format: Any) -> str:
        facts = self._engine._facts
        if not facts["detailed"]:
            return json.dumps({"Layers": [layer["name"] for layer in facts["layers"]]})
        layers = [
            {
                "Name": layer["name"],
                "LayerType": layer["kind"].title(),
                "Inputs": [],
                "Outputs": [
                    {
                        "Name": layer["name"],
                        "Dimensions": layer["shape"],
                        "Format/Datatype": f"Row major linear {_word(layer['dtype'])} format",
                    }
                ],
                "Metadata": f"[ONNX Layer: {layer['name']}]",
            }
            for layer in facts["layers"]
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


class IExecutionContext:
    """Runs the network on addresses in host memory."""

    _config: Any = None

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._session = onnxruntime.InferenceSession(
            engine._network, providers=["CPUExecutionProvider"]
        )
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def engine(self) -> Any:
        return self._engine

    def set_input_shape(self, name: str, shape: Any) -> bool:
        """False where no profile allows it."""
        self._shapes[name] = tuple(shape)
        declared = self._engine.get_tensor_shape(name)
        if -1 not in declared:
            return tuple(shape) == declared
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        return all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Open dimensions of an output are those of the input: (N, H, W) of (N, C, H, W)."""
        shape = self._shapes.get(name, self._engine.get_tensor_shape(name))
        if -1 in shape and self._shapes:
            batch, _, height, width = next(iter(self._shapes.values()))
            known = (batch, *shape[1:-2], height, width)
            shape = tuple(k if s == -1 else s for s, k in zip(shape, known, strict=True))
        return shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = int(memory)
        return True

    def infer_shapes(self) -> list[str]:
        return [
            value.name
            for value in self._engine._io[: self._engine._inputs]
            if -1 in self.get_tensor_shape(value.name)
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        machine = self._trt._machine
        shapes = {value.name: self.get_tensor_shape(value.name) for value in self._engine._io}
        work = functools.partial(self._work, shapes, dict(self._addresses))
        if machine.device is None:
            work()
            return True
        if machine.refuses_call(machine.device.streams[stream_handle].noted is not None):
            return False
        machine.device.queue(stream_handle, work)
        profiler = vars(self).get("profiler")
        if profiler is not None:  # Which makes the call wait, and tell before it returns.
            machine.device.synchronize(stream_handle)
            for place, layer in enumerate(self._engine._facts["layers"]):
                profiler.report_layer_time(layer["name"], 0.25 * (place + 1))
        return True

    def _work(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        arrays = [
            self._array(shapes[value.name], addresses[value.name], value)
            for value in self._engine._io
        ]
        count = self._engine._inputs
        fed = {
            value.name: array.copy()
            for value, array in zip(self._engine._io[:count], arrays, strict=False)
        }
        for array, result in zip(arrays[count:], self._session.run(None, fed), strict=True):
            array[...] = result
        if self._config is not None and self._config._cache is not None:
            self._config._cache._data = b" for this network"

    def _array(self, shape: tuple[int, ...], address: int, value: Any) -> Any:
        """The memory at a tensor's address."""
        kinds = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.UINT8: np.uint8}
        dtype = np.dtype(kinds[value.type.tensor_type.elem_type])
        nbytes = int(np.prod(shape)) * dtype.itemsize
        if self._trt._machine.device is not None:
            self._trt._machine.device.require(address, nbytes, "device", "mapped")
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)


class IRuntimeConfig:
    """Settings of a context; in TensorRT-RTX also its cache of compiled kernels."""

    _cache: Any = None

    def create_runtime_cache(self) -> Any:
        return self._trt.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return True


class IRuntimeCache:
    """Kernels that were compiled before."""

    _data = b""

    def serialize(self) -> Any:
        return self._trt.IHostMemory(b"kernels of " + self._trt._said.encode() + self._data)

    def deserialize(self, serialized_cache: bytes) -> bool:
        start = b"kernels of " + self._trt._said.encode()
        if not bytes(serialized_cache).startswith(start):
            return False
        self._data = bytes(serialized_cache)[len(start) :]
        return True
