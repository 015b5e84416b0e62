"""Save single pictures and their masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.stream.sinks.files import write_new

SNAPSHOT = re.compile(r"(\d{8}-\d{6})(?:-\d+)?(?:-mask)?\.png")
"""Names of the pictures and masks."""


def local_time(now: Callable[[], datetime] = datetime.now) -> str:
    """Return ``20261124-101530``, the local time as it stands in names of files."""
    return now().strftime("%Y%m%d-%H%M%S")


def save_snapshot(
    folder: Path,
    overlay: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    now: Callable[[], datetime] = datetime.now,
) -> tuple[Path, Path]:
    """Write ``FOLDER/20261124-101530.png`` and ``…-mask.png``; nothing is overwritten.

    Args:
        folder: Output folder; created if missing.
        overlay: uint8 (H, W, 3) BGR.
        mask: uint8 (H, W), class ids.
        now: Function that returns the local time, used for the file names.

    Returns:
        Both paths.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = local_time(now)
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        paths = folder / f"{name}.png", folder / f"{name}-mask.png"
        try:
            for path, picture in zip(paths, (overlay, mask), strict=True):
                write_new(path, cv2.imencode(".png", picture)[1].tobytes())
        except FileExistsError:
            number += 1
        else:
            return paths
