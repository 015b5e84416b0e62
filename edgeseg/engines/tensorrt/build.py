"""Compile ONNX networks to engines with TensorRT 8.6 … 11 and TensorRT-RTX.

Only what all of them have in common is called, and the rest looked up on the module that is
handed in. The precision is what the graph says, which strongly typed networks take as it
stands and older versions are bound to (:mod:`.weak_typing`). TensorRT-RTX builds on any
machine, with neither GPU nor driver; TensorRT on the GPU that the engine is for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeseg.artifacts.card import Precision
from edgeseg.console import Track, silent
from edgeseg.engines.tensorrt.layers import LayerTable, layer_precisions, layer_table
from edgeseg.engines.tensorrt.library import (
    log_collector,
    open_builder,
    product,
    strongly_typed,
    tensorrt_rtx,
)
from edgeseg.engines.tensorrt.progress import compile_network
from edgeseg.engines.tensorrt.settings import (
    Used,
    add_profile,
    configure,
    layers_on_gpu,
    require_dla,
    use_dla,
)
from edgeseg.engines.tensorrt.timing_cache import TimingCache, timing_cache
from edgeseg.engines.tensorrt.weak_typing import Implicit, bind_implicit, bind_precisions
from edgeseg.errors import CorruptArtifact, MismatchedArtifact
from edgeseg.options.building import PlanOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A serialized engine and its metadata.

    ``precisions`` gives the precision of each computing layer as TensorRT's network has it, by
    the name of its ONNX node; ``table`` every layer; ``log`` the runtime's warnings.
    """

    data: bytes = field(repr=False)
    version: str
    precisions: Mapping[str, Precision]
    table: LayerTable = field(repr=False)
    log: tuple[str, ...]
    options: Mapping[str, bool | int | float | str]


def build_engine(
    onnx_bytes: bytes,
    options: PlanOptions,
    *,
    trt: Any = None,
    implicit: Implicit | None = None,
    gpu: str = "",
    track: Track = silent,
) -> Plan:
    """Compile an ONNX network to an engine.

    The same bytes and options give the same engine of TensorRT-RTX, byte for byte.

    Args:
        onnx_bytes: A network that ``onnx.checker`` accepts; the parser is native code.
        options: Targets, profiles and other build options.
        trt: The TensorRT module; ``tensorrt_rtx`` by default.
        implicit: Precisions and ranges of an FP32 network for a DLA that takes no Q/DQ.
        gpu: Name of the GPU, used in the file name of the timing cache.
        track: Shows the progress of the compilation.

    Raises:
        RuntimeMissing: TensorRT, or a GPU or DLA that it needs, is missing.
        UsageError: This version cannot do what an option asks for.
        MismatchedArtifact: It cannot parse or compile the network; the message names the node.
    """
    trt = trt or tensorrt_rtx()
    log = log_collector(trt)
    builder = open_builder(trt, log)
    config, used = configure(trt, builder, options)
    network = builder.create_network(_creation_flags(trt))
    _parse(trt, network, onnx_bytes, log)
    used |= add_profile(builder, config, network, options)
    if options.dla_core is not None:
        require_dla(trt, builder, options)
        use_dla(trt, config, options)
    if implicit is not None:
        bind_implicit(trt, config, network, implicit)
        used["quantisation"] = "ranges of tensors"
    elif not strongly_typed(trt):
        bind_precisions(trt, config, network)
    used |= {"typing": "strong" if strongly_typed(trt) else "bound"}
    on_gpu = None
    if options.dla_core is not None:
        on_gpu = layers_on_gpu(trt, config, network, options)
        used |= _dla_facts(options, on_gpu, network)
    cache = timing_cache(trt, config, options, gpu)
    used |= {"timing_cache": str(cache.path)} if cache else {}
    data = _compile(trt, builder, network, config, cache, log, track=track)
    return Plan(
        data=data,
        version=str(trt.__version__),
        precisions=layer_precisions(trt, network),
        table=layer_table(trt, data, network, log, on_gpu),
        log=tuple(log.warnings),
        options=used,
    )


def _creation_flags(trt: Any) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    if strongly_typed(trt):
        return 1 << int(kinds.STRONGLY_TYPED)
    # Without it TensorRT 8 takes no ONNX; 10 and later know nothing else, and 11 lost the name.
    explicit = getattr(kinds, "EXPLICIT_BATCH", None)
    return 0 if explicit is None else 1 << int(explicit)


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
        f"{product(trt)} does not take node {name!r} ({operator}): "
        f"{' '.join(error.desc().split())[:300]}",
        hint="build with `--runtime onnxruntime`, or change that layer of the network",
    )


def _compile(
    trt: Any,
    builder: Any,
    network: Any,
    config: Any,
    cache: TimingCache | None,
    log: Any,
    *,
    track: Track,
) -> bytes:
    if cache is not None:
        cache.read()
    logger.info("building with %s …", product(trt))
    plan = compile_network(trt, builder, network, config, track)
    if plan is None:
        raise MismatchedArtifact(f"{product(trt)} cannot compile the network: {log.reason()}")
    if cache is not None:
        cache.write()
    return bytes(plan)


def _dla_facts(options: PlanOptions, on_gpu: tuple[str, ...], network: Any) -> Used:
    """What the side-car keeps of the DLA, and a line in the log on what it leaves."""
    if on_gpu:
        logger.warning(
            "the DLA leaves %d of %d layers to the GPU: %s%s",
            len(on_gpu),
            network.num_layers,
            ", ".join(on_gpu[:8]),
            "…" if len(on_gpu) > 8 else "",
        )
    assert options.dla_core is not None
    return {
        "dla_core": options.dla_core,
        "gpu_fallback": options.gpu_fallback,
        "layers_on_gpu": len(on_gpu),
    }
