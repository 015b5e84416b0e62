"""Network file → engine: float32 tensors in, uint8 label maps out."""

from __future__ import annotations

from pathlib import Path

from edgeseg.artifacts import require_file
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.sidecar import Runtime


def open_engine(path: Path, threads: int | None = None) -> Engine:
    """Open an ONNX network or a built engine.

    Args:
        path: ``*.onnx`` or ``*.engine``.
        threads: CPU threads of the runtime; None takes its default.

    Raises:
        UsageError: No such file, or another suffix.
        ArtifactError: Empty, truncated, altered, or made for something else.
        RuntimeMissing: It is an engine, and its library, a driver or a GPU is not here.
        DeviceError: The GPU failed.
    """
    path = require_file(Path(path))
    if path.suffix == ".onnx":
        from edgeseg.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads)
    if path.suffix == ".engine":
        from edgeseg.engines.tensorrt.opening import open_plan

        return open_plan(path)
    raise UsageError(f"{path}: expected a .onnx network or a .engine, found {path.suffix!r}")


def runtimes_here() -> tuple[Runtime, ...]:
    """The runtimes that can run a network on this machine, the preferred one first."""
    return ("onnxruntime",)
