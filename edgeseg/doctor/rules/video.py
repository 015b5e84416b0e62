"""Rules for reading and showing frames: OpenCV, PyAV, GStreamer, the display, cameras."""

from __future__ import annotations

import re

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import CameraFacts, SystemFacts, numbers
from edgeseg.doctor.rules.base import INSTALL_CPU

SYSTEM_VENV = "/usr/bin/python3 -m venv --system-site-packages VENV   # edgeseg goes into it"
_APT = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}


def feature(facts: SystemFacts, key: str) -> str:
    """Look up ``gstreamer``, ``ffmpeg`` or ``gui`` in the build information; empty if absent."""
    value = str(facts.library("opencv").told.get(key, "")).strip()
    if value.upper().startswith(("NO", "NONE")):
        return ""
    version = re.fullmatch(r"YES\s*(?:\((?:ver\s*)?([\d.]+)\s*\))?", value)
    return (version[1] or "yes") if version else value


def _cause(facts: SystemFacts) -> str:
    """Return why OpenCV does not import (numpy, library, hidden, absent, broken), else ""."""
    error = facts.library("opencv").error
    if not error:
        return ""
    built_for_1 = "numpy.core.multiarray" in error or "_ARRAY_API" in error
    if built_for_1 and numbers(facts.distributions.get("numpy", "0"), 1) >= (2,):
        return "numpy"
    if any(f"{library}: cannot open" in error for library in _APT):
        return "library"
    if not facts.opencv_wheels:
        hidden = facts.system_opencv and not facts.system_site_packages
        return "hidden" if hidden else "absent"
    return "broken"


def numpy_too_new_for_opencv(facts: SystemFacts) -> Trouble | None:
    """OpenCV of Debian and JetPack was compiled for NumPy 1: opencv/opencv-python#995."""
    if _cause(facts) != "numpy":
        return None
    numpy = facts.distributions["numpy"]
    wheels = " and ".join(facts.opencv_wheels)
    which = f"OpenCV of {wheels}" if wheels else f"the system's OpenCV ({facts.system_opencv})"
    return Trouble(
        f"{which} was compiled for NumPy 1 and does not import beside NumPy {numpy}",
        "pip install 'numpy<2'",
        blocks=True,
    )


def opencv_lacks_system_library(facts: SystemFacts) -> Trouble | None:
    """Minimal images lack libGL: README of opencv-python, "Frequently Asked Questions"."""
    if _cause(facts) != "library":
        return None
    error = facts.library("opencv").error
    missing = next(library for library in _APT if library in error)
    who = " and ".join(facts.opencv_wheels) or "OpenCV"
    return Trouble(
        f"{who} is installed but {missing} is not",
        f"sudo apt-get install {' '.join(_APT.values())}",
        blocks=True,
    )


def venv_hides_system_opencv(facts: SystemFacts) -> Trouble | None:
    """The virtual environment does not see the OpenCV of the system."""
    if _cause(facts) != "hidden":
        return None
    whose = "JetPack's" if facts.jetson else "the system's"
    return Trouble(
        f"{whose} OpenCV ({facts.system_opencv}) is not visible to this virtual environment",
        SYSTEM_VENV if facts.jetson else f"{INSTALL_CPU}\n# or, with GStreamer: {SYSTEM_VENV}",
        blocks=True,
    )


def opencv_absent(facts: SystemFacts) -> Trouble | None:
    """OpenCV is missing; on a Jetson, JetPack's is recommended for its GStreamer."""
    if _cause(facts) != "absent":
        return None
    install = f"sudo apt-get install nvidia-jetpack\n{SYSTEM_VENV}" if facts.jetson else INSTALL_CPU
    return Trouble(f"OpenCV is not usable: {facts.library('opencv').error}", install, blocks=True)


def opencv_broken(facts: SystemFacts) -> Trouble | None:
    """OpenCV is installed from a wheel but does not import."""
    if _cause(facts) != "broken":
        return None
    wheels = facts.opencv_wheels
    return Trouble(
        f"{' and '.join(wheels)} is installed but does not import: {facts.library('opencv').error}",
        f"pip install --force-reinstall {wheels[0]}",
        blocks=True,
    )


def several_opencvs(facts: SystemFacts) -> Trouble | None:
    """Several packages install the folder ``cv2``: the last wins, removing one breaks all."""
    wheels = facts.opencv_wheels
    if len(wheels) < 2:
        return None
    return Trouble(
        f"{' and '.join(wheels)} write the same folder: the last one installed is in use",
        f"pip uninstall -y {' '.join(wheels)} && pip install {wheels[0]}",
    )


