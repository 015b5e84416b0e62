"""Build TensorRT engines, and verify their precision in the network that TensorRT parsed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.files import refuse_to_replace, sha256_bytes, sha256_file, write_atomic
from edgeseg.artifacts.sidecar import PrecisionReport, SideCar
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.fp32 import Fp32Network, artifact_name
from edgeseg.building.graph import require_precision
from edgeseg.building.recipe import exactly
from edgeseg.building.reduction import ReducedGraph, reduce_precision
from edgeseg.building.result import BuildResult, BuiltFile, put_in_place
from edgeseg.console import Track
from edgeseg.engines.cuda import open_cuda
from edgeseg.engines.tensorrt import (
    Implicit,
    Plan,
    PlanOptions,
    PlanRuntime,
    build_engine,
    implicit_only,
    library,
)
from edgeseg.errors import DeviceError, MismatchedArtifact, RuntimeMissing, UsageError
from edgeseg.machine import gpus
from edgeseg.options.building import BuildConfig
from edgeseg.precision.graph import derived_card, report_of, work

logger = logging.getLogger(__name__)


def build_plan(
    network: Fp32Network, config: BuildConfig, runtime: PlanRuntime, track: Track
) -> BuildResult:
    """Compile the network, or its gated counterpart of reduced precision.

    Raises the errors of ``build``.
    """
    trt = library(runtime)  # Fail early if it is missing.
    options = _with_sizes(config.plan, network)
    implicit = options.dla_core is not None and implicit_only(trt)
    if options.dla_core is not None and config.precision == "fp32":
        raise UsageError("a DLA computes in FP16 and INT8", hint="build with --fp16 or --int8")
    binding = machine_of_engine(runtime)
    with workshop(network.path.parent) as temporary:
        reduced, model = None, network.model
        # FP32 is compiled from the unchanged file, so that its hash is that of model.onnx.
        data, fed = network.path.read_bytes(), network.sha256
        if config.precision != "fp32":
            reduced = reduce_precision(network, config, "tensorrt", temporary, track)
            # Fail early if the build would replace another graph of that name.
            there = network.path.with_name(reduced.graph.name)
            if there.exists() and sha256_file(there) != reduced.graph.sidecar.artifact_sha256:
                refuse_to_replace(there, overwrite=config.overwrite)
            model = reduced.graph.model
            if not implicit:
                data, fed = reduced.graph.data, reduced.graph.sidecar.artifact_sha256
        plan = build_engine(
            data,
            options,
            trt=trt,
            implicit=_implicit(reduced) if implicit and reduced is not None else None,
            gpu=binding.get("gpu", ""),
            track=track,
        )
        floating = _left_floating(model, plan)
        if floating:
            logger.warning(
                "%s computes these nodes in floating point: %s", runtime, ", ".join(floating)
            )
        if floating and config.foreign is None:
            keep = (*config.keep, *exactly(floating))
            return build_plan(network, replace(config, keep=keep), runtime, track)
        judged = reduced.built.sidecar if reduced else None
        sidecar = SideCar(
            artifact_sha256=sha256_bytes(plan.data),
            artifact_bytes=len(plan.data),
            card=derived_card(network.card, fed, config.precision),
            runtime=runtime,
            runtime_version=plan.version,
            onnx_sha256=fed,
            targets=options.targets,
            precision=_proved(model, plan, config.precision),
            calibration_set=judged.calibration_set if judged else None,
            build_options=dict(plan.options),
            gate=judged.gate if judged else None,
        ).model_copy(update=binding)
        engine = temporary / artifact_name(network.path, config.precision, "engine")
        write_atomic(engine, plan.data)
        built = [BuiltFile(engine, sidecar), *([reduced.built] if reduced else [])]
        plot = reduced.plot if reduced else None
        return put_in_place(built, network.path.parent, plot, plan.table)


def machine_of_engine(runtime: PlanRuntime) -> dict[str, str]:
    """Properties of this machine that an engine depends on, keyed by side-car field.

    An engine of TensorRT-RTX compiles its kernels where it runs, so no GPU stands in it.
    """
    found = {"platform": f"{platform.system()} {platform.machine()}".lower()}
    if runtime == "tensorrt-rtx":
        return found
    try:
        facts = open_cuda().facts
    except (RuntimeMissing, DeviceError) as error:
        # TensorRT needs no CUDA library of Python's to build; NVML knows the GPU as well.
        logger.info("asking NVML for the GPU: %s", error)
        for gpu in gpus()[:1]:
            target = f"sm_{gpu.compute_capability.replace('.', '')}"
            found |= {"gpu": gpu.name, "compute_capability": target, "driver_version": gpu.driver}
        return found
    return found | {
        "gpu": facts.name,
        "compute_capability": facts.target,
        "cuda_version": facts.runtime_version,
        "driver_version": facts.driver_version,
    }


def _with_sizes(options: PlanOptions, network: Fp32Network) -> PlanOptions:
    """For a network of dynamic size, default to the card's size and log that."""
    spec = network.card.input
    if options.sizes is not None or spec.open_size is None:
        return options
    logger.warning(
        "the engine will only take pictures of %dx%d; set others with --sizes",
        spec.width,
        spec.height,
    )
    return replace(options, sizes=((spec.height, spec.width),) * 3)


def _implicit(reduced: ReducedGraph) -> Implicit:
    """Express the graph's Q/DQ pairs and casts as settings, for a DLA that reads neither."""
    ranges: Mapping[str, tuple[float, float]] = {}
    if reduced.graph.precision == "int8":
        if reduced.ranges is None:
            raise UsageError(
                "this DLA takes ranges instead of Q/DQ, and there are none",
                hint="run `edgeseg calibrate` on the FP32 network first",
            )
        ranges = reduced.ranges.ranges
    return Implicit({node.node: node.precision for node in work(reduced.graph.model)}, ranges)


def _left_floating(model: ModelProto, plan: Plan) -> list[str]:
    """Nodes that the graph quantises and TensorRT's network computes in floating point."""
    int8 = [node.node for node in work(model) if node.precision == "int8"]
    return [name for name in int8 if plan.precisions.get(name) in ("fp32", "fp16")]


def _proved(model: ModelProto, plan: Plan, precision: Precision) -> PrecisionReport:
    """Report precision from TensorRT's own network, not from what was requested."""
    floating = set(_left_floating(model, plan))  # Of a graph of another tool: not ours to change.
    nodes = [
        replace(node, precision=plan.precisions[node.node]) if node.node in floating else node
        for node in work(model)
    ]
    for node in nodes:
        if plan.precisions.get(node.node) != node.precision:
            raise MismatchedArtifact(
                f"TensorRT made {plan.precisions.get(node.node, 'no')} layer of the "
                f"{node.precision} node {node.node!r}",
                hint="build with `--runtime onnxruntime`, which runs the graph as it stands",
            )
    report = report_of(nodes)
    require_precision(report, precision)
    return report
