"""What the doctor decides on: a machine, described so that it can be written down and sent.

A recorded description stands for its machine, in a test or in a bug report. It names no host,
no user, no serial number and no home folder (:func:`anonymous`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, JsonValue

from edgeseg.documents import Document

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

_HOME = re.compile(r"(?:/home/[^/\s\"']+|/Users/[^/\s\"']+|/root)(?![^/\s\"':,;)\]])")


class Probed(Document):
    """What a library told when it was asked, or the last line of how it failed."""

    told: dict[str, JsonValue] = Field(default_factory=dict)
    error: str = ""

    @property
    def version(self) -> str:
        """The version it told, empty if none."""
        return str(self.told.get("version", ""))


class GpuFacts(Document):
    """An NVIDIA GPU; ``capability`` as in ``8.7``, ``memory_mib`` None where it is the board's."""

    name: str
    capability: str = ""
    memory_mib: int | None = None
    integrated: bool = False


class CameraFacts(Document):
    """A V4L2 device: what it offers as ``1280x720@30 MJPG``, and whether this user may open it."""

    device: str
    name: str = ""
    readable: bool = True
    modes: tuple[str, ...] = ()


class PowerMode(Document):
    """An entry of ``/etc/nvpmodel.conf``."""

    id: int
    name: str


class JetsonFacts(Document):
    """What only a Jetson has.

    Attributes:
        board: Its model, as the device tree names it.
        release: First line of ``/etc/nv_tegra_release``.
        power_modes: All that ``nvpmodel`` knows.
        power_mode: The ``id`` of the one in use, None where it does not tell.
        clocks_locked: Whether ``jetson_clocks`` holds the processor at its highest clock.
        dla_cores: Deep-learning accelerators that have a device file.
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
    """All that the doctor decides on.

    Attributes:
        distributions: Installed Python packages that matter here, name → version.
        libraries: ``numpy opencv onnxruntime native cuda kernels`` → what each told.
        gpus: As the CUDA driver lists them.
        listed_gpus: As ``nvidia-smi`` lists them, whether or not CUDA starts.
        nvidia_smi: How ``nvidia-smi`` failed, empty where it did not or is not there.
        nvidia_pci: An NVIDIA display device is on the PCI bus.
        nvidia_module: Version of the loaded kernel module, empty for none.
        nvidia_libraries: Version of the driver's libraries, where ``nvidia-smi`` told.
        video_group: This user may open what belongs to the group ``video``.
        system_opencv: Folder or file of an OpenCV of the system's Python, else empty.
        system_tensorrt: The same of TensorRT.
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
        """What a library told; one that was not asked counts as failed."""
        return self.libraries.get(key, Probed(error="not asked"))

    def has(self, *distributions: str) -> bool:
        """Whether all of these distributions are installed."""
        return all(name in self.distributions for name in distributions)

    @property
    def opencv_wheels(self) -> tuple[str, ...]:
        """Those of pip's OpenCV packages that are installed."""
        return tuple(name for name in OPENCV_PACKAGES if name in self.distributions)

    @property
    def tensorrt(self) -> str:
        """Version of TensorRT, by whichever of its packages; empty for none."""
        names = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
        return next((self.distributions[name] for name in names if self.has(name)), "")

    @property
    def cuda_version(self) -> tuple[int, int] | None:
        """The newest CUDA that the driver speaks."""
        told = self.library("cuda").told.get("version")
        return (told // 1000, told % 1000 // 10) if isinstance(told, int) and told else None


def anonymous(facts: SystemFacts, private: Iterable[str]) -> SystemFacts:
    """The facts without home folders, and with each of ``private`` (names) blotted out."""
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
    """The leading numbers of a version: ``10.3.0`` → (10, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:count])
