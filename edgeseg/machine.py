"""Describe this machine for reports and ``edgeseg doctor``, from kernel files and NVML.

Every reader returns None or an empty value if the information is not available, so that a missing
file does not stop a benchmark.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that decide the speed of float, int8 and bf16 kernels (x86-64, then Arm)."""


def expanded(path: str) -> Path:
    """Replace a leading ``~`` or ``~USER``; kept where there is no such user, as in ``~$a.mp4``."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises then


PACKAGES = (
    "edgeseg",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "onnx",
    "torch",
    "tensorrt-rtx",
    "tensorrt",
    "cuda-python",
)
"""Distributions whose versions are reported."""


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as reported by NVML."""

    name: str
    driver: str = ""
    memory_mib: int | None = None
    compute_capability: str = ""


@dataclass(frozen=True)
class Machine:
    """Hardware and software of a machine, without host or user names."""

    cpu: str
    cores: int
    usable_cores: float
    cpu_flags: tuple[str, ...]
    memory_mib: int | None
    architecture: str
    os: str
    kernel: str
    board: str | None = None
    governor: str | None = None
    temperature_c: float | None = None
    gpus: tuple[Gpu, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON types."""
        return asdict(self) | {"cpu_flags": list(self.cpu_flags), "gpus": [*map(asdict, self.gpus)]}


def describe(root: Path = Path("/")) -> Machine:
    """Describe this machine.

    Args:
        root: Folder that contains ``proc``, ``sys`` and ``etc``; for tests.
    """
    cpuinfo = read_text(root / "proc/cpuinfo")
    board = read_text(root / "proc/device-tree/model").rstrip("\0\n") or None
    return Machine(
        cpu=cpu_model(cpuinfo) or board or platform.processor() or "unknown",
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(root),
        cpu_flags=cpu_flags(cpuinfo),
        memory_mib=memory_mib(read_text(root / "proc/meminfo")),
        architecture=platform.machine(),
        os=os_name(read_text(root / "etc/os-release")) or platform.system(),
        kernel=platform.release(),
        board=board,
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        or None,
        temperature_c=temperature_c(root / "sys/class/thermal"),
        gpus=gpus(),
        versions={"python": platform.python_version()} | l4t_version(root) | versions(PACKAGES),
    )


def read_text(path: Path) -> str:
    """Read a kernel or configuration file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """Read a kernel file that holds one integer; None if it does not."""
    text = read_text(path).strip()
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else None


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of installed distributions, from metadata without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def l4t_version(root: Path = Path("/")) -> dict[str, str]:
    """``{"l4t": "36.4.3"}`` on a Jetson, whose drivers come with it and not as packages."""
    release = read_text(root / "etc/nv_tegra_release")
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return {"l4t": f"{match[1]}.{match[2]}"} if match else {}


def cpu_model(cpuinfo: str) -> str | None:
    """The marketing name in ``/proc/cpuinfo``; Arm kernels give none."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(match[1].split()) if match else None


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Those of :data:`CPU_FLAGS` that ``/proc/cpuinfo`` lists, in that order."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(match[1].split()) if match else set()
    return tuple(flag for flag in CPU_FLAGS if flag in present)


def usable_cores(root: Path = Path("/")) -> float:
    """Cores this process may use: its affinity, and the quota of its control group."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = re.match(r"(\d+) (\d+)", read_text(root / "sys/fs/cgroup/cpu.max"))
    return min(allowed, round(int(quota[1]) / int(quota[2]), 2)) if quota else allowed


def physical_cores(root: Path = Path("/")) -> int:
    """Whole cores this process may use, at least 1; hardware threads of a core count once."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {read_text(root / topology.format(cpu)) or cpu for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), int(usable_cores(root))))


def spare_memory_mib(root: Path = Path("/")) -> int:
    """Memory in MiB left to this process: the machine's, or its control group's if that is less."""
    free = re.search(r"^MemAvailable:\s+(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    left = [int(free[1]) // 1024] if free else []
    limit = read_number(root / "sys/fs/cgroup/memory.max")
    used = read_number(root / "sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        left.append((limit - used) >> 20)
    return min(left, default=0)


def memory_mib(meminfo: str) -> int | None:
    """``MemTotal`` of ``/proc/meminfo`` in MiB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) // 1024 if match else None


def os_name(os_release: str) -> str | None:
    """``PRETTY_NAME`` of ``/etc/os-release``."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', os_release, re.MULTILINE)
    return match[1] if match else None


def temperature_c(thermal: Path) -> float | None:
    """Return the temperature of the hottest thermal zone in °C, None if there is none."""
    found = [read_number(zone) for zone in thermal.glob("thermal_zone*/temp")]
    return max((degrees / 1000 for degrees in found if degrees is not None), default=None)


class NvmlDevice:
    """One GPU, queried through NVML, the driver's management library.

    Args:
        nvml: The module ``pynvml``, initialised.
        handle: What it identifies the GPU by.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml = nvml
        self._handle = handle

    def ask(self, query: str, *arguments: int) -> Any:
        """Call ``nvmlDeviceGet`` + ``query``; None where the GPU or its driver does not support it.

        Names and units are those of NVML's API reference. Jetsons support few queries.
        """
        try:
            return getattr(self.nvml, f"nvmlDeviceGet{query}")(self._handle, *arguments)
        except self.nvml.NVMLError:
            return None

    @property
    def name(self) -> str:
        """``NVIDIA H100 80GB HBM3``."""
        return self.ask("Name") or "NVIDIA GPU"

    @property
    def gpu(self) -> Gpu:
        """Description for reports. Memory that is shared with the CPU is not reported."""
        memory, capability = self.ask("MemoryInfo"), self.ask("CudaComputeCapability")
        return Gpu(
            self.name,
            self.nvml.nvmlSystemGetDriverVersion(),
            memory.total >> 20 if memory else None,
            "{}.{}".format(*capability) if capability else "",
        )


def nvml_devices() -> tuple[tuple[NvmlDevice, ...], str]:
    """List the NVIDIA GPUs; without any, the driver's error follows, empty if there is no driver.

    NVML counts how often it was initialised, and it stays so until the process ends.
    """
    try:
        import pynvml
    except ImportError:  # ``edgeseg doctor`` also runs where packages are missing.
        return (), ""
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return tuple(NvmlDevice(pynvml, handle) for handle in handles), ""
    except pynvml.NVMLError as error:
        absent = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return (), "" if absent else str(error)


def gpus() -> tuple[Gpu, ...]:
    """List the GPUs that NVML reports; empty without a driver or a GPU."""
    return tuple(device.gpu for device in nvml_devices()[0])


def summary(machine: Machine) -> str:
    """One line: processor, cores, memory, GPU, system."""
    parts = [
        machine.cpu,
        f"{machine.usable_cores:g} core{'' if machine.usable_cores == 1 else 's'}",
        f"{machine.memory_mib / 1024:.0f} GiB" if machine.memory_mib else "",
        ", ".join(gpu.name for gpu in machine.gpus) or "no GPU",
        machine.os,
    ]
    return " · ".join(filter(None, parts))


def peak_rss_mib() -> float:
    """Peak resident memory of this process in MiB.

    Not ``getrusage``: its ``ru_maxrss`` survives ``exec``, so that a small child of a large
    parent reports the parent's memory.
    """
    return _own_memory_mib("VmHWM")


def rss_mib() -> float:
    """Resident memory of this process in MiB."""
    return _own_memory_mib("VmRSS")


def return_freed_memory() -> None:
    """Return to the system what glibc keeps of freed memory; elsewhere, do nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _own_memory_mib(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0
