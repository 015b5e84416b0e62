"""ONNX → TensorRT-RTX engine, on any machine: the build needs neither GPU nor driver.

Only what TensorRT 8.6 … 11 and TensorRT-RTX have in common is used, looked up on the module
that is handed in, so that `tensorrt` itself can take its place. The precision is what the
graph says (strongly typed); it is proved from the network that the parser made.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeseg.card import Precision
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, RuntimeMissing, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanOptions:
    """How an engine is built.

    Attributes:
        targets: Compute capabilities such as ``sm_86``; none for every GPU that the runtime
            supports.
        batch: Smallest, typical and largest batch of a network whose batch varies.
        workspace_mib: Limit for scratch memory on the GPU; None leaves it to the runtime.
    """

    targets: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_mib: int | None = None

    def __post_init__(self) -> None:
        smallest, typical, largest = self.batch
        if not 1 <= smallest <= typical <= largest:
            raise UsageError(
                f"expected a batch of 1 <= smallest <= typical <= largest, not {self.batch}"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"the workspace is at least 1 MiB, not {self.workspace_mib}")


@dataclass(frozen=True)
class Plan:
    """A serialized engine and what is known of it without a GPU.

    ``layers`` gives the precision of each computing layer as the parsed network has it, by
    the name of its ONNX node; ``log`` the runtime's warnings.
    """

    data: bytes = field(repr=False)
    version: str
    layers: Mapping[str, Precision]
    log: tuple[str, ...]
    options: Mapping[str, bool | int | float | str]


def tensorrt_rtx() -> Any:
    """The module ``tensorrt_rtx``.

    Raises:
        RuntimeMissing: It is not installed.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            "building such an engine needs TensorRT-RTX, which is not installed "
            f"({' '.join(str(error).split())[:150]})",
            mend="pip install 'edgeseg[tensorrt-rtx]'",
        ) from error


def build_engine(onnx_bytes: bytes, options: PlanOptions, *, trt: Any = None) -> Plan:
    """Compile an ONNX network to an engine.

    The same bytes and options give the same engine, byte for byte.

    Args:
        onnx_bytes: A network that ``onnx.checker`` accepts; the parser is native code.
        options: Targets, batch and workspace.
        trt: The TensorRT module; ``tensorrt_rtx`` by default.

    Raises:
        RuntimeMissing: TensorRT-RTX is not installed.
        UsageError: It cannot compile for a target.
        MismatchedArtifact: It cannot parse or compile the network; the message names the node.
    """
    trt = trt or tensorrt_rtx()
    log = _log_collector(trt)
    builder = trt.Builder(log)
    config = _configure(trt, builder, options)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(1 << int(flag) if flag is not None else 0)
    _parse(trt, network, onnx_bytes, log)
    used = _batch_profile(builder, config, network, options)
    logger.info("building with %s %s …", trt.__name__, trt.__version__)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise MismatchedArtifact(
            f"{trt.__name__} {trt.__version__} cannot compile the network: {log.reason()}"
        )
    return Plan(
        data=bytes(plan),
        version=str(trt.__version__),
        layers=_layer_precisions(trt, network),
        log=tuple(log.warnings),
        options=used | {"tf32": bool(config.get_flag(trt.BuilderFlag.TF32))},
    )


def _log_collector(trt: Any) -> Any:
    """A logger of TensorRT that keeps warnings and errors and prints nothing."""
    severity = trt.ILogger.Severity

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif level == severity.WARNING:
                self.warnings.append(message)

        def reason(self) -> str:
            text = " / ".join(" ".join(line.split()) for line in self.errors)
            return text[:600] or "it gives no reason"

    return Collector()


def _configure(trt: Any, builder: Any, options: PlanOptions) -> Any:
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.targets:
        known = {
            f"sm_{name.removeprefix('SM').lower()}": getattr(trt.ComputeCapability, name)
            for name in dir(trt.ComputeCapability)
            if name.startswith("SM")
        }
        unknown = [target for target in options.targets if target not in known]
        if unknown:
            raise UsageError(
                f"{trt.__name__} {trt.__version__} cannot build for {', '.join(unknown)}; "
                f"it can for {', '.join(sorted(known))}"
            )
        config.num_compute_capabilities = len(options.targets)
        for place, target in enumerate(options.targets):
            config.set_compute_capability(known[target], place)
    return config


def _parse(trt: Any, network: Any, onnx_bytes: bytes, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(onnx_bytes):
        return
    if not parser.num_errors:
        raise CorruptArtifact(f"{trt.__name__} cannot read the ONNX network: {log.reason()}")
    error = parser.get_error(0)
    # TensorRT 8.6 gives the index alone.
    name = getattr(error, "node_name", lambda: f"number {error.node()}")()
    operator = getattr(error, "node_operator", lambda: "")()
    raise MismatchedArtifact(
        f"{trt.__name__} {trt.__version__} does not take node {name!r} ({operator}): "
        f"{' '.join(error.desc().split())[:300]}",
        mend="build with `--runtime onnxruntime`, or change that layer of the network",
    )


def _batch_profile(
    builder: Any, config: Any, network: Any, options: PlanOptions
) -> dict[str, bool | int | float | str]:
    """Add the profile that a varying batch needs; without one nothing is built."""
    source = network.get_input(0)
    shape = tuple(source.shape)
    if shape[0] != -1:
        return {"batch": int(shape[0])}
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, *((size, *shape[1:]) for size in options.batch))
    config.add_optimization_profile(profile)
    return {"batch": ":".join(map(str, options.batch))}


def _layer_precisions(trt: Any, network: Any) -> dict[str, Precision]:
    kinds = (
        trt.LayerType.CONVOLUTION,
        trt.LayerType.DECONVOLUTION,
        trt.LayerType.MATRIX_MULTIPLY,
    )
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {
        layer.get_output(place).name: layer
        for layer in layers
        for place in range(layer.num_outputs)
    }
    found: dict[str, Precision] = {}
    for layer in layers:
        if layer.type not in kinds:
            continue
        operands = [layer.get_input(place) for place in range(min(2, layer.num_inputs))]
        sources = [made_by.get(tensor.name) for tensor in operands if tensor is not None]
        quantised = [s is not None and s.type == trt.LayerType.DEQUANTIZE for s in sources]
        if len(quantised) == 2 and all(quantised):
            found[layer.name] = "int8"
        elif layer.get_output(0).dtype == trt.DataType.HALF:
            found[layer.name] = "fp16"
        else:
            found[layer.name] = "fp32"
    return found
