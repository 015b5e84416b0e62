"""Hand-written loops around an engine, for comparison.

They use the same engine as edgeseg's stream, take labels from the graph, and use OpenCV and
NumPy for the rest. ``shown`` is called with each frame and its overlay.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.base import Engine

Picture = NDArray[np.uint8]
Shown = Callable[[Picture, Picture], bool]
"""Returns whether to go on."""


def as_people_write_it(source: str, engine: Engine, shown: Shown) -> None:
    """One thread; normalises in float64, colours the mask at the frame's size."""
    spec = engine.card.input
    mean, std = np.array(spec.mean), np.array(spec.std)
    palette = np.array(engine.card.classes.palette, np.uint8)[:, ::-1]
    capture = cv2.VideoCapture(source)
    while True:
        found, frame = capture.read()
        if not found:
            break
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        small = cv2.resize(rgb, (spec.width, spec.height))
        normal = ((small / 255.0 - mean) / std).astype(np.float32)
        tensor = np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
        labels = engine.infer(tensor)[0]
        mask = cv2.resize(labels, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)
        overlay = (frame * 0.5 + palette[mask] * 0.5).astype(np.uint8)
        if not shown(frame, overlay):
            break
    capture.release()


def with_care(source: str, engine: Engine, shown: Shown) -> None:
    """One thread; the best that OpenCV offers for each step."""
    spec = engine.card.input
    mean, std = np.float32(spec.mean), np.float32(spec.std)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(engine.card.classes)] = np.array(engine.card.classes.palette)[:, None, ::-1]
    capture = cv2.VideoCapture(source)
    tensor = np.empty((1, *spec.shape), np.float32)
    while True:
        found, frame = capture.read()
        if not found:
            break
        small = cv2.cvtColor(cv2.resize(frame, (spec.width, spec.height)), cv2.COLOR_BGR2RGB)
        for channel, plane in enumerate(cv2.split(small)):
            scale = 1 / (255 * std[channel])
            cv2.addWeighted(
                plane,
                scale,
                plane,
                0,
                -mean[channel] / std[channel],
                tensor[0, channel],
                cv2.CV_32F,
            )
        labels = engine.infer(tensor)[0]
        colours = cv2.resize(
            cv2.applyColorMap(labels, table),
            (frame.shape[1], frame.shape[0]),
            interpolation=cv2.INTER_NEAREST,
        )
        if not shown(frame, np.asarray(cv2.addWeighted(frame, 0.5, colours, 0.5, 0), np.uint8)):
            break
    capture.release()
