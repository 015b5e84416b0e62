"""Facts about this machine for the doctor, gathered so that nothing broken can take it down.

A library is asked in a process of its own: an import can raise, hang on a driver, or end the
process (an instruction the processor lacks, an extension built for another NumPy). Large
libraries are only looked up in the metadata of their distributions.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.cameras import Camera, cameras
from edgeseg.machine import Gpu, gpus, read_text, versions

PROBE_SECONDS = 20.0

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
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
    "tensorrt-rtx",
    "cuda-python",
)

# Each prints one JSON object; what it cannot learn it leaves out.
NUMPY = "import json, numpy; print(json.dumps({'version': numpy.__version__}))"
OPENCV = """
import json, cv2
print(json.dumps({"version": cv2.__version__, "file": cv2.__file__,
                  "build": cv2.getBuildInformation()}))
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
CUDA = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
count, version = ctypes.c_int(), ctypes.c_int()
status = cuda.cuInit(0)
if status == 0:
    cuda.cuDeviceGetCount(ctypes.byref(count))
cuda.cuDriverGetVersion(ctypes.byref(version))
names = []
for index in range(count.value):
    device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(text, 256, device)
    names.append(text.value.decode(errors="replace"))
print(json.dumps({"status": status, "version": version.value, "devices": names}))
"""


@dataclass(frozen=True)
class Probed:
    """What a library told, or the last line of how it failed."""

    told: dict[str, object] = field(default_factory=dict)
    error: str = ""

    @property
    def version(self) -> str:
        """The version it told, empty if none."""
        return str(self.told.get("version", ""))


@dataclass(frozen=True)
class SystemFacts:
    """All that the doctor decides on; a recorded one stands for a machine in tests.

    Attributes:
        distributions: Installed distributions among :data:`PACKAGES`, name → version.
        libraries: ``numpy``, ``opencv``, ``onnxruntime``, ``native``, ``cuda`` → what each told.
        tegra_release: ``/etc/nv_tegra_release`` of a Jetson, else empty.
        system_opencv: Folder of an OpenCV that belongs to the system's Python, else empty.
    """

    python: str
    architecture: str = "x86_64"
    virtual_environment: bool = True
    system_site_packages: bool = False
    distributions: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, Probed] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    board: str = ""
    tegra_release: str = ""
    system_opencv: str = ""
    gst_inspect: bool = False
    display: bool = False
    cameras: tuple[Camera, ...] = ()
    edgeseg_version: str = ""


def probe(timeout: float = PROBE_SECONDS) -> SystemFacts:
    """Ask this machine; takes about as long as its slowest import, and never raises for one.

    Args:
        timeout: Seconds after which a library that does not answer counts as hung.
    """
    scripts = {
        "numpy": NUMPY,
        "opencv": OPENCV,
        "onnxruntime": ONNXRUNTIME,
        "native": NATIVE,
        "cuda": CUDA,
    }
    return SystemFacts(
        python=platform.python_version(),
        architecture=platform.machine(),
        virtual_environment=sys.prefix != sys.base_prefix,
        system_site_packages=_sees_system_packages(Path(sys.prefix)),
        distributions=versions(PACKAGES),
        libraries=ask(scripts, timeout),
        gpus=gpus(),
        board=read_text(Path("/proc/device-tree/model")).rstrip("\0\n"),
        tegra_release=read_text(Path("/etc/nv_tegra_release")).split("\n")[0],
        system_opencv=_system_opencv(),
        gst_inspect=shutil.which("gst-inspect-1.0") is not None,
        display=bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        cameras=cameras(),
        edgeseg_version=_own_version(),
    )


def ask(scripts: dict[str, str], timeout: float) -> dict[str, Probed]:
    """Run each script in a Python of its own, all at once; what one does harms no other."""
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


def _sees_system_packages(prefix: Path) -> bool:
    settings = read_text(prefix / "pyvenv.cfg").lower()
    return bool(re.search(r"include-system-site-packages\s*=\s*true", settings))


def _system_opencv() -> str:
    """Where Debian, Ubuntu and JetPack put OpenCV for the system's Python."""
    for pattern in ("python3/dist-packages/cv2*", "python3.*/dist-packages/cv2*"):
        for found in sorted(Path("/usr/lib").glob(pattern)):
            return str(found)
    return ""


def _own_version() -> str:
    try:
        return importlib.metadata.version("edgeseg")
    except importlib.metadata.PackageNotFoundError:
        return ""
