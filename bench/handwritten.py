"""Steps of hand-written loops around a network: before it and after it, in OpenCV and NumPy.

Imports nothing of edgeseg, so that peers can run it in environments of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
"""OpenCV's stubs do not say which dtype comes back; here it is uint8."""


@dataclass(frozen=True)
class Steps:
    """Frame uint8 (H, W, 3) BGR → float32 (1, 3, h, w); frame and labels (h, w) → overlay."""

    prepare: Callable[[Picture], NDArray[np.float32]]
    draw: Callable[[Picture, Picture], Picture]


def as_people_write_it(settings: Mapping[str, Any]) -> Steps:
    """Normalise in float64, colour the mask at the frame's size.

    Args:
        settings: ``width``, ``height``, ``mean``, ``std`` and ``palette`` (RGB) of the network.
    """
    size = (settings["width"], settings["height"])
    mean, std = np.array(settings["mean"]), np.array(settings["std"])
    palette = np.array(settings["palette"], np.uint8)[:, ::-1]

    def prepare(frame: Picture) -> NDArray[np.float32]:
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        small = cv2.resize(rgb, size)
        normal = ((small / 255.0 - mean) / std).astype(np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])

    def draw(frame: Picture, labels: Picture) -> Picture:
        mask = cv2.resize(labels, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray((frame * 0.5 + palette[mask] * 0.5).astype(np.uint8))

    return Steps(prepare, draw)


def with_care(settings: Mapping[str, Any]) -> Steps:
    """Resize first, OpenCV's vectorised routines throughout; arguments as above."""
    size = (settings["width"], settings["height"])
    mean, std = (np.array(settings[name], np.float32) for name in ("mean", "std"))
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(settings["palette"])] = np.array(settings["palette"])[:, None, ::-1]
    tensor = np.empty((1, 3, settings["height"], settings["width"]), np.float32)

    def prepare(frame: Picture) -> NDArray[np.float32]:
        small = cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2RGB)
        for channel, plane in enumerate(cv2.split(small)):
            scale, shift = 1 / (255 * std[channel]), -mean[channel] / std[channel]
            cv2.addWeighted(plane, scale, plane, 0, shift, tensor[0, channel], cv2.CV_32F)
        return tensor

    def draw(frame: Picture, labels: Picture) -> Picture:
        colours = cv2.applyColorMap(labels, table)
        large = cv2.resize(colours, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(cv2.addWeighted(frame, 0.5, large, 0.5, 0), np.uint8)

    return Steps(prepare, draw)
