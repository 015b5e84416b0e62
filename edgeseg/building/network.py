"""Build engines for ONNX Runtime, which are ONNX networks themselves."""

from __future__ import annotations

import onnxruntime

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.placing import place
from edgeseg.building.reduced import reduced_graph
from edgeseg.building.result import BuildResult
from edgeseg.building.source import Source
from edgeseg.console import Track
from edgeseg.engines import open_engine
from edgeseg.errors import UsageError
from edgeseg.options.building import BuildConfig, PlanOptions
from edgeseg.precision.graph import precision_report


def build_network(source: Source, config: BuildConfig, track: Track) -> BuildResult:
    """Check ``model.onnx`` by running it, or make its counterpart of reduced precision."""
    refuse_plan_options(config, "ONNX Runtime")
    if config.precision == "fp32":
        return _fp32_in_place(source, config)
    with workshop(source.path.parent) as shop:
        graph = reduced_graph(source, config, "onnxruntime", shop, track)
        return place([graph], source.path.parent)


def refuse_plan_options(config: BuildConfig, name: str) -> None:
    """Raise UsageError if options only for TensorRT are set, but the runtime is ``name``."""
    if config.plan.targets:
        raise UsageError(
            f"{name} compiles for no target",
            hint="leave --target out, or add `--runtime tensorrt-rtx`",
        )
    if config.plan != PlanOptions():
        raise UsageError(
            f"{name} has no use for the options of TensorRT",
            hint="leave them out, or add `--runtime tensorrt` or `--runtime tensorrt-rtx`",
        )


def _fp32_in_place(source: Source, config: BuildConfig) -> BuildResult:
    with open_engine(source.path, config.threads) as engine:
        engine.warm_up(1)
    made = sidecars.read(source.path)
    if made is None or made.precision is None:
        report = precision_report(source.model, str(source.path))
        made = (made and made.model_copy(update={"precision": report})) or SideCar(
            artifact_sha256=source.sha256,
            artifact_bytes=source.path.stat().st_size,
            card=source.card,
            runtime="onnxruntime",
            runtime_version=onnxruntime.__version__,
            precision=report,
        )
        made.save(sidecar_path(source.path))
    return BuildResult(source.path, made)
