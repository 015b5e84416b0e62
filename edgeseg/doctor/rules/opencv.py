"""Rules for OpenCV from pip, the system or JetPack; Python imports the first that it finds."""

from __future__ import annotations

import re

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import SystemFacts, numbers
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
