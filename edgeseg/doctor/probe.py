"""Gather facts about this machine, safely even if a library is broken.

Each library is probed in its own process: an import can raise, hang on a driver, or end the
process (an instruction the processor lacks, an extension built for another NumPy). Large
libraries are only looked up in the metadata of installed packages.

Readers of files take the root folder as argument, for tests, and return an empty value if a
fact is unavailable. Paths of Jetsons are from NVIDIA's Jetson Linux Developer Guide ("Platform
Power and Performance") and from listings of ``/dev`` in public reports; none was read on one here.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgeseg.doctor.facts import (
    OPENCV_PACKAGES,
    CameraFacts,
    GpuFacts,
    JetsonFacts,
    PowerMode,
    Probed,
    SystemFacts,
)
from edgeseg.machine import cpu_model, memory_mib, os_name, read_text, versions
from edgeseg.sources.v4l2 import cameras, modes

_SECONDS = 10.0

ELEMENTS = (
    "nvarguscamerasrc",
    "nvvidconv",
    "nvv4l2decoder",
    "videoconvert",
    "appsink",
    "rtspsrc",
    "h264parse",
    "avdec_h264",
)
"""GStreamer elements of the ``csi:`` pipelines of edgeseg and of typical RTSP pipelines."""


def nvidia_on_pci(root: Path) -> bool:
    """Whether an NVIDIA display device is on the PCI bus."""
    return any(
        read_text(device / "vendor").strip() == "0x10de"
        and read_text(device / "class").startswith("0x03")  # a display controller
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def jetson(root: Path) -> JetsonFacts | None:
    """Describe a Jetson, recognised by its release file; None on other machines."""
    release = read_text(root / "etc/nv_tegra_release").split("\n")[0]
    if not release:
        return None
    config = read_text(root / "etc/nvpmodel.conf")
    listed = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", config, re.MULTILINE)
    return JetsonFacts(
        board=read_text(root / "proc/device-tree/model").rstrip("\0\n"),
        release=release,
        power_modes=tuple(PowerMode(id=int(number), name=name) for number, name in listed),
        power_mode=_power_mode(_output("nvpmodel", "-q")),
        clocks_locked=_clocks_locked(root),
        dla_cores=len([*(root / "dev").glob("nvhost-ctrl-nvdla[0-9]")]),
    )


def _power_mode(told: str) -> int | None:
    """Parse ``NV Power Mode: MAXN`` and the id on the next line."""
    match = re.search(r"NV Power Mode:[^\n]*\n\s*(\d+)", told)
    return int(match[1]) if match else None


def _clocks_locked(root: Path) -> bool | None:
    """Whether clocks are locked: ``jetson_clocks`` raises the minimum clock to the maximum."""
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    lowest, highest = (
        read_text(policy / f"scaling_{name}_freq").strip() for name in ("min", "max")
    )
    return lowest == highest if lowest and highest else None


def in_container(root: Path) -> bool:
    """Whether this is a container: Docker and Podman leave a file, Kubernetes a variable."""
    files = (root / ".dockerenv", root / "run/.containerenv")
    return any(file.exists() for file in files) or "KUBERNETES_SERVICE_HOST" in os.environ


def may_open_video() -> bool:
    """Whether this user is root or in the group ``video``; True if there is no such group."""
    try:
        return os.geteuid() == 0 or grp.getgrnam("video").gr_gid in os.getgroups()
    except KeyError:
        return True


def nvcc() -> str:
    """Return the version of the CUDA compiler; empty if there is none."""
    found = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    match = re.search(r"release ([\d.]+)", _output(found, "--version"))
    return match[1] if match else ""


def system_module(name: str, lib: Path = Path("/usr/lib")) -> str:
    """Return the path of a module in the system Python; empty if there is none."""
    for pattern in (f"python3/dist-packages/{name}*", f"python3.*/dist-packages/{name}*"):
        for found in sorted(lib.glob(pattern)):
            if re.fullmatch(rf"{name}(\.cpython-\w+[\w.-]*\.so|\.so)?", found.name):
                return str(found)
    return ""


def gstreamer_elements() -> dict[str, bool]:
    """Return for each of :data:`ELEMENTS` if it is installed; empty without ``gst-inspect-1.0``.

    The first call after an update scans all plugins and may time out. That element is then
    omitted, not reported as missing.
    """
    inspect = shutil.which("gst-inspect-1.0")
    found = {}
    for name in ELEMENTS if inspect else ():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            command = [str(inspect), "--exists", name]
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
            found[name] = done.returncode == 0
    return found


def _output(*command: str) -> str:
    """Return the output of a command; empty if it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


PROBE_SECONDS = 20.0

PACKAGES = (
    *OPENCV_PACKAGES,
    "edgeseg",
    "numpy",
    "pydantic",
    "typer",
    "rich",
    "simplejpeg",
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
