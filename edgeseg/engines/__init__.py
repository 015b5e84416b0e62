"""Network file → engine: float32 tensors in, uint8 label maps out."""

from __future__ import annotations

from pathlib import Path

from edgeseg import sidecar
from edgeseg.artifacts import require_file
from edgeseg.engines.base import Engine
from edgeseg.engines.choice import runtimes_here
from edgeseg.errors import UsageError

__all__ = ["open_engine", "runtimes_here"]


def open_engine(path: Path, threads: int | None = None) -> Engine:
    """Open an ONNX network or a built engine.

    An ONNX network is opened by OpenVINO where its side-car says that it was built for that,
    and by ONNX Runtime else.

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
        made = sidecar.read(path)
        if made is not None and made.runtime == "openvino":
            from edgeseg.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(path, threads)
        from edgeseg.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads)
    if path.suffix == ".engine":
        from edgeseg.engines.tensorrt.opening import open_plan

        return open_plan(path)
    raise UsageError(f"{path}: expected a .onnx network or a .engine, found {path.suffix!r}")
