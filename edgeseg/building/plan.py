"""Build TensorRT engines, and verify their precision in the network that TensorRT parsed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import refuse_to_replace, sha256_bytes, sha256_file, write_atomic
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.placing import place
from edgeseg.building.recipe import exactly
from edgeseg.building.reduced import reduced_graph, require_precision
from edgeseg.building.result import BuildResult
from edgeseg.building.source import Source
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
from edgeseg.precision.graph import derived_card, load_model, report_of, work
from edgeseg.precision.ranges import Ranges

logger = logging.getLogger(__name__)


def build_plan(
    source: Source, config: BuildConfig, runtime: PlanRuntime, track: Track
) -> BuildResult:
    """Compile the network, or its gated counterpart of reduced precision.

    Raises the errors of ``build``.
    """
    trt = library(runtime)  # Fail early if it is missing.
    options = _with_sizes(config.plan, source)
    implicit = options.dla_core is not None and implicit_only(trt)
    if options.dla_core is not None and config.precision == "fp32":
        raise UsageError("a DLA computes in FP16 and INT8", hint="build with --fp16 or --int8")
    binding = machine_of_engine(runtime)
    with workshop(source.path.parent) as shop:
        graph, model, fed = None, source.model, source.sha256
        if config.precision != "fp32":
            graph = reduced_graph(source, config, "tensorrt", shop, track)
            model = load_model(graph)
            _require_free(graph, source, config)
        # FP32 is compiled from the unchanged file, so that its hash is that of model.onnx.
        data = source.path.read_bytes()
        if graph is not None and not implicit:
            data, fed = graph.read_bytes(), sha256_file(graph)
        plan = build_engine(
            data,
            options,
            trt=trt,
            implicit=_implicit(model, source, config) if implicit else None,
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
            return build_plan(source, replace(config, keep=keep), runtime, track)
        judged = sidecars.read(graph) if graph else None
        made = SideCar(
            artifact_sha256=sha256_bytes(plan.data),
            artifact_bytes=len(plan.data),
            card=derived_card(source.card, fed, config.precision),
            runtime=runtime,
            runtime_version=plan.version,
            onnx_sha256=fed,
            targets=options.targets,
            precision=_proved(model, plan, config.precision),
            calibration_set=judged.calibration_set if judged else None,
            build_options=dict(plan.options),
            gate=judged.gate if judged else None,
        ).model_copy(update=binding)
        engine = shop / source.named(config.precision, "engine")
        write_atomic(engine, plan.data)
        made.save(sidecar_path(engine))
        placed = place([engine, *([graph] if graph else [])], source.path.parent)
        return replace(placed, layers=plan.table)


def _require_free(graph: Path, source: Source, config: BuildConfig) -> None:
    """Fail early if the build would replace another graph of that name."""
    there = source.path.with_name(graph.name)
    if there.exists() and sha256_file(there) != sha256_file(graph):
        refuse_to_replace(there, overwrite=config.overwrite)


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
        # TensorRT needs no CUDA library of Python's to build; nvidia-smi knows the GPU as well.
        logger.info("asking nvidia-smi for the GPU: %s", error)
        return found | _by_nvidia_smi()
    return found | {
        "gpu": facts.name,
        "compute_capability": facts.target,
        "cuda_version": facts.runtime_version,
        "driver_version": facts.driver_version,
    }


def _by_nvidia_smi() -> dict[str, str]:
    here = gpus()
    if not here:
        return {}
    return {
        "gpu": here[0].name,
        "compute_capability": f"sm_{here[0].compute_capability.replace('.', '')}",
        "driver_version": here[0].driver,
    }


def _with_sizes(options: PlanOptions, source: Source) -> PlanOptions:
    """For a network of dynamic size, default to the card's size and log that."""
    spec = source.card.input
    if options.sizes is not None or spec.open_size is None:
        return options
    logger.warning(
        "the engine will take pictures of %dx%d alone; name others with --sizes",
        spec.width,
        spec.height,
    )
    return replace(options, sizes=((spec.height, spec.width),) * 3)


def _implicit(model: ModelProto, source: Source, config: BuildConfig) -> Implicit:
    """Express the graph's Q/DQ pairs and casts as settings, for a DLA that reads neither."""
    ranges: Mapping[str, tuple[float, float]] = {}
    if config.precision == "int8":
        path = config.ranges or source.path.with_name(source.named("ranges", "json"))
        ranges = load(Ranges, path).ranges  # Checked when the graph was made from them.
    return Implicit({node.node: node.precision for node in work(model)}, ranges)


def _left_floating(model: ModelProto, plan: Plan) -> list[str]:
    """Nodes that the graph quantises and TensorRT's network computes in floating point."""
    int8 = [node.node for node in work(model) if node.precision == "int8"]
    return [name for name in int8 if plan.precisions.get(name) in ("fp32", "fp16")]


def _proved(model: ModelProto, plan: Plan, precision: Precision) -> sidecars.PrecisionReport:
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
