"""Gather facts about this machine, safely even if a library is broken.

Each library is probed in its own process: an import can raise, hang on a driver, or end the
process (an instruction the processor lacks, an extension built for another NumPy). Large
libraries are only looked up in the metadata of installed packages.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgeseg.doctor.facts import OPENCV_PACKAGES, CameraFacts, GpuFacts, Probed, SystemFacts
from edgeseg.doctor.system import (
    gstreamer_elements,
    in_container,
    jetson,
    may_open_video,
    nvcc,
    nvidia_on_pci,
    system_module,
)
from edgeseg.machine import cpu_model, memory_mib, os_name, read_text, versions
from edgeseg.sources.cameras import cameras, modes

PROBE_SECONDS = 20.0

PACKAGES = (
    *OPENCV_PACKAGES,
    "edgeseg",
    "numpy",
    "pydantic",
    "typer",
    "rich",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "kornia",
    "safetensors",
    "onnx",
    "onnxscript",
    "matplotlib",
    "jinja2",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "cuda-python",
    "cuda-bindings",
    "pycuda",
    "av",
    "starlette",
    "uvicorn",
    "h11",
    "prometheus-client",
    "paho-mqtt",
    "ray",
)

# Each script prints one JSON object and omits what it cannot find out.
NUMPY = "import json, numpy; print(json.dumps({'version': numpy.__version__}))"
OPENCV = r"""
import json, re, cv2
build = cv2.getBuildInformation()
told = {"version": cv2.__version__, "file": cv2.__file__}
for key in ("GStreamer", "FFMPEG", "GUI"):
    match = re.search(rf"^\s*{key}:[ \t]*(\S.*)$", build, re.MULTILINE)
    told[key.lower()] = match[1].strip() if match else ""
print(json.dumps(told))
"""
ONNXRUNTIME = """
import json, onnxruntime
print(json.dumps({"version": onnxruntime.__version__,
                  "providers": onnxruntime.get_available_providers()}))
"""
NATIVE = """
import json
from edgeseg.ops.native import native_available, simd_level
print(json.dumps({"available": native_available(), "level": simd_level()}))
"""
# Attributes 18, 75, 76 of CUdevice_attribute in cuda.h: integrated, capability.
CUDA = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
count, version = ctypes.c_int(), ctypes.c_int()
status = cuda.cuInit(0)
if status == 0:
    cuda.cuDeviceGetCount(ctypes.byref(count))
cuda.cuDriverGetVersion(ctypes.byref(version))
devices = []
for index in range(count.value):
    device, text, size = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(text, 256, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    numbers = []
    for attribute in (18, 75, 76):
        number = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    devices.append({"name": text.value.decode(errors="replace"), "integrated": bool(numbers[0]),
                    "capability": f"{numbers[1]}.{numbers[2]}", "memory_mib": size.value >> 20})
print(json.dumps({"status": status, "version": version.value, "devices": devices}))
"""
NVML = """
import json
from edgeseg.machine import nvml_devices
devices, failure = nvml_devices()
gpus = [device.gpu for device in devices]
print(json.dumps({"names": [gpu.name for gpu in gpus], "failure": failure,
                  "driver": next((gpu.driver for gpu in gpus), "")}))
"""
KERNELS = """
import json
from edgeseg.engines.cuda.kernels import shipped
told = {"fatbin": shipped() is not None}
try:
    from cuda.bindings import nvrtc
    told["nvrtc"] = "{1}.{2}".format(*nvrtc.nvrtcVersion())
except (ImportError, OSError, RuntimeError) as error:
    told["no_nvrtc"] = " ".join(str(error).split())[:150]
print(json.dumps(told))
"""
SCRIPTS = {
    "numpy": NUMPY,
    "opencv": OPENCV,
    "onnxruntime": ONNXRUNTIME,
    "native": NATIVE,
    "cuda": CUDA,
    "nvml": NVML,
    "kernels": KERNELS,
}


