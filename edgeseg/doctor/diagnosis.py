"""Diagnose a machine from its facts.

:func:`examine` uses nothing but :class:`edgeseg.doctor.facts.SystemFacts`, so it also works on
the recorded description of another machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeseg import __version__
from edgeseg.doctor.check import Check, Command, Examination, Purpose
from edgeseg.doctor.facts import CameraFacts, SystemFacts, dla_in, jetson_name
from edgeseg.doctor.probe import probe
from edgeseg.doctor.rules import RULES, rule_name
from edgeseg.doctor.rules.video import feature, is_raw

NAMES: dict[str, tuple[str, Purpose]] = {
    "torch": ("PyTorch", "train"),
    "kornia": ("Kornia", "train"),
    "safetensors": ("safetensors", "train"),
    "onnxscript": ("ONNX Script", "train"),
    "onnx": ("ONNX", "build"),
    "openvino": ("OpenVINO", "cpu"),
    "tensorrt-rtx": ("TensorRT-RTX", "gpu"),
    "cuda-bindings": ("cuda-python", "gpu"),
    "pycuda": ("PyCUDA", "gpu"),
    "av": ("PyAV", "network"),
    "starlette": ("Starlette", "web"),
    "prometheus-client": ("Prometheus client", "web"),
    "paho-mqtt": ("Eclipse Paho", "network"),
    "matplotlib": ("Matplotlib", "report"),
    "jinja2": ("Jinja", "report"),
    "ray": ("Ray", "scale"),
}
"""Distribution → display name and purpose."""


def machine_name(facts: SystemFacts) -> str:
    """Describe the machine in one line: board or processor, GPU, system, Python."""
    place = "WSL, " if facts.wsl else "container, " if facts.container else ""
    hardware = jetson_name(facts.jetson) if facts.jetson else facts.cpu or facts.architecture
    gpus = ", ".join(gpu.name for gpu in facts.gpus if not gpu.integrated)
    python = f"Python {facts.python}"
    return " · ".join(filter(None, (hardware, gpus, f"{place}{facts.os}".strip(" ,"), python)))


def inventory(facts: SystemFacts) -> Iterator[Check]:
    """Return the checks, grouped by purpose in order of first appearance."""
    yield _ok("Python", _python(facts))
    yield _ok("edgeseg", facts.edgeseg_version or f"{__version__}, from a source folder")
    if not facts.library("numpy").error:
        yield _ok("NumPy", facts.library("numpy").version)
    if not facts.library("opencv").error:
        yield _ok("OpenCV", _opencv(facts))
    if not facts.library("onnxruntime").error:
        yield _ok("ONNX Runtime", _onnxruntime(facts), "cpu")
    if facts.library("native").told.get("available"):
        yield _ok("Native kernels", f"level {facts.library('native').told.get('level')}", "cpu")
    for name, (title, purpose) in NAMES.items():
        if version := facts.distributions.get(name):
            yield _ok(title, version, purpose)
    if facts.tensorrt:
        yield _ok("TensorRT", facts.tensorrt, "gpu")
    yield from _gpu(facts)
    if facts.jetson:
        yield _ok("Jetson", jetson_name(facts.jetson))
        yield from _dla(facts)
    yield from _cameras(facts)


def _ok(name: str, found: str, purpose: Purpose = "base") -> Check:
    return Check(name, "ok", found, purpose=purpose)


def _python(facts: SystemFacts) -> str:
    place = "virtual environment" if facts.virtual_environment else "not a virtual environment"
    if facts.system_site_packages:
        place += " that sees the system's packages"
    return f"{facts.python} on {facts.architecture}, {place}"


def _opencv(facts: SystemFacts) -> str:
    probed = facts.library("opencv")
    of_system = f"the system ({probed.told.get('file', 'unknown place')})"
    origin = " and ".join(facts.opencv_wheels) or of_system
    features = (
        f"{title} {feature(facts, key) or 'no'}"
        for title, key in (("GStreamer", "gstreamer"), ("FFmpeg", "ffmpeg"), ("window", "gui"))
    )
    return f"{probed.version} from {origin}; {', '.join(features)}"


def _onnxruntime(facts: SystemFacts) -> str:
    probed = facts.library("onnxruntime")
    told = probed.told.get("providers")
    listed = told if isinstance(told, list) else []
    names = [str(name).removesuffix("ExecutionProvider") for name in listed]
    return f"{probed.version}; {', '.join(names)}" if names else probed.version


def _gpu(facts: SystemFacts) -> Iterator[Check]:
    spoken = facts.cuda_version
    cuda = f"CUDA {spoken[0]}.{spoken[1]}" if spoken else ""
    for gpu in facts.gpus:
        memory = "" if gpu.integrated or not gpu.memory_mib else f"{gpu.memory_mib / 1024:.0f} GiB"
        capability = f"sm_{gpu.capability.replace('.', '')}" if gpu.capability else ""
        driver = f"driver {facts.driver}" if facts.driver else ""
        told = ", ".join(filter(None, (capability, memory, driver, cuda)))
        yield _ok("NVIDIA GPU", f"{gpu.name} ({told})", "gpu")
    kernels = facts.library("kernels").told
    if facts.gpus and kernels.get("fatbin"):
        yield _ok("Frame kernels", "came with this installation", "gpu")
    elif facts.gpus and kernels.get("nvrtc"):
        found = f"compiled at first use by NVRTC {kernels['nvrtc']}"
        yield _ok("Frame kernels", found, "gpu")
    if facts.nvcc:
        found = f"{facts.nvcc}; pip install . compiles the frame kernels with it"
        yield _ok("nvcc", found, "gpu")


def _dla(facts: SystemFacts) -> Iterator[Check]:
    assert facts.jetson is not None
    cores = facts.jetson.dla_cores
    if cores and facts.tensorrt and dla_in(facts.tensorrt):
        options = " or ".join(f"--dla {core}" for core in range(cores))
        yield _ok("DLA", f"{cores} core{'s' if cores > 1 else ''}: {options}", "dla")


def _cameras(facts: SystemFacts) -> Iterator[Check]:
    """Raw sensors of a Jetson, with their usual number for ``nvarguscamerasrc``."""
    readable = [camera for camera in facts.cameras if camera.readable]
    for camera in readable:
        if not is_raw(camera):
            yield _ok("Camera", _camera(camera), "usb")
    sensors = filter(is_raw, readable) if facts.jetson else ()
    for number, sensor in enumerate(sensors):
        yield _ok("CSI sensor", f"{_camera(sensor)}; usually --source csi:{number}", "csi")


def _camera(camera: CameraFacts) -> str:
    """Group modes by format: ``MJPG 1920x1080@30, 1280x720@60; YUYV 640x480@30``."""
    formats: dict[str, list[str]] = {}
    for mode in camera.modes:
        size, _, pixels = mode.partition(" ")
        formats.setdefault(pixels, []).append(size)
    offers = "; ".join(f"{pixels} {', '.join(sizes)}" for pixels, sizes in formats.items())
    label = f"{camera.device} {camera.name}".strip()
    return f"{label}: {offers}" if offers else label


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
    """Return the fastest installed runtime, GPU runtimes first; None if there is none.

    :mod:`edgeseg.engines.choice` decides what ``--runtime auto`` selects, but imports NumPy and
    OpenCV, which may be what is broken. So the order is repeated here, and a test compares the two.
    """
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


RUN = ("numpy", "opencv", "onnxruntime")
LEARN = ("torch", "safetensors", "onnx", "onnxscript")
NEEDS: dict[str, tuple[str, ...]] = {
    "train": ("numpy", "opencv", "torch", "kornia", "safetensors", "matplotlib"),
    "export": (*RUN, *LEARN),
    "calibrate": (*RUN, "onnx"),
    "build": (*RUN, "onnx"),
    "build --runtime openvino": (*RUN, "onnx", "openvino"),
    "build --runtime tensorrt": (*RUN, "onnx", "tensorrt"),
    "build --runtime tensorrt-rtx": (*RUN, "onnx", "tensorrt-rtx"),
    "eval": RUN,
    "infer": RUN,
    "infer --cluster": (*RUN, "ray", "av"),
    "stream": RUN,
    "stream --web": (*RUN, "starlette", "uvicorn", "h11"),
    "stream --metrics": (*RUN, "prometheus-client", "starlette", "uvicorn", "h11"),
    "stream --mqtt": (*RUN, "paho-mqtt"),
    "bench": RUN,
    "bench --report": (*RUN, "matplotlib", "jinja2"),
    "demo": (*RUN, *LEARN, "kornia", "matplotlib", "jinja2"),
}
"""Command → libraries that it requires."""

_STOPS: tuple[Purpose, ...] = ("base", "cpu")
"""Purposes without which edgeseg cannot run any engine."""


def examine(facts: SystemFacts | None = None) -> Examination:
    """Diagnose a machine, by default this one. A broken library never raises."""
    facts = facts or probe()
    checks = (*inventory(facts), *troubles(facts))
    advice = recommended(facts, checks, _lacks(facts, "build"))
    commands = (Command(name, not _lacks(facts, name), _lacks(facts, name)) for name in NEEDS)
    return Examination(
        checks, (*commands, *((advice,) if advice else ())), machine=machine_name(facts)
    )


def troubles(facts: SystemFacts) -> Iterator[Check]:
    """Yield a check for each rule that finds a problem."""
    for purpose, rules in RULES.items():
        if purpose in {"dla", "csi"} and facts.jetson is None:
            continue
        for rule in rules:
            if (trouble := rule(facts)) is not None:
                yield Check(
                    name=rule_name(rule).replace("-", " "),
                    state="missing" if trouble.blocks and purpose in _STOPS else "note",
                    found=trouble.found,
                    hint=trouble.hint,
                    purpose=purpose,
                    rule=rule_name(rule),
                    blocks=trouble.blocks,
                )


def _lacks(facts: SystemFacts, command: str) -> tuple[str, ...]:
    return tuple(key for key in NEEDS[command] if not _usable(facts, key))


def _usable(facts: SystemFacts, key: str) -> bool:
    """Whether a library imports, if that was tried, or else is installed."""
    if key == "tensorrt":
        return bool(facts.tensorrt)
    return not facts.library(key).error if key in RUN else key in facts.distributions
