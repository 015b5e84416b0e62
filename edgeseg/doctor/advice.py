"""Recommend an engine to build on a machine.

:mod:`edgeseg.engines.choice` decides what ``--runtime auto`` selects, but imports NumPy and
OpenCV, which may be what is broken. So the order is repeated here, and a test compares the two.
"""

from __future__ import annotations

from edgeseg.doctor.check import Check, Command
from edgeseg.doctor.facts import SystemFacts

WHY = {
    "tensorrt": "runs on the GPU",
    "tensorrt-rtx": "runs on the GPU, compiling at first run",
    "openvino": "the fastest on x86-64 processors",
    "onnxruntime": "runs on every processor",
}


def recommended(
    facts: SystemFacts, checks: tuple[Check, ...], lacks: tuple[str, ...]
) -> Command | None:
    """Recommend the runtime that ``--runtime auto`` would select, and a suitable precision.

    INT8 on processors: 1.4 to 2.0 times FP32 for at most 0.3 points of mean IoU, measured on
    AVX2; FP16 gains nothing there. FP16 on GPUs, which were not measured: it needs no
    calibration, and INT8 has to show its gain on the device first.

    Args:
        facts: Facts about the machine.
        checks: Checks of the machine.
        lacks: Requirements of ``build`` that the machine lacks.
    """
    blocked = {check.purpose for check in checks if check.blocks}
    runtime = best_runtime(facts, gpu="gpu" not in blocked)
    if runtime is None or "base" in blocked:
        return None
    precision = "fp16" if runtime.startswith("tensorrt") else "int8"
    return Command(
        f"build --{precision} --runtime {runtime}",
        usable=not lacks,
        lacks=lacks,
        why=f"{runtime}, {WHY[runtime]}",
    )


def best_runtime(facts: SystemFacts, *, gpu: bool) -> str | None:
    """Return the fastest installed runtime, GPU runtimes first; None if there is none."""
    x86 = facts.architecture == "x86_64"
    cuda = facts.has("cuda-bindings") or facts.has("cuda-python") or facts.has("pycuda")
    usable = {
        "tensorrt": bool(gpu and facts.gpus and cuda and facts.tensorrt),
        "tensorrt-rtx": bool(gpu and facts.gpus and cuda and facts.has("tensorrt-rtx")),
        "openvino": facts.has("openvino"),
        "onnxruntime": not facts.library("onnxruntime").error,
    }
    processor = ("openvino", "onnxruntime") if x86 else ("onnxruntime", "openvino")
    return next((name for name in ("tensorrt", "tensorrt-rtx", *processor) if usable[name]), None)
