"""Rules for the optional extras of the package."""

from __future__ import annotations

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import SystemFacts


def _absent(facts: SystemFacts, needs: tuple[str, ...], extra: str) -> Trouble | None:
    missing = [name for name in needs if name not in facts.distributions]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return Trouble(
        f"{', '.join(missing)} {verb} not installed",
        f"pip install 'edgeseg[{extra}]'",
        blocks=True,
    )


def training_absent(facts: SystemFacts) -> Trouble | None:
    """PyTorch or another library for training is missing."""
    needs = ("torch", "kornia", "safetensors", "onnx", "onnxscript", "matplotlib")
    return _absent(facts, needs, "train")


def onnx_absent(facts: SystemFacts) -> Trouble | None:
    """ONNX, which calibrating and building need, is missing."""
    return _absent(facts, ("onnx",), "build")


def openvino_absent(facts: SystemFacts) -> Trouble | None:
    """OpenVINO is missing on x86-64; elsewhere it was not compared with ONNX Runtime."""
    if facts.architecture != "x86_64" or facts.has("openvino"):
        return None
    return Trouble(
        "OpenVINO is not installed, in INT8 the faster runtime of x86-64 processors",
        "pip install 'edgeseg[openvino]'",
    )


def web_absent(facts: SystemFacts) -> Trouble | None:
    """The libraries for ``edgeseg stream --web`` are missing."""
    return _absent(facts, ("starlette", "uvicorn", "h11"), "web")


def metrics_absent(facts: SystemFacts) -> Trouble | None:
    """The library for ``edgeseg stream --metrics`` is missing; ``--web`` works without it."""
    if facts.has("prometheus-client"):
        return None
    return Trouble(
        "prometheus-client is not installed: --metrics is not available",
        "pip install 'edgeseg[metrics]'",
    )


def report_absent(facts: SystemFacts) -> Trouble | None:
    """The libraries for ``--report`` and training curves are missing."""
    return _absent(facts, ("matplotlib", "jinja2"), "report")
