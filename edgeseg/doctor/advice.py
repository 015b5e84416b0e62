"""Which engine to build on a machine: one line, and why.

:mod:`edgeseg.engines.choice` decides what ``--runtime auto`` takes, and importing it imports NumPy
and OpenCV, which may be what is broken. So the order stands here again; a test holds the two
against each other.
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
    """The runtime that ``--runtime auto`` would take, and the precision that it is good at.

    INT8 on processors: 1.4 to 2.0 times FP32 for at most 0.3 points of mean IoU, measured on
    AVX2; FP16 gains nothing there. FP16 on GPUs, which were not measured: it needs no
    calibration, and INT8 has to show its gain on the device first.

    Args:
        facts: The machine.
        checks: What was found on it.
        lacks: What ``build`` needs and this machine has not.
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
    """The first that is installed: a GPU's before a processor's; None for none."""
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
