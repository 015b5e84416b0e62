"""Which engine to build on a machine: one line, and why."""

from __future__ import annotations

from edgeseg.doctor.check import Check, Command
from edgeseg.doctor.facts import SystemFacts
from edgeseg.engines.choice import Here, candidates


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
    best = next((c for c in candidates(_here(facts, checks)) if c.runs), None)
    if best is None or any(check.blocks and check.purpose == "base" for check in checks):
        return None
    precision = "fp16" if best.runtime.startswith("tensorrt") else "int8"
    return Command(
        f"build --{precision} --runtime {best.runtime}",
        usable=not lacks,
        lacks=lacks,
        why=f"{best.runtime}, {best.reason}",
    )


def _here(facts: SystemFacts, checks: tuple[Check, ...]) -> Here:
    """What the doctor found, as the choice of a runtime wants it."""
    names = {"tensorrt-rtx": "tensorrt_rtx", "openvino": "openvino"}
    modules = {module for name, module in names.items() if facts.has(name)}
    if facts.tensorrt:
        modules.add("tensorrt")
    if not facts.library("onnxruntime").error:
        modules.add("onnxruntime")
    if facts.has("cuda-bindings") or facts.has("cuda-python"):
        modules.add("cuda.bindings")
    if facts.has("pycuda"):
        modules.add("pycuda")
    obstacles = any(check.blocks and check.purpose == "gpu" for check in checks)
    return Here(
        modules=frozenset(modules),
        gpu=bool(facts.gpus) and not obstacles,
        x86=facts.architecture == "x86_64",
    )
