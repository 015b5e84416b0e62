"""Rules for sources of frames: network cameras, files, USB cameras."""

from __future__ import annotations

import re

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import CameraFacts, SystemFacts
from edgeseg.doctor.rules.opencv import feature

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
