"""Query the kernel and system tools: driver, Jetson, GStreamer, groups.

Readers of files take the root folder as argument, for tests, and return an empty value if a
fact is unavailable. Paths of Jetsons are from NVIDIA's Jetson Linux Developer Guide ("Platform
Power and Performance") and from listings of ``/dev`` in public reports; none was read on one here.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
import subprocess
from pathlib import Path

from edgeseg.doctor.facts import JetsonFacts, PowerMode
from edgeseg.machine import read_text

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
