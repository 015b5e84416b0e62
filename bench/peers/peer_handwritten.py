"""ONNX Runtime and OpenCV by hand: ``peer_handwritten.py MODEL NETWORK.json [--care yes]``.

The loop of tutorials: one thread, defaults everywhere, a line for each step. With care it takes
the best that OpenCV offers for each of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import cv2
import numpy as np
import onnxruntime
from worker import Drawn, network, option, serve, versions

Step = Callable[[Any], Any]


def main() -> None:
    """Open the network and answer."""
    settings = network(sys.argv[2])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    careful = option(sys.argv, "--care", "no") == "yes"
    prepare, draw = (with_care if careful else as_people_write_it)(settings)

    def frames(source: str) -> Generator[Drawn, None, None]:
        capture = cv2.VideoCapture(source)
        try:
            while True:
                found, frame = capture.read()
                if not found:
                    return
                taken_at = time.monotonic()
                tensor = prepare(frame)
                ready = time.monotonic()
                labels = session.run(None, {name: tensor})[0][0]
                inferred = time.monotonic()
                draw(frame, labels)
                drawn = time.monotonic()
                outside = (drawn - inferred) + (ready - taken_at)
                yield Drawn(frame, taken_at, (inferred - ready) * 1000, outside * 1000)
        finally:
            capture.release()

    about = {"versions": versions("numpy", "opencv-python", "onnxruntime"), "threads": None}
    serve(frames, about)


def as_people_write_it(settings: Any) -> tuple[Step, Callable[[Any, Any], Any]]:
    """Normalise in float64, colour the mask at the frame's size."""
    size = (settings["width"], settings["height"])
    mean, std = np.array(settings["mean"]), np.array(settings["std"])
    palette = np.array(settings["palette"], np.uint8)[:, ::-1]

    def prepare(frame: Any) -> Any:
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        small = cv2.resize(rgb, size)
        normal = ((small / 255.0 - mean) / std).astype(np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])

    def draw(frame: Any, labels: Any) -> Any:
        height, width = frame.shape[:2]
        mask = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        return (frame * 0.5 + palette[mask] * 0.5).astype(np.uint8)

    return prepare, draw


def with_care(settings: Any) -> tuple[Step, Callable[[Any, Any], Any]]:
    """Small pictures first, OpenCV's vectorised routines throughout."""
    size = (settings["width"], settings["height"])
    mean, std = (np.array(settings[name], np.float32) for name in ("mean", "std"))
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(settings["palette"])] = np.array(settings["palette"])[:, None, ::-1]
    tensor = np.empty((1, 3, settings["height"], settings["width"]), np.float32)

    def prepare(frame: Any) -> Any:
        small = cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2RGB)
        for channel, plane in enumerate(cv2.split(small)):
            scale, shift = 1 / (255 * std[channel]), -mean[channel] / std[channel]
            cv2.addWeighted(plane, scale, plane, 0, shift, tensor[0, channel], cv2.CV_32F)
        return tensor

    def draw(frame: Any, labels: Any) -> Any:
        height, width = frame.shape[:2]
        colours = cv2.applyColorMap(labels, table)
        large = cv2.resize(colours, (width, height), interpolation=cv2.INTER_NEAREST)
        return cv2.addWeighted(frame, 0.5, large, 0.5, 0)

    return prepare, draw


if __name__ == "__main__":
    main()
