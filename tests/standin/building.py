"""The classes of TensorRT that a build goes through, for all versions at once.

A version gets those names that its list has. ``self._trt`` is the module.
"""

from typing import Any

from standin.attributes import count, fact, item, settable
from standin.parsed import LayerFacts, Parsed, TensorFacts, parse
from standin.running import packed

DLA_LAYERS = frozenset(
    {"CONVOLUTION", "DECONVOLUTION", "ACTIVATION", "POOLING", "ELEMENTWISE", "CONCATENATION"}
)
"""What the stand-in's DLA takes; the rest falls back to the GPU, or fails."""


class ILogger:
    """Base of the caller's own logger."""

    def __init__(self, *_: Any) -> None:
        pass


class Logger:
    """Keeps what it is told."""

    def __init__(self, min_severity: Any = None) -> None:
        self._lines: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        self._lines.append(msg)


class IProgressMonitor:
    """Base of the caller's own monitor."""

    def __init__(self) -> None:
        pass


class Builder:
    """Makes everything else."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        if self._trt._machine.gpu is None and self._trt.__name__ == "tensorrt":
            error = "CUDA initialization failure with error: 35"
            logger.log(self._trt.ILogger.Severity.ERROR, error)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return int(self._trt._machine.dla_cores)

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_network(self, flags: int = 0) -> Any:
        network = self._trt.INetworkDefinition()
        network._flags = flags
        return network

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        reason = self._trt._machine.build_error or _fault(self._trt, network, config)
        if reason:
            self._logger.log(self._trt.ILogger.Severity.ERROR, reason)
            return None
        monitor = getattr(config, "_monitor", None)
        if monitor is not None and not _monitored(monitor, network):
            error = "Error Code 7: BuildCanceled (Build canceled by user)"
            self._logger.log(self._trt.ILogger.Severity.ERROR, error)
            return None
        if config._cache is not None:
            config._cache._entries = b"timed: " + network._data[-16:]
        return self._trt.IHostMemory(packed(self._trt, network, config))


def _monitored(monitor: Any, network: Any) -> bool:
    """Two nested phases, as the real ones are; False where the monitor calls it off."""
    steps = len(network._layers)
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing graph nodes", "Building engine", steps)
    going = all(monitor.step_complete("Timing graph nodes", step) for step in range(steps))
    monitor.phase_finish("Timing graph nodes")
    going = going and all(monitor.step_complete("Building engine", step) for step in range(2))
    monitor.phase_finish("Building engine")
    return going


def _fault(trt: Any, network: Any, config: Any) -> str:
    """Why the real builder would refuse this combination; empty where it would not."""
    flags = {flag.name for flag in config._flags}
    types = {tensor._facts.dtype for tensor in network._tensors.values()}
    if network._strong and flags & {"FP16", "INT8", "BF16", "OBEY_PRECISION_CONSTRAINTS"}:
        return "precision flags are not allowed in strongly typed networks"
    if not network._strong:
        for dtype, flag in (("HALF", "FP16"), ("INT8", "INT8")):
            if dtype in types and flag not in flags:
                return (
                    f"{flag.lower()} precision has been set for a layer or layer output, "
                    f"but {flag.lower()} is not configured in the builder"
                )
    dynamic = [tensor for tensor in network._inputs if -1 in tensor.shape]
    if dynamic and not config._profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    if config._device == trt.DeviceType.DLA and "GPU_FALLBACK" not in flags:
        for layer in network._layers:
            if not config.can_run_on_DLA(layer):
                return f"{layer.name} is not supported on DLA and GPU fallback is not enabled"
    return ""


class IBuilderConfig:
    """Flags and settings, kept as they were given."""

    def __init__(self) -> None:
        self._flags: set[Any] = {self._trt.BuilderFlag.TF32}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self._monitor: Any = None
        self._device: Any = self._trt.DeviceType.GPU
        self._devices: dict[str, Any] = {}
        self._targets: list[Any] = []

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None: ...

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    progress_monitor = settable("_monitor")
    default_device_type = settable("_device")

    def set_device_type(self, layer: Any, device_type: Any) -> None:
        self._devices[layer.name] = device_type

    def get_device_type(self, layer: Any) -> Any:
        return self._devices.get(layer.name, self._device)

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802
        """Layers of the right kind, in half precision or 8 bits."""
        half_or_less = {"INT8", "FP16"} & {flag.name for flag in self._flags}
        strong = layer._network._strong and layer._facts.outputs[0].dtype == "HALF"
        return layer.type.name in DLA_LAYERS and bool(half_or_less or strong)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        """Refuses what another version or GPU has written, as the real one."""
        start = _cache_start(self._trt)
        if serialized_timing_cache and not serialized_timing_cache.startswith(start):
            return None
        cache = self._trt.ITimingCache()
        cache._entries = serialized_timing_cache[len(start) :]
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._targets)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._targets = [None] * count

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self._targets[index] = capability
        return True


def _cache_start(trt: Any) -> bytes:
    return f"{trt._said} on {trt._machine.gpu}: ".encode()


class ITimingCache:
    """Bytes of one version and one GPU."""

    _entries = b""

    def serialize(self) -> Any:
        return self._trt.IHostMemory(_cache_start(self._trt) + self._entries)

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        self._entries += input_cache._entries
        return True


class IHostMemory:
    """Bytes; ``bytes(memory)`` copies them out."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return self._data


