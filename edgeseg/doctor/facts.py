"""Facts about a machine for the doctor, as a document that can be saved and sent.

A recorded description stands for its machine, in a test or in a bug report. It names no host,
no user, no serial number and no home folder (:func:`anonymous`).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from edgeseg.artifacts.documents import Document, load
from edgeseg.machine import expanded

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

_HOME = re.compile(r"(?:/home/[^/\s\"']+|/Users/[^/\s\"']+|/root)(?![^/\s\"':,;)\]])")


class Probed(Document):
    """Answer of a library that was probed, or the last line of its error."""

    told: dict[str, JsonValue] = Field(default_factory=dict)
    error: str = ""

    @property
    def version(self) -> str:
        """Version of the library; empty if unknown."""
        return str(self.told.get("version", ""))


class GpuFacts(Document):
    """An NVIDIA GPU; ``capability`` as in ``8.7``, ``memory_mib`` None if shared with the CPU."""

    name: str
    capability: str = ""
    memory_mib: int | None = None
    integrated: bool = False


class CameraFacts(Document):
    """A V4L2 device: its modes (``1280x720@30 MJPG``), and whether this user may open it."""

    device: str
    name: str = ""
    readable: bool = True
    modes: tuple[str, ...] = ()


class PowerMode(Document):
    """A power mode listed in ``/etc/nvpmodel.conf``."""

    id: int
    name: str


class JetsonFacts(Document):
    """Facts that only a Jetson has.

    Attributes:
        board: Model name from the device tree.
        release: First line of ``/etc/nv_tegra_release``.
        power_modes: All power modes of ``nvpmodel``.
        power_mode: ``id`` of the active mode; None if unknown.
        clocks_locked: Whether ``jetson_clocks`` holds the processor at its highest clock.
        dla_cores: Number of deep-learning accelerators with a device file.
    """

    board: str = ""
    release: str = ""
    power_modes: tuple[PowerMode, ...] = ()
    power_mode: int | None = None
    clocks_locked: bool | None = None
    dla_cores: int = 0

    @property
    def l4t(self) -> tuple[int, ...]:
        """Release and revision of Jetson Linux: (36, 4, 3); empty where unknown."""
        match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", self.release)
        return tuple(map(int, (match[1], *match[2].split(".")))) if match else ()


class SystemFacts(Document):
    """All facts about a machine that the doctor uses.

    Attributes:
        distributions: Installed Python packages relevant to edgeseg, name → version.
        libraries: ``numpy opencv onnxruntime native cuda kernels`` → its answer.
        gpus: GPUs listed by the CUDA driver.
        listed_gpus: GPUs listed by NVML, even if CUDA does not start.
        nvidia_smi: Error of NVML; empty if it lists GPUs or there is no driver.
        nvidia_pci: Whether an NVIDIA display device is on the PCI bus.
        nvidia_module: Version of the loaded kernel module; empty if none.
        video_group: Whether this user may open devices of the group ``video``.
        system_opencv: Path of OpenCV in the system Python; empty if there is none.
        system_tensorrt: Path of TensorRT in the system Python; empty if there is none.
        gstreamer: Element → whether it is installed; empty without ``gst-inspect-1.0``.
    """

    schema_version: Literal[1] = 1
    edgeseg_version: str = ""
    os: str = ""
    architecture: str = "x86_64"
    cpu: str = ""
    memory_mib: int | None = None
    swap_mib: int | None = None
    container: bool = False
    wsl: bool = False
    python: str
    virtual_environment: bool = True
    system_site_packages: bool = False
    distributions: dict[str, str] = Field(default_factory=dict)
    libraries: dict[str, Probed] = Field(default_factory=dict)
    gpus: tuple[GpuFacts, ...] = ()
    listed_gpus: tuple[str, ...] = ()
    driver: str = ""
    nvidia_smi: str = ""
    nvidia_pci: bool = False
    nvidia_module: str = ""
    nvcc: str = ""
    jetson: JetsonFacts | None = None
    video_group: bool = True
    system_opencv: str = ""
    system_tensorrt: str = ""
    gstreamer: dict[str, bool] = Field(default_factory=dict)
    display: bool = False
    cameras: tuple[CameraFacts, ...] = ()

    def library(self, key: str) -> Probed:
        """Return the answer of a library; one that was not probed counts as failed."""
        return self.libraries.get(key, Probed(error="not asked"))

    def has(self, *distributions: str) -> bool:
        """Whether all of these distributions are installed."""
        return all(name in self.distributions for name in distributions)

    @property
    def opencv_wheels(self) -> tuple[str, ...]:
        """Installed OpenCV packages from pip."""
        return tuple(name for name in OPENCV_PACKAGES if name in self.distributions)

    @property
    def tensorrt(self) -> str:
        """Version of TensorRT from any of its packages; empty if none is installed."""
        names = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
        return next((self.distributions[name] for name in names if self.has(name)), "")

    @property
    def cuda_version(self) -> tuple[int, int] | None:
        """Newest CUDA version that the driver supports, (major, minor); None if unknown."""
        told = self.library("cuda").told.get("version")
        return (told // 1000, told % 1000 // 10) if isinstance(told, int) and told else None


def anonymous(facts: SystemFacts, private: Iterable[str]) -> SystemFacts:
    """Return the facts with home folders and the names in ``private`` masked."""
    names = "|".join(sorted({re.escape(name) for name in private if len(name) > 1}))
    named = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])") if names else None

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            text = _HOME.sub("~", value)
            return named.sub("***", text) if named else text
        if isinstance(value, dict):
            return {key: masked(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [masked(part) for part in value]
        return value

    return SystemFacts.model_validate_json(json.dumps(masked(facts.model_dump())))


def numbers(version: str, count: int = 2) -> tuple[int, ...]:
    """Return the first ``count`` numbers of a version: ``10.3.0`` → (10, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:count])


