"""ONNX → TensorRT engine, its precision proved from the network that TensorRT parsed."""

from __future__ import annotations

from onnx import ModelProto

from edgeseg import sidecar as sidecars
from edgeseg.artifacts import sha256_bytes, sha256_file, write_atomic
from edgeseg.building.config import BuildConfig, BuildResult
from edgeseg.building.placing import place
from edgeseg.building.reduced import reduced_graph, require_precision
from edgeseg.building.source import Source
from edgeseg.card import Precision
from edgeseg.console import Track
from edgeseg.engines.tensorrt import Plan, build_engine, tensorrt_rtx
from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import derived_card, load_model, report_of, work
from edgeseg.sidecar import SideCar, sidecar_path
from edgeseg.workshop import workshop


def build_plan(source: Source, config: BuildConfig, track: Track) -> BuildResult:
    """Compile the network, or its gated twin of reduced precision; raises as ``build``."""
    trt = tensorrt_rtx()  # Before the long part: it may be missing.
    with workshop(source.path.parent) as shop:
        graph, model, fed = None, source.model, source.sha256
        if config.precision != "fp32":
            graph = reduced_graph(source, config, "tensorrt", shop, track)
            model, fed = load_model(graph), sha256_file(graph)
        # FP32 is fed as it lies there, so that its hash is that of model.onnx.
        data = source.path.read_bytes() if graph is None else graph.read_bytes()
        (plan,) = (
            build_engine(data, config.plan, trt=trt) for _ in track([0], "compiling the engine", 1)
        )
        judged = sidecars.read(graph) if graph else None
        made = SideCar(
            artifact_sha256=sha256_bytes(plan.data),
            card=derived_card(source.card, fed, config.precision),
            runtime="tensorrt-rtx",
            runtime_version=plan.version,
            onnx_sha256=fed,
            targets=config.plan.targets,
            precision=_proved(model, plan, config.precision),
            calibration_set=judged.calibration_set if judged else None,
            build_options=dict(plan.options),
            gate=judged.gate if judged else None,
        )
        engine = shop / source.named(config.precision, "engine")
        write_atomic(engine, plan.data)
        made.save(sidecar_path(engine))
        return place([engine, *([graph] if graph else [])], source.path.parent)


def _proved(model: ModelProto, plan: Plan, precision: Precision) -> sidecars.PrecisionReport:
    """The shares by what TensorRT's own network says of each layer, not by what was asked."""
    nodes = work(model)
    for node in nodes:
        if plan.layers.get(node.node) != node.precision:
            raise MismatchedArtifact(
                f"TensorRT made {plan.layers.get(node.node, 'no')} layer of the "
                f"{node.precision} node {node.node!r}"
            )
    report = report_of(nodes)
    require_precision(report, precision)
    return report
