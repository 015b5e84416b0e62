"""List the V4L2 cameras of this machine, without starting a stream."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgeseg.machine import read_text
from edgeseg.sources.v4l2 import Mode, captures_video, modes

__all__ = ["Camera", "Mode", "cameras", "modes"]


@dataclass(frozen=True)
class Camera:
    """A V4L2 device and whether this user may read it."""

    device: str
    name: str
    readable: bool


def cameras(root: Path = Path("/")) -> tuple[Camera, ...]:
    """Return the V4L2 devices under ``root`` with their kernel names.

    Nodes that report no video capture, such as a USB camera's metadata node, are left out.
    """
    found = []
    devices = (root / "dev").glob("video*")
    for device in sorted(devices, key=lambda path: (len(path.name), path.name)):
        if re.fullmatch(r"video\d+", device.name) and captures_video(str(device)) is not False:
            name = read_text(root / "sys/class/video4linux" / device.name / "name").strip()
            found.append(Camera(f"/dev/{device.name}", name, os.access(device, os.R_OK | os.W_OK)))
    return tuple(found)
