"""The V4L2 cameras of this machine, without opening any."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgeseg.machine import read_text


@dataclass(frozen=True)
class Camera:
    """A V4L2 device and whether this user may read it."""

    device: str
    name: str
    readable: bool


def cameras(root: Path = Path("/")) -> tuple[Camera, ...]:
    """V4L2 devices under ``root``, with the name the kernel knows them by."""
    found = []
    for device in sorted((root / "dev").glob("video*")):
        if re.fullmatch(r"video\d+", device.name):
            name = read_text(root / "sys/class/video4linux" / device.name / "name").strip()
            found.append(Camera(f"/dev/{device.name}", name, os.access(device, os.R_OK | os.W_OK)))
    return tuple(found)
