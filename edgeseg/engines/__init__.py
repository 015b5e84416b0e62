"""Network file → engine: float32 tensors in, uint8 label maps out."""

from __future__ import annotations

from pathlib import Path

from edgeseg.artifacts import require_file
from edgeseg.engines.base import Engine
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.sidecar import Runtime, verified_bytes


def open_engine(path: Path, threads: int | None = None) -> Engine:
    """Open an ONNX network or a built engine.

    Args:
        path: ``*.onnx`` or ``*.engine``.
        threads: CPU threads of the runtime; None takes its default.

    Raises:
        UsageError: No such file, or another suffix.
        ArtifactError: Empty, truncated, altered, or made for something else.
        RuntimeMissing: It is an engine that cannot run on this machine.
    """
    path = require_file(Path(path))
    if path.suffix == ".onnx":
        from edgeseg.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads)
    if path.suffix == ".engine":
        _refuse_engine(path)
    raise UsageError(f"{path}: expected a .onnx network or a .engine, found {path.suffix!r}")


def runtimes_here() -> tuple[Runtime, ...]:
    """The runtimes that can run a network on this machine, the preferred one first."""
    return ("onnxruntime",)


def _refuse_engine(path: Path) -> None:
    _, sidecar = verified_bytes(path)
    stem = path.name.split(".")[0]
    precision = sidecar.card.precision
    twin = f"{stem}.onnx" if precision == "fp32" else f"{stem}.{precision}.onnx"
    built_for = f" for {', '.join(sidecar.targets)}" if sidecar.targets else ""
    raise RuntimeMissing(
        f"{path} is an engine in {precision} for {sidecar.runtime} {sidecar.runtime_version}"
        f"{built_for}: it needs an NVIDIA GPU, and this version of edgeseg builds such "
        "engines but does not run them",
        mend=f"use {path.with_name(twin)} here"
        + ("" if path.with_name(twin).exists() else f" (`edgeseg build --{precision}` makes it)"),
    )
