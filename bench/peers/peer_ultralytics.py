"""Ultralytics' semantic segmentation: ``peer_ultralytics.py MODEL``, its own network.

``predict(stream=True)`` reads, prepares, infers and finishes; ``plot()`` draws. Stages are those
that it times itself (``Results.speed``).
"""

import sys
import time
from collections.abc import Generator
from typing import Any

import torch
from ultralytics import YOLO
from worker import Drawn, serve, versions

LONG_SIDE = 512
SIZE = (288, 512)
"""To which it brings 1280×720 at that long side, and for which it was exported."""


def main() -> None:
    """Open the network and answer."""
    model = YOLO(sys.argv[1], task="semantic")
    size: Any = LONG_SIDE if sys.argv[1].endswith(".pt") else SIZE
    taken_at = 0.0

    def note(_predictor: Any) -> None:
        nonlocal taken_at
        taken_at = time.monotonic()

    model.add_callback("on_predict_batch_start", note)

    def frames(source: str) -> Generator[Drawn, None, None]:
        for result in model.predict(source, stream=True, imgsz=size, verbose=False):
            start = time.perf_counter()
            result.plot()
            drawing = (time.perf_counter() - start) * 1000
            took = result.speed
            outside = took["preprocess"] + took["postprocess"] + drawing
            yield Drawn(result.orig_img, taken_at, took["inference"], outside)

    found = versions("ultralytics", "numpy", "opencv-python", "torch", "onnxruntime", "openvino")
    serve(frames, {"versions": found, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