def record(facts: SystemFacts, path: Path) -> None:
    """Write the facts to a file, without host name, user name and home folder.

    Raises:
        UsageError: The folder cannot be written.
    """
    host = platform.node()
    private = {host, host.partition(".")[0], expanded("~").name}
    with contextlib.suppress(OSError, KeyError):  # The user has no name, as in some containers.
        private.add(getpass.getuser())
    anonymous(facts, private - {"root"}).save(path)


def read(path: Path) -> SystemFacts:
    """Read the facts about a recorded machine.

    Raises:
        UsageError: There is no such file.
        ArtifactError: The file is not such a document, or has another version.
    """
    return load(SystemFacts, path)


@dataclass(frozen=True)
class JetPack:
    """A JetPack release; ``tensorrt`` is None if its documents name no version."""

    name: str
    cuda: tuple[int, int]
    python: tuple[int, int]
    tensorrt: tuple[int, int] | None


_FIVE, _SIX, _SEVEN = (3, 8), (3, 10), (3, 12)
# From these documents, and not checked on a Jetson:
# - JetPack ↔ Jetson Linux: https://developer.nvidia.com/embedded/jetpack-archive
# - 6.0 (CUDA 12.2, TensorRT 8.6, OpenCV 4.8): RidgeRun, "NVIDIA Jetpack 6 Components"
# - 6.1, 6.2 (CUDA 12.6, TensorRT 10.3): https://pytorch.org/TensorRT/getting_started/jetpack.html
# - 7 (CUDA 13.0, from 7.2 13.2 and Orin too): TensorRT Edge-LLM, "Official Support Matrix"
# - DLA: TensorRT 11.4.1, "Working with DLA" and "Migrating from 10.x to 11.x on Jetson/JetPack"
RELEASES: dict[tuple[int, ...], JetPack] = {
    (35,): JetPack("5", (11, 4), _FIVE, (8, 5)),
    (35, 1): JetPack("5.0.2", (11, 4), _FIVE, (8, 4)),
    (35, 4, 1): JetPack("5.1.2", (11, 4), _FIVE, (8, 5)),
    (36,): JetPack("6", (12, 6), _SIX, (10, 3)),
    (36, 3): JetPack("6.0", (12, 2), _SIX, (8, 6)),
    (36, 4, 0): JetPack("6.1", (12, 6), _SIX, (10, 3)),
    (36, 4, 3): JetPack("6.2", (12, 6), _SIX, (10, 3)),
    (36, 4, 4): JetPack("6.2.1", (12, 6), _SIX, (10, 3)),
    (38,): JetPack("7", (13, 0), _SEVEN, (10, 13)),
    (38, 2): JetPack("7.0", (13, 0), _SEVEN, (10, 13)),
    (38, 4): JetPack("7.1", (13, 0), _SEVEN, None),
    (39,): JetPack("7.2", (13, 2), _SEVEN, None),
}
"""Jetson Linux (L4T) version prefix → JetPack; the longest match wins."""


def jetpack(jetson: JetsonFacts) -> JetPack | None:
    """Return the JetPack release of a Jetson; None if it is not listed."""
    release = jetson.l4t
    prefixes = (release[:count] for count in range(len(release), 0, -1))
    return next((RELEASES[prefix] for prefix in prefixes if prefix in RELEASES), None)


def jetson_name(jetson: JetsonFacts) -> str:
    """Describe a Jetson: ``JetPack 6.2 (L4T 36.4.3), NVIDIA Jetson …``."""
    known = jetpack(jetson)
    release = ".".join(map(str, jetson.l4t))
    name = f"JetPack {known.name}" if known else "an unknown JetPack"
    return f"{name} (L4T {release})" + (f", {jetson.board}" if jetson.board else "")


def dla_in(tensorrt: str) -> bool:
    """Whether this TensorRT supports the DLA of a Jetson: up to 10.7, and from 11.4.1."""
    version = numbers(tensorrt, 3)
    return version[:2] <= (10, 7) or version >= (11, 4, 1)


def python_of(facts: SystemFacts) -> tuple[int, int] | None:
    """Return the Python version that the modules of JetPack were built for."""
    known = jetpack(facts.jetson) if facts.jetson else None
    return known.python if known else None
