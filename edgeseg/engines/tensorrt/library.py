"""The TensorRT libraries: found by name when they are needed, and what their versions can do."""

from __future__ import annotations

import importlib
import re
from typing import Any, Literal

from edgeseg.errors import RuntimeMissing

PlanRuntime = Literal["tensorrt", "tensorrt-rtx"]


def library(runtime: PlanRuntime) -> Any:
    """Import the module of a runtime; raises RuntimeMissing if it is not installed."""
    return tensorrt() if runtime == "tensorrt" else tensorrt_rtx()


def tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        RuntimeMissing: It is not installed.
    """
    return _module(
        "tensorrt",
        "TensorRT",
        "on a Jetson it is part of JetPack: make the virtual environment with "
        "`--system-site-packages`; elsewhere: pip install tensorrt",
    )


def tensorrt_rtx() -> Any:
    """The module ``tensorrt_rtx``.

    Raises:
        RuntimeMissing: It is not installed.
    """
    return _module("tensorrt_rtx", "TensorRT-RTX", "pip install 'edgeseg[tensorrt-rtx]'")


def _module(name: str, product: str, hint: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            f"this engine needs {product}, which is not installed "
            f"({' '.join(str(error).split())[:150]})",
            hint=hint,
        ) from error


def is_rtx(trt: Any) -> bool:
    """Whether it compiles for other GPUs than the local one, and kernels at run time."""
    return hasattr(trt, "ComputeCapability")


def version(trt: Any) -> tuple[int, ...]:
    """(10, 3, 0) of ``10.3.0``; TensorRT-RTX counts by itself."""
    return tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:3])


def product(trt: Any) -> str:
    """``TensorRT 10.3.0``, for messages."""
    return f"{'TensorRT-RTX' if is_rtx(trt) else 'TensorRT'} {trt.__version__}"


def strongly_typed(trt: Any) -> bool:
    """Whether networks can be strongly typed: built only in the precision that they state.

    The flag came with 10.0 and covers every layer since 10.12; where the flags for reduced
    precision are gone, nothing else is left.
    """
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return False
    return not hasattr(trt.BuilderFlag, "FP16") or version(trt) >= (10, 12)


def open_builder(trt: Any, log: Any) -> Any:
    """Create a builder.

    Raises:
        RuntimeMissing: There is no GPU, or no driver that this version can use.
    """
    try:
        return trt.Builder(log)
    except TypeError as error:  # pybind11's way to say that the C++ factory gave nothing.
        raise RuntimeMissing(
            f"{product(trt)} builds on the GPU that the engine is for, and none can be used here: "
            f"{log.reason()}",
            hint="build on that machine; `--runtime tensorrt-rtx` builds anywhere",
        ) from error


def log_collector(trt: Any) -> Any:
    """A logger of TensorRT that keeps warnings and errors and prints nothing."""
    severity = trt.ILogger.Severity

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif level == severity.WARNING:
                self.warnings.append(message)

        def reason(self) -> str:
            text = " / ".join(" ".join(line.split()) for line in self.errors)
            return text[:600] or "it gives no reason"

    return Collector()
