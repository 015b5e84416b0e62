"""Engines that run networks: float32 tensors in, uint8 label maps out."""

from __future__ import annotations

from pathlib import Path

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.files import require_file
from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.base import Engine
from edgeseg.engines.choice import runtimes_here
from edgeseg.errors import UsageError

__all__ = ["open_engine", "runtimes_here"]


def open_engine(
    path: Path, threads: int | None = None, *, sidecar: SideCar | None = None
) -> Engine:
    """Open an ONNX network or a built engine.

    An ONNX network is opened by OpenVINO if its side-car says that it was built for OpenVINO,
    otherwise by ONNX Runtime.

    Args:
        path: ``*.onnx`` or ``*.engine``.
        threads: CPU threads of the runtime; None takes its default.
        sidecar: Side-car of an ONNX network that was made just now and has none on disk yet.

    Raises:
        UsageError: The file does not exist, or has another suffix.
        ArtifactError: The file is empty, truncated, altered, or made for something else.
        RuntimeMissing: The library, driver or GPU that the engine needs is missing.
        DeviceError: The GPU failed.
    """
    path = require_file(Path(path))
    if path.suffix == ".onnx":
        made = sidecar or sidecars.read(path)
        if made is not None and made.runtime == "openvino":
            from edgeseg.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(path, threads, sidecar)
        from edgeseg.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads, sidecar)
    if path.suffix == ".engine":
        from edgeseg.engines.tensorrt.run import open_plan

        return open_plan(path)
    raise UsageError(f"{path}: expected a .onnx network or a .engine, found {path.suffix!r}")
