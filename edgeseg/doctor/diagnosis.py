"""What this machine can do, what is missing, and the command that mends it.

:func:`examine` decides from :class:`edgeseg.doctor.probe.SystemFacts` alone, so a recorded
description of a machine is as good as the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgeseg import __version__
from edgeseg.doctor.probe import OPENCV_PACKAGES, Probed, SystemFacts, probe

State = Literal["ok", "note", "missing"]

INSTALL_CPU = "pip install 'edgeseg[cpu]'"
INSTALL_TRAIN = "pip install 'edgeseg[train]'"
INSTALL_BUILD = "pip install 'edgeseg[build]'"
INSTALL_REPORT = "pip install 'edgeseg[report]'"
INSTALL_OPENVINO = "pip install 'edgeseg[openvino]'"
INSTALL_RTX = "pip install 'edgeseg[tensorrt-rtx]'"
SYSTEM_VENV = "python3 -m venv --system-site-packages VENV"

OPTIONAL = {
    "torch": ("PyTorch", "training and export", INSTALL_TRAIN),
    "kornia": ("Kornia", "training", INSTALL_TRAIN),
    "safetensors": ("safetensors", "training and export", INSTALL_TRAIN),
    "onnx": ("ONNX", "export, calibration and build", INSTALL_BUILD),
    "onnxscript": ("ONNX Script", "export", INSTALL_TRAIN),
    "matplotlib": ("Matplotlib", "curves and reports", INSTALL_REPORT),
    "jinja2": ("Jinja", "reports", INSTALL_REPORT),
}
"""Distribution → name, what needs it, how to get it."""

RUN = ("numpy", "opencv", "onnxruntime")
NEEDS: dict[str, tuple[str, ...]] = {
    "train": ("numpy", "opencv", "torch", "kornia", "safetensors", "matplotlib"),
    "export": (*RUN, "torch", "safetensors", "onnx", "onnxscript"),
    "calibrate": (*RUN, "onnx"),
    "build": (*RUN, "onnx"),
    "build --runtime openvino": (*RUN, "onnx", "openvino"),
    "build --runtime tensorrt-rtx": (*RUN, "onnx", "tensorrt-rtx"),
    "eval": RUN,
    "infer": RUN,
    "stream": RUN,
    "bench": RUN,
    "bench --report": ("numpy", "opencv", "onnxruntime", "matplotlib", "jinja2"),
    "demo": (*RUN, *OPTIONAL),
}
"""Command → what it cannot do without."""

JETPACK = {"35": "5", "36": "6", "38": "7", "39": "7"}
"""L4T release → JetPack, https://developer.nvidia.com/embedded/jetpack-archive."""


@dataclass(frozen=True)
class Check:
    """One finding: ``missing`` stops edgeseg from running engines, ``note`` limits it."""

    name: str
    state: State
    found: str
    mend: str | None = None


