"""Rules for the requirements of edgeseg, of engines on the CPU, and of the optional extras."""

from __future__ import annotations

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import SystemFacts, jetpack, numbers

INSTALL_CPU = "pip install 'edgeseg[cpu]'"
OLDEST_PYTHON = (3, 10)

_NEWER = """\
python3 -m pip install uv
uv venv --python 3.12 VENV
uv pip install --python VENV 'edgeseg[cpu]'"""


def python_too_old(facts: SystemFacts) -> Trouble | None:
    """Python is too old (JetPack 5 has 3.8): https://docs.nvidia.com/jetson/jetpack/."""
    if numbers(facts.python) >= OLDEST_PYTHON:
        return None
    found = f"Python {facts.python}, edgeseg needs 3.10 or newer"
    known = jetpack(facts.jetson) if facts.jetson else None
    if known and known.name.startswith("5"):
        return Trouble(
            f"{found}; it is that of JetPack {known.name}, and its TensorRT knows no other",
            "# Orin: flash JetPack 6 or 7, https://developer.nvidia.com/embedded/jetpack\n"
            "# Xavier, which has no newer JetPack: run on the processor, with a Python of its own\n"
            + _NEWER,
            blocks=True,
        )
    return Trouble(found, _NEWER, blocks=True)


def numpy_unusable(facts: SystemFacts) -> Trouble | None:
    """NumPy is missing or does not import."""
    return _unusable(facts, "numpy", "NumPy")


def onnxruntime_unusable(facts: SystemFacts) -> Trouble | None:
    """ONNX Runtime is missing or broken.

    On a Jetson it is installed alone: ``edgeseg[cpu]`` adds an OpenCV that hides JetPack's.
    """
    install = "pip install onnxruntime 'numpy<2'" if facts.jetson else INSTALL_CPU
    return _unusable(facts, "onnxruntime", "ONNX Runtime", install)


def _unusable(
    facts: SystemFacts, key: str, name: str, install: str = INSTALL_CPU
) -> Trouble | None:
    probed = facts.library(key)
    if not probed.error:
        return None
    version = facts.distributions.get(key)
    if version is None:
        return Trouble(f"{name} is not usable: {probed.error}", install, blocks=True)
    return Trouble(
        f"{name} {version} is installed but does not import: {probed.error}",
        f"pip install --force-reinstall {key}",
        blocks=True,
    )


def native_kernels_absent(facts: SystemFacts) -> Trouble | None:
    """The C++ kernels are missing; NumPy and OpenCV replace them, several times slower."""
    probed = facts.library("native")
    unasked = facts.library("numpy").error or facts.library("opencv").error
    if probed.told.get("available") or unasked:  # They are imported with these.
        return None
    why = f" ({probed.error})" if probed.error else ""
    return Trouble(
        f"the native kernels are not in use{why}: NumPy and OpenCV compute the same values, slower",
        "sudo apt-get install g++\npip install --force-reinstall --no-deps .   # in the sources",
    )


def _absent(facts: SystemFacts, needs: tuple[str, ...], extra: str) -> Trouble | None:
    missing = [name for name in needs if name not in facts.distributions]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return Trouble(
        f"{', '.join(missing)} {verb} not installed", f"pip install 'edgeseg[{extra}]'", blocks=True
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