def probe(timeout: float = PROBE_SECONDS) -> SystemFacts:
    """Gather the facts; takes about as long as the slowest import, and a failed one never raises.

    Args:
        timeout: Seconds after which a library that does not answer counts as hung.
    """
    libraries = ask(SCRIPTS, timeout)
    root = Path("/")
    meminfo = read_text(root / "proc/meminfo")
    swap = re.search(r"^SwapTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    nvml = libraries.pop("nvml")
    told: dict[str, Any] = dict(nvml.told)
    return SystemFacts(
        edgeseg_version=_own_version(),
        os=os_name(read_text(root / "etc/os-release")) or platform.system(),
        architecture=platform.machine(),
        cpu=cpu_model(read_text(root / "proc/cpuinfo")) or "",
        memory_mib=memory_mib(meminfo),
        swap_mib=int(swap[1]) // 1024 if swap else None,
        container=in_container(root),
        wsl="microsoft" in read_text(root / "proc/sys/kernel/osrelease").lower(),
        python=platform.python_version(),
        virtual_environment=sys.prefix != sys.base_prefix,
        system_site_packages=_sees_system_packages(Path(sys.prefix)),
        distributions=versions(PACKAGES),
        libraries=libraries,
        gpus=gpus_of(libraries["cuda"]),
        listed_gpus=tuple(told.get("names", ())),
        driver=told.get("driver", ""),
        nvidia_smi=told.get("failure", nvml.error),
        nvidia_pci=nvidia_on_pci(root),
        nvidia_module=read_text(root / "sys/module/nvidia/version").strip(),
        nvcc=nvcc(),
        jetson=jetson(root),
        video_group=may_open_video(),
        system_opencv=system_module("cv2"),
        system_tensorrt=system_module("tensorrt"),
        gstreamer=gstreamer_elements(),
        display=bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        cameras=cameras_here(),
    )


def ask(scripts: dict[str, str], timeout: float) -> dict[str, Probed]:
    """Run each script in its own Python process, in parallel, and collect the answers."""
    children = {
        name: subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name, script in scripts.items()
    }
    deadline = time.monotonic() + timeout
    return {name: _answer(child, deadline) for name, child in children.items()}


def _answer(child: subprocess.Popen[str], deadline: float) -> Probed:
    try:
        out, err = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Probed(error="did not answer in time")
    if child.returncode < 0:
        return Probed(error=f"ended the process with signal {-child.returncode}")
    if child.returncode > 0:
        lines = err.strip().splitlines()
        return Probed(error=lines[-1] if lines else f"ended with status {child.returncode}")
    try:
        told = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Probed(error="gave no readable answer")
    return Probed(told=told if isinstance(told, dict) else {})


def gpus_of(cuda: Probed) -> tuple[GpuFacts, ...]:
    """Return the GPUs in the answer to :data:`CUDA`."""
    devices = cuda.told.get("devices")
    listed = devices if isinstance(devices, list) else []
    return tuple(GpuFacts.model_validate(device) for device in listed)


def cameras_here() -> tuple[CameraFacts, ...]:
    """List the V4L2 cameras and their modes, without starting to stream."""
    found = []
    for camera in cameras():
        offered: tuple[str, ...] = ()
        with contextlib.suppress(OSError):  # Not permitted, or just unplugged.
            offered = tuple(map(str, modes(camera.device)))
        found.append(
            CameraFacts(
                device=camera.device, name=camera.name, readable=camera.readable, modes=offered
            )
        )
    return tuple(found)


def _sees_system_packages(prefix: Path) -> bool:
    settings = read_text(prefix / "pyvenv.cfg").lower()
    return bool(re.search(r"include-system-site-packages\s*=\s*true", settings))


def _own_version() -> str:
    try:
        return importlib.metadata.version("edgeseg")
    except importlib.metadata.PackageNotFoundError:
        return ""
