"""ONNX → TensorRT-RTX engine, on any machine: the build needs neither GPU nor driver.

Only what TensorRT 8.6 … 11 and TensorRT-RTX have in common is used, looked up on the module
that is handed in, so that `tensorrt` itself can take its place. The precision is what the
graph says (strongly typed); it is proved from the network that the parser made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeseg.card import Precision
from edgeseg.engines.tensorrt.library import log_collector, tensorrt_rtx
from edgeseg.engines.tensorrt.options import PlanOptions
from edgeseg.engines.tensorrt.proof import layer_precisions
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError

logger = logging.getLogger(__name__)


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
    log = log_collector(trt)
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
        layers=layer_precisions(trt, network),
        log=tuple(log.warnings),
        options=used | {"tf32": bool(config.get_flag(trt.BuilderFlag.TF32))},
    )


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