@dataclass(frozen=True)
class Command:
    """A command of edgeseg and what stands in its way, if anything."""

    name: str
    usable: bool
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All checks, and which commands work as a consequence."""

    checks: tuple[Check, ...]
    commands: tuple[Command, ...]

    @property
    def healthy(self) -> bool:
        """Nothing that running an engine needs is missing."""
        return all(check.state != "missing" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"healthy": self.healthy, **asdict(self)}


def examine(facts: SystemFacts | None = None) -> Findings:
    """Judge a machine; this one where no facts are given. Never raises for a broken library."""
    facts = facts or probe()
    checks = (
        _python(facts),
        Check("edgeseg", "ok", facts.edgeseg_version or f"{__version__}, from a source folder"),
        _native(facts),
        _library(facts, "numpy", "NumPy"),
        *_opencv(facts),
        _onnxruntime(facts),
        _openvino(facts),
        *_optional(facts),
        *_tensorrt(facts),
        *_gpu(facts),
        *_jetson(facts),
        *_cameras(facts),
    )
    return Findings(checks, tuple(_commands(facts)))


def render(findings: Findings) -> str:
    """Plain text: a line a check, the command that mends it below, then the commands."""
    width = max(len(check.name) for check in findings.checks)
    lines = []
    for check in findings.checks:
        lines.append(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.mend:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.mend}")
    lines.append("")
    for command in findings.commands:
        verdict = "works" if command.usable else f"needs {', '.join(command.lacks)}"
        lines.append(f"edgeseg {command.name:<28} {verdict}")
    return "\n".join(lines) + "\n"


def _python(facts: SystemFacts) -> Check:
    place = "virtual environment" if facts.virtual_environment else "not a virtual environment"
    if facts.system_site_packages:
        place += " that sees the system's packages"
    found = f"{facts.python} on {facts.architecture}, {place}"
    if _numbers(facts.python) < (3, 10):
        return Check("Python", "missing", f"{found}; edgeseg needs 3.10 or newer")
    return Check("Python", "ok", found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _native(facts: SystemFacts) -> Check:
    probed = facts.libraries.get("native", Probed(error="not asked"))
    if probed.told.get("available"):
        return Check("Native kernels", "ok", f"in use, level {probed.told.get('level')}")
    why = f": {probed.error}" if probed.error else ""
    return Check(
        "Native kernels",
        "note",
        f"not in use, NumPy and OpenCV compute the same values instead{why}",
        "build from source with a C++20 compiler: pip install .",
    )


def _library(facts: SystemFacts, key: str, name: str) -> Check:
    probed = facts.libraries.get(key, Probed(error="not asked"))
    if not probed.error:
        return Check(name, "ok", probed.version)
    version = facts.distributions.get(key)
    if version is None:
        return Check(name, "missing", f"not usable: {probed.error}", INSTALL_CPU)
    return Check(
        name,
        "missing",
        f"{version} is installed but does not import: {probed.error}",
        f"pip install --force-reinstall {key}",
    )


def _opencv(facts: SystemFacts) -> Iterator[Check]:
    probed = facts.libraries.get("opencv", Probed(error="not asked"))
    wheels = [name for name in OPENCV_PACKAGES if name in facts.distributions]
    if probed.error:
        yield _broken_opencv(probed.error, wheels, jetson=bool(facts.tegra_release))
        return
    build = str(probed.told.get("build", ""))
    gstreamer, ffmpeg, gui = (_feature(build, key) for key in ("GStreamer", "FFMPEG", "GUI"))
    origin = " and ".join(wheels) or f"the system ({probed.told.get('file', 'unknown place')})"
    found = (
        f"{probed.version} from {origin}; GStreamer {gstreamer or 'no'}, "
        f"FFmpeg {ffmpeg or 'no'}, window {gui or 'no'}"
    )
    if len(wheels) > 1:
        # They all install the folder cv2: the last one wins, and removing one breaks both.
        yield Check(
            "OpenCV",
            "note",
            f"{found}; {len(wheels)} packages write the same folder",
            f"pip uninstall -y {' '.join(wheels)} && pip install {wheels[0]}",
        )
    else:
        yield Check("OpenCV", "ok", found)
    if facts.tegra_release and not gstreamer:
        yield _shadowed(facts, wheels)
    if not gui:
        yield Check("Window", "note", "this OpenCV has no window", "pip install opencv-python")
    elif not facts.display:
        yield Check("Window", "note", "no display in this session; a stream runs without window")


def _broken_opencv(error: str, wheels: list[str], *, jetson: bool) -> Check:
    if missing := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", error):
        packages = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
        if missing[1] in packages:
            return Check(
                "OpenCV",
                "missing",
                f"{' and '.join(wheels) or 'cv2'} is installed but {missing[1]} is not",
                "apt-get install libgl1 libglib2.0-0",
            )
    if not wheels:
        mend = SYSTEM_VENV if jetson else INSTALL_CPU
        return Check("OpenCV", "missing", f"not usable: {error}", mend)
    return Check(
        "OpenCV",
        "missing",
        f"{' and '.join(wheels)} is installed but does not import: {error}",
        f"pip install --force-reinstall {wheels[0]}",
    )


def _shadowed(facts: SystemFacts, wheels: list[str]) -> Check:
    """A Jetson's CSI cameras need GStreamer, and only JetPack's OpenCV has it."""
    if wheels and facts.system_opencv:
        mend = f"pip uninstall -y {' '.join(wheels)}"
        if not facts.system_site_packages:
            mend += f", then a new environment: {SYSTEM_VENV}"
        found = f"{' and '.join(wheels)} hides JetPack's OpenCV ({facts.system_opencv})"
    else:
        mend = f"sudo apt-get install nvidia-jetpack, then {SYSTEM_VENV}"
        found = "this OpenCV was built without it and JetPack's is not in sight"
    return Check("GStreamer", "note", f"{found}: CSI cameras cannot be opened", mend)


def _feature(build: str, key: str) -> str:
    """The value of ``key`` in ``cv2.getBuildInformation()``, empty where it says NO or NONE."""
    match = re.search(rf"^\s*{key}:[ \t]*(\S.*)$", build, re.MULTILINE)
    value = match[1].strip() if match else ""
    if not value or value.upper().startswith(("NO", "NONE")):
        return ""
    version = re.fullmatch(r"YES\s*(?:\((?:ver\s*)?([\d.]+)\s*\))?", value)
    return (version[1] or "yes") if version else value


def _onnxruntime(facts: SystemFacts) -> Check:
    check = _library(facts, "onnxruntime", "ONNX Runtime")
    told = facts.libraries.get("onnxruntime", Probed()).told.get("providers")
    if check.state != "ok" or not isinstance(told, list):
        return check
    names = ", ".join(str(provider).removesuffix("ExecutionProvider") for provider in told)
    return Check(check.name, "ok", f"{check.found}; {names}")


def _openvino(facts: SystemFacts) -> Check:
    version = facts.distributions.get("openvino")
    if version:
        return Check("OpenVINO", "ok", version)
    found = "not installed; the faster runtime of x86-64 processors"
    return Check("OpenVINO", "note", found, INSTALL_OPENVINO)


def _optional(facts: SystemFacts) -> Iterator[Check]:
    for key, (name, purpose, mend) in OPTIONAL.items():
        version = facts.distributions.get(key)
        if version:
            yield Check(name, "ok", version)
        else:
            yield Check(name, "note", f"not installed; needed for {purpose}", mend)


def _tensorrt(facts: SystemFacts) -> Iterator[Check]:
    rtx = facts.distributions.get("tensorrt-rtx")
    if rtx:
        yield Check("TensorRT-RTX", "ok", f"{rtx}; builds engines, with or without a GPU")
    else:
        found = "not installed; needed for engines of NVIDIA RTX GPUs"
        yield Check("TensorRT-RTX", "note", found, INSTALL_RTX)
    if version := facts.distributions.get("tensorrt"):
        yield Check("TensorRT", "ok", version)
    elif facts.tegra_release:
        mend = f"sudo apt-get install nvidia-jetpack, then {SYSTEM_VENV}"
        yield Check("TensorRT", "note", "JetPack's is not visible to this Python", mend)


def _gpu(facts: SystemFacts) -> Iterator[Check]:
    cuda = facts.libraries.get("cuda", Probed(error="not asked"))
    devices = cuda.told.get("devices")
    names = [str(name) for name in devices] if isinstance(devices, list) else []
    driver = next((gpu.driver for gpu in facts.gpus if gpu.driver), "")
    version = cuda.told.get("version")
    said = f"CUDA {version // 1000}.{version % 1000 // 10}" if isinstance(version, int) else ""
    if names:
        told = ", ".join(filter(None, (f"driver {driver}" if driver else "", said)))
        yield Check("NVIDIA GPU", "ok", f"{', '.join(names)}" + (f" ({told})" if told else ""))
    elif facts.gpus:
        listed = ", ".join(gpu.name for gpu in facts.gpus)
        why = cuda.error or f"cuInit gave {cuda.told.get('status')}"
        yield Check(
            "NVIDIA GPU",
            "note",
            f"{listed} is listed but CUDA does not start: {why}",
            "restart the machine after a driver update; in a container start it with --gpus all",
        )
    else:
        yield Check("NVIDIA GPU", "note", "none; engines run on the processor")


def _jetson(facts: SystemFacts) -> Iterator[Check]:
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", facts.tegra_release)
    if match:
        jetpack = JETPACK.get(match[1])
        name = f"JetPack {jetpack}" if jetpack else "an unknown JetPack"
        board = f", {facts.board}" if facts.board else ""
        yield Check("Jetson", "ok", f"{name} (L4T {match[1]}.{match[2]}){board}")
        if not facts.gst_inspect:
            yield Check(
                "GStreamer tools",
                "note",
                "gst-inspect-1.0 is not installed; a missing element is found late",
                "sudo apt-get install gstreamer1.0-tools",
            )


def _cameras(facts: SystemFacts) -> Iterator[Check]:
    if not facts.cameras:
        yield Check("Cameras", "note", "no /dev/video*; network streams and files work")
    for camera in facts.cameras:
        label = f"{camera.device}{' ' + camera.name if camera.name else ''}"
        if camera.readable:
            yield Check("Camera", "ok", label)
        else:
            mend = "sudo usermod -aG video $USER, then log in again"
            yield Check("Camera", "note", f"{label}: this user may not open it", mend)


def _commands(facts: SystemFacts) -> Iterator[Command]:
    for name, needs in NEEDS.items():
        lacks = tuple(key for key in needs if not _usable(facts, key))
        yield Command(name, not lacks, lacks)


def _usable(facts: SystemFacts, key: str) -> bool:
    """Imports, for the libraries that were asked; is installed, for the others."""
    if key in RUN:
        return not facts.libraries.get(key, Probed(error="not asked")).error
    return key in facts.distributions
