"""Build engines from ONNX: reduce the precision, compare with FP32, then put them in place.

Files are made in a temporary folder beside the network and moved once all are complete, so a
build that fails or is rejected leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from edgeseg.artifacts.partials import alone
from edgeseg.building.fp32 import artifact_name, read_fp32
from edgeseg.building.graph import graph_name
from edgeseg.building.onnx import build_for_onnxruntime, build_for_openvino
from edgeseg.building.plan import build_plan
from edgeseg.building.result import BuildResult
from edgeseg.building.sensitivity import Sensitivity, measure_sensitivity
from edgeseg.console import Track, silent
from edgeseg.engines.choice import best_here
from edgeseg.options.building import BuildConfig, EngineRuntime

__all__ = [
    "BuildConfig",
    "BuildResult",
    "EngineRuntime",
    "Sensitivity",
    "build",
    "measure_sensitivity",
    "outputs_of",
]


def build(config: BuildConfig, track: Track = silent) -> BuildResult:
    """Build one engine, compare it with FP32, and write it with its side-car.

    ``onnxruntime`` runs ONNX itself: FP32 is ``model.onnx`` as it is, checked by running it;
    the others are ``model.fp16.onnx`` and ``model.int8.onnx``. ``tensorrt`` and ``tensorrt-rtx``
    give ``model.PRECISION.engine``, judged on the graph it was compiled from, in ONNX Runtime;
    that graph is kept beside it (``model.fp16.onnx``, ``model.int8.tensorrt.onnx``). With
    ``config.foreign`` the graph is that one, with a card and a side-car. ``openvino``
    gives ``model.PRECISION.openvino.onnx``, judged in OpenVINO; the reference is FP32 in ONNX
    Runtime for all of them.

    Raises:
        UsageError: The configuration is invalid, or there are no ranges for INT8.
        ArtifactError: Network, ranges or pictures are damaged or do not match.
        RuntimeMissing: The runtime asked for is not installed, or lacks the GPU it needs.
        InferenceError: An activation is NaN or infinite on the calibration pictures.
        AccuracyGateError: The result differs from FP32 by more than the limit.
    """
    runtime = best_here() if config.runtime == "auto" else config.runtime
    config = replace(config, runtime=runtime)
    with contextlib.ExitStack() as stack:
        for output in outputs_of(config)[:1]:
            stack.enter_context(alone(output, doing="builds"))
        network = read_fp32(Path(config.onnx))
        if runtime in ("tensorrt", "tensorrt-rtx"):
            return build_plan(network, config, runtime, track)
        if runtime == "openvino":
            return build_for_openvino(network, config, track)
        return build_for_onnxruntime(network, config, track)


def outputs_of(config: BuildConfig) -> tuple[Path, ...]:
    """Paths that :func:`build` writes beside the network for a named runtime, the engine first.

    ``model.onnx`` as an engine of ONNX Runtime is there already. The graph that an engine of
    TensorRT is compiled from is left out: one with the same bytes may be there.
    """
    network, precision = Path(config.onnx), config.precision
    if config.runtime in ("tensorrt", "tensorrt-rtx"):
        engine = artifact_name(network, precision, "engine")
    elif config.runtime == "openvino":
        engine = graph_name(network, precision, "openvino")
    elif precision == "fp32":
        return ()
    else:
        engine = graph_name(network, precision, "onnxruntime")
    plots = [artifact_name(network, precision, "mixed", "png")] if config.auto_mixed else []
    return tuple(network.with_name(name) for name in (engine, f"{engine}.json", *plots))
