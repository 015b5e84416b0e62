"""Sources read by GStreamer: CSI cameras of a Jetson, and pipelines written by the user.

Before a source is opened, we check that OpenCV supports GStreamer and that each element is
installed, because OpenCV reports the same error for every cause, or hangs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

import cv2

from edgeseg.errors import OpenFailed, SourceError
from edgeseg.sources.deadline import open_in_time
from edgeseg.sources.frames import Frames, Video
from edgeseg.sources.launch import elements, giving_bgr, jetson_camera
from edgeseg.sources.spec import SourceSpec

_INSPECT_S = 10.0
_JETSON = "nvarguscamerasrc"
_OPENCV = (
    "pip uninstall -y opencv-python opencv-python-headless; sudo apt-get install python3-opencv "
    "(on a Jetson: nvidia-jetpack); python3 -m venv --system-site-packages .venv"
)
_PACKAGES = {
    "nvarguscamerasrc": "it comes with JetPack: sudo apt-get install nvidia-l4t-gstreamer",
    "nvvidconv": "it comes with JetPack: sudo apt-get install nvidia-l4t-gstreamer",
    "nvv4l2decoder": "it comes with JetPack: sudo apt-get install nvidia-l4t-gstreamer",
    "avdec_h264": "sudo apt-get install gstreamer1.0-libav",
    "avdec_h265": "sudo apt-get install gstreamer1.0-libav",
    "videoconvert": "sudo apt-get install gstreamer1.0-plugins-base",
    "appsink": "sudo apt-get install gstreamer1.0-plugins-base",
}


def open_gstreamer(spec: SourceSpec) -> Frames:
    """Open a source of the kind ``csi`` or ``gst`` within ``limits.open_s``.

    Raises:
        OpenFailed: OpenCV has no GStreamer, an element is missing, the pipeline is none, does
            not start, or delivers nothing in time.
    """
    pipeline = pipeline_of(spec)
    check_support(spec)
    if missing := missing_elements(elements(pipeline)):
        raise _missing(spec, missing)
    hung = OpenFailed(
        f"{spec.label}: the pipeline delivered nothing in {spec.limits.open_s:g} s", hint=_why(spec)
    )
    return open_in_time(spec, lambda: _open(spec, pipeline), hung)


def pipeline_of(spec: SourceSpec) -> str:
    """Return the pipeline passed to OpenCV for a source of the kind ``csi`` or ``gst``."""
    if spec.kind == "csi":
        return jetson_camera(int(spec.target), spec.size, spec.fps)
    return giving_bgr(spec.target, live=spec.live)


def check_support(spec: SourceSpec) -> None:
    """Raise OpenFailed where this OpenCV was built without GStreamer."""
    if re.search(r"^\s*GStreamer:\s*YES", cv2.getBuildInformation(), re.MULTILINE) is None:
        raise OpenFailed(
            f"{spec.label}: OpenCV {cv2.__version__} was built without GStreamer, as all of pip's "
            "are; the system's has it, unless pip's hides it",
            hint=_OPENCV,
        )


def missing_elements(names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that are not installed; none where ``gst-inspect-1.0`` is not there."""
    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None:
        return ()
    return tuple(name for name in names if not _exists(inspect, name))


def _exists(inspect: str, name: str) -> bool:
    try:
        asked = subprocess.run(
            [inspect, "--exists", name], capture_output=True, timeout=_INSPECT_S, check=False
        )
    except subprocess.TimeoutExpired:  # the first call after an update scans all plugins
        return True
    return asked.returncode == 0


def _open(spec: SourceSpec, pipeline: str) -> Frames:
    capture = cv2.VideoCapture()
    try:
        opened = capture.open(pipeline, cv2.CAP_GSTREAMER, _time_outs(spec))
    except cv2.error:
        opened = False
    if not opened:
        raise OpenFailed(f"{spec.label}: the pipeline does not start", hint=_why(spec))
    return Video(capture, spec)


def _time_outs(spec: SourceSpec) -> Sequence[int]:
    """For those OpenCVs that know them; the others refuse to open with options they ignore."""
    major, minor = (int(part) for part in cv2.__version__.split(".")[:2])
    if (major, minor) < (4, 9):
        return ()
    return (
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(spec.limits.open_s * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(spec.limits.read_s * 1000)),
    )


def _missing(spec: SourceSpec, names: Sequence[str]) -> SourceError:
    listed = ", ".join(names)
    if spec.kind == "csi" and _JETSON in names:
        return OpenFailed(
            f"{spec.label}: GStreamer has no element {listed}; CSI cameras need a Jetson",
            hint=f"on a Jetson: {_PACKAGES[_JETSON].partition(': ')[2]}; "
            "elsewhere: edgeseg stream --camera 0",
        )
    known = [_PACKAGES[name] for name in names if name in _PACKAGES]
    return OpenFailed(
        f"{spec.label}: GStreamer has no element {listed}",
        hint=known[0]
        if known
        else "check the spelling, or install the plugin that has it: "
        f"apt-cache search gstreamer1.0-; gst-inspect-1.0 {names[0]}",
    )


def _why(spec: SourceSpec) -> str:
    if spec.kind == "csi":
        return (
            f"check the cable and that camera {spec.target} is free: "
            "sudo systemctl restart nvargus-daemon; nvgstcapture-1.0 "
            f"--sensor-id={spec.target} shows it"
        )
    return "try it in a terminal: gst-launch-1.0 -v PIPELINE, with fakesink in appsink's place"
