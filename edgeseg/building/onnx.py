"""Build engines for ONNX Runtime and OpenVINO, which are ONNX networks themselves."""

from __future__ import annotations

import logging

import onnxruntime

from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.fp32 import Fp32Network
from edgeseg.building.reduction import reduce_precision
from edgeseg.building.result import BuildResult, put_in_place
from edgeseg.console import Track
from edgeseg.engines import open_engine, openvino
from edgeseg.errors import UsageError
from edgeseg.options.building import BuildConfig, PlanOptions
from edgeseg.precision.policy import GraphFormat

logger = logging.getLogger(__name__)


def build_for_onnxruntime(network: Fp32Network, config: BuildConfig, track: Track) -> BuildResult:
    """Check ``model.onnx`` by running it, or make its counterpart of reduced precision."""
    _refuse_plan_options(config, "ONNX Runtime")
    if config.precision == "fp32":
        return _fp32_in_place(network, config)
    return _build(network, config, "onnxruntime", track)


def build_for_openvino(network: Fp32Network, config: BuildConfig, track: Track) -> BuildResult:
    """Make ``model.PRECISION.openvino.onnx``, judged in OpenVINO; raises the errors of ``build``.

    The file is ONNX, which OpenVINO compiles on opening: one file with the card inside, whereas
    OpenVINO's own format takes two.
    """
    _refuse_plan_options(config, "OpenVINO")
    openvino.library()  # Fail early if it is missing.
    return _build(network, config, "openvino", track)


def _build(
    network: Fp32Network, config: BuildConfig, graph_format: GraphFormat, track: Track
) -> BuildResult:
    folder = network.path.parent
    with workshop(folder) as temporary:
        reduced = reduce_precision(network, config, graph_format, temporary, track)
        return put_in_place([reduced.built], folder, reduced.plot)


def _refuse_plan_options(config: BuildConfig, name: str) -> None:
    """Raise UsageError if options only for TensorRT are set, but the runtime is ``name``."""
    if config.plan.targets:
        raise UsageError(
            f"{name} does not compile for a target",
            hint="omit --target, or add `--runtime tensorrt-rtx`",
        )
    if config.plan != PlanOptions():
        raise UsageError(
            f"{name} does not support the options of TensorRT",
            hint="omit them, or add `--runtime tensorrt` or `--runtime tensorrt-rtx`",
        )


def _fp32_in_place(network: Fp32Network, config: BuildConfig) -> BuildResult:
    with open_engine(network.path, config.threads) as engine:
        engine.warm_up(1)
    sidecar = network.sidecar
    if sidecar is None or sidecar.precision is None:
        if sidecar is None:
            sidecar = SideCar(
                artifact_sha256=network.sha256,
                artifact_bytes=network.path.stat().st_size,
                card=network.card,
                runtime="onnxruntime",
                runtime_version=onnxruntime.__version__,
            )
        sidecar = sidecar.model_copy(update={"precision": network.report})
        sidecar.save(sidecar_path(network.path))
    return BuildResult(network.path, sidecar)
