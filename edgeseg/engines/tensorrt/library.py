"""The TensorRT libraries: found by name when they are needed, and their log kept."""

from __future__ import annotations

import importlib
from typing import Any

from edgeseg.errors import RuntimeMissing


def tensorrt_rtx() -> Any:
    """The module ``tensorrt_rtx``.

    Raises:
        RuntimeMissing: It is not installed.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            "building such an engine needs TensorRT-RTX, which is not installed "
            f"({' '.join(str(error).split())[:150]})",
            mend="pip install 'edgeseg[tensorrt-rtx]'",
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