class IOptimizationProfile:
    """Smallest, typical and largest shape by input."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def get_shape(self, input: str) -> Any:
        return list(self._shapes[input])


class INetworkDefinition:
    """What the parser put in."""

    def __init__(self) -> None:
        self._flags = 0
        self._data = b""
        self._tensors: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []

    def _has(self, name: str) -> bool:
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, name, None)
        return flag is not None and bool(self._flags >> int(flag) & 1)

    @property
    def _strong(self) -> bool:
        return self._has("STRONGLY_TYPED")

    def _fill(self, data: bytes, parsed: Parsed) -> None:
        self._data = data
        self._layers = [self._trt.ILayer(self, facts) for facts in parsed.layers]
        self._inputs = [self._tensor(facts) for facts in parsed.inputs]
        self._outputs = [self._tensor(facts) for facts in parsed.outputs]

    def _tensor(self, facts: TensorFacts) -> Any:
        return self._tensors.setdefault(facts.name, self._trt.ITensor(self, facts))

    num_layers, num_inputs, num_outputs = count("_layers"), count("_inputs"), count("_outputs")
    get_layer, get_input, get_output = item("_layers"), item("_inputs"), item("_outputs")


class ITensor:
    """An activation."""

    def __init__(self, network: Any, facts: TensorFacts) -> None:
        self._network, self._facts = network, facts
        self._range: tuple[float, float] | None = None

    name, shape = fact("name"), fact("shape")

    @property
    def dtype(self) -> Any:
        kinds = self._trt.DataType
        return getattr(kinds, self._facts.dtype, kinds.INT32)  # INT64 is INT32 in TensorRT 8.

    @property
    def dynamic_range(self) -> Any:
        return self._range

    @dynamic_range.setter
    def dynamic_range(self, limits: Any) -> None:
        self.set_dynamic_range(*limits)

    def set_dynamic_range(self, min: float, max: float) -> bool:
        self._range = (min, max)
        return True


class ILayer:
    """A node of the network."""

    def __init__(self, network: Any, facts: LayerFacts) -> None:
        self._network, self._facts = network, facts
        self._inputs = [network._tensor(each) for each in facts.inputs]
        self._outputs = [network._tensor(each) for each in facts.outputs]
        self._precision: Any = None

    name = fact("name")
    num_inputs, num_outputs = count("_inputs"), count("_outputs")
    get_input, get_output = item("_inputs"), item("_outputs")

    @property
    def type(self) -> Any:
        return self._trt.LayerType[self._facts.kind]

    @property
    def metadata(self) -> str:
        return f"[ONNX Layer: {self._facts.name}]"

    @property
    def precision(self) -> Any:
        return self._precision or self._trt.DataType.FLOAT

    @precision.setter
    def precision(self, dtype: Any) -> None:
        self._precision = dtype

    @property
    def precision_is_set(self) -> bool:
        return self._precision is not None

    def set_output_type(self, index: int, dtype: Any) -> None: ...


class OnnxParser:
    """Reads ONNX with the ``onnx`` package."""

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if self._trt.__version__.startswith("8.") and not self._network._has("EXPLICIT_BATCH"):
            return self._fail(-1, "", "", "the parser supports explicit batch dimensions only")
        try:
            parsed = parse(model, self._trt._machine.refuses)
        except Exception as error:
            self._logger.log(self._trt.ILogger.Severity.ERROR, f"ModelImporter: {error}")
            return False
        if parsed.fault:
            return self._fail(*parsed.fault)
        self._network._fill(model, parsed)
        return True

    def _fail(self, node: int, name: str, operator: str, reason: str) -> bool:
        error = self._trt.ParserError()
        error._facts = (node, name, operator, reason)
        self._errors.append(error)
        return False

    num_errors, get_error = count("_errors"), item("_errors")


class ParserError:
    """Why a node is not taken."""

    def node(self) -> int:
        return int(self._facts[0])

    def node_name(self) -> str:
        return str(self._facts[1])

    def node_operator(self) -> str:
        return str(self._facts[2])

    def desc(self) -> str:
        return str(self._facts[3])
