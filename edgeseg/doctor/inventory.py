"""List what is installed and works, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from edgeseg import __version__
from edgeseg.doctor.check import Check, Purpose
from edgeseg.doctor.facts import CameraFacts, SystemFacts
from edgeseg.doctor.jetpack import dla_in, jetson_name
from edgeseg.doctor.rules.opencv import feature
from edgeseg.doctor.rules.sources import is_raw

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
