"""Open an engine file, or explain why it cannot run here and what can."""

from __future__ import annotations

from pathlib import Path

from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.cuda import Cuda, open_cuda
from edgeseg.engines.tensorrt.library import library
from edgeseg.engines.tensorrt.preflight import EngineFile, twin
from edgeseg.engines.tensorrt.run import TensorRtEngine
from edgeseg.errors import CorruptArtifact, RuntimeMissing


def open_plan(path: Path, *, cuda: Cuda | None = None, graph: bool = True) -> TensorRtEngine:
    """Open ``model.PRECISION.engine``; the bytes are checked before any library is loaded.

    Args:
        path: The engine, its side-car beside it.
        cuda: The GPU; what :func:`~edgeseg.engines.cuda.open_cuda` gives by default.
        graph: Replay CUDA graphs.

    Raises:
        ArtifactError: The engine was altered, has no valid side-car, or was made for another
            machine.
        RuntimeMissing: The library, the driver or a GPU is missing; the message names the network
            to use instead.
        DeviceError: The GPU failed.
    """
    engine = EngineFile.read(path)
    sidecar = engine.sidecar
    if sidecar.runtime not in ("tensorrt", "tensorrt-rtx"):
        raise CorruptArtifact(
            f"{path}: its side-car says {sidecar.runtime}, which has no .engine files",
            hint="build it again with `edgeseg build --overwrite`",
        )
    try:
        trt, cuda = library(sidecar.runtime), cuda or open_cuda()
    except RuntimeMissing as error:
        raise _cannot_run(path, sidecar, error) from error
    return TensorRtEngine(engine, trt, cuda, graph=graph)


def _cannot_run(path: Path, sidecar: SideCar, reason: RuntimeMissing) -> RuntimeMissing:
    precision = sidecar.card.precision
    built_for = sidecar.targets or tuple(filter(None, [sidecar.gpu]))
    there = twin(path, sidecar)
    made = "" if there.exists() else f" (`edgeseg build --{precision}` makes it)"
    return RuntimeMissing(
        f"{path} is an engine in {precision} for {sidecar.runtime} {sidecar.runtime_version}"
        f"{' for ' + ', '.join(built_for) if built_for else ''} and needs an NVIDIA GPU: "
        f"{reason.message}",
        hint=f"use {there} here{made}; to run the engine: {reason.hint}",
    )