def opencv_without_window(facts: SystemFacts) -> Trouble | None:
    """OpenCV cannot show windows: a headless package, or built without Qt and GTK."""
    if facts.library("opencv").error or feature(facts, "gui"):
        return None
    wheels = facts.opencv_wheels
    away = f"pip uninstall -y {' '.join(wheels)} && " if wheels else ""
    return Trouble(
        "this OpenCV was built without windows; --web shows the stream in a browser",
        f"{away}pip install opencv-python",
        blocks=True,
    )


def no_display(facts: SystemFacts) -> Trouble | None:
    """There is no display, neither X nor Wayland."""
    if facts.display or not feature(facts, "gui"):
        return None
    return Trouble(
        "this session has no display; --web shows the stream in a browser",
        "edgeseg stream --camera 0 --no-window --web 8080",
        blocks=True,
    )


_PACKAGES = {
    "nvv4l2decoder": "nvidia-l4t-gstreamer",
    "rtspsrc": "gstreamer1.0-plugins-good",
    "h264parse": "gstreamer1.0-plugins-bad",
    "avdec_h264": "gstreamer1.0-libav",
    "videoconvert": "gstreamer1.0-plugins-base",
    "appsink": "gstreamer1.0-plugins-base",
}
_BAYER = re.compile(r"(?:RG|BG|GB|BA)1[0246]|RGGB|GRBG|GBRG|BA81|BYR2|p[BGgR](?:AA|CC|EE)")
"""FourCC codes of the Bayer formats in linux/videodev2.h."""


def no_video_decoder(facts: SystemFacts) -> Trouble | None:
    """Nothing decodes video: no PyAV, and no OpenCV with FFmpeg or GStreamer."""
    opencv = facts.library("opencv")
    decodes = feature(facts, "ffmpeg") or feature(facts, "gstreamer")
    if opencv.error or decodes or facts.has("av"):
        return None
    return Trouble(
        "this OpenCV was built with neither FFmpeg nor GStreamer, and PyAV is not installed",
        "pip install 'edgeseg[av]'",
        blocks=True,
    )


def av_absent(facts: SystemFacts) -> Trouble | None:
    """PyAV is missing; OpenCV reads video too, but stretches a new frame size to the old one."""
    if facts.has("av"):
        return None
    return Trouble(
        "PyAV is not installed: a network camera that changes its frame size is not followed",
        "pip install 'edgeseg[av]'",
    )


def gstreamer_plugins_absent(facts: SystemFacts) -> Trouble | None:
    """Plugins for typical ``gst:`` pipelines are missing; the Jetson decoder on Jetsons only."""
    if not feature(facts, "gstreamer"):
        return None
    missing = [
        name
        for name in _PACKAGES
        if facts.gstreamer.get(name) is False and (facts.jetson or not name.startswith("nv"))
    ]
    if not missing:
        return None
    packages = dict.fromkeys(_PACKAGES[name] for name in missing)
    return Trouble(
        f"GStreamer has no {', '.join(missing)}: pipelines (gst:…) with them do not start",
        f"sudo apt-get install {' '.join(packages)}",
    )


def no_camera(facts: SystemFacts) -> Trouble | None:
    """There is no camera; WSL and containers need one passed through."""
    if facts.cameras:
        return None
    if facts.wsl:
        return Trouble(
            "WSL has no /dev/video*: USB devices stay with Windows until they are attached",
            "# in an administrator's PowerShell, with usbipd-win: usbipd list; "
            "usbipd bind --busid ID; usbipd attach --wsl --busid ID",
            blocks=True,
        )
    if facts.container:
        return Trouble(
            "this container has no /dev/video*",
            "docker run --device /dev/video0 IMAGE",
            blocks=True,
        )
    return Trouble("there is no /dev/video*", blocks=True)


def camera_not_readable(facts: SystemFacts) -> Trouble | None:
    """The user may not open a camera; devices belong to the group ``video``."""
    shut = [camera.device for camera in facts.cameras if not camera.readable]
    if not shut:
        return None
    return Trouble(
        f"this user has no permission to open {', '.join(shut)}",
        "sudo usermod -aG video $USER   # then log out and in again",
        blocks=len(shut) == len(facts.cameras),
    )


def is_raw(camera: CameraFacts) -> bool:
    """Whether a camera delivers only raw Bayer data, e.g. V4L2_PIX_FMT_SRGGB10."""
    formats = {mode.rpartition(" ")[2] for mode in camera.modes}
    return bool(formats) and all(map(_BAYER.fullmatch, formats))


def raw_sensor(facts: SystemFacts) -> Trouble | None:
    """A CSI sensor is there; use it through the image processor of the Jetson, as ``csi:N``."""
    raw = [camera for camera in facts.cameras if is_raw(camera)]
    if not raw:
        return None
    names = ", ".join(f"{camera.device} ({camera.name})" for camera in raw)
    return Trouble(
        f"{names} is a bare sensor, which --camera cannot read",
        "edgeseg stream --source csi:0" if facts.jetson else None,
        blocks=len(raw) == len(facts.cameras),
    )
