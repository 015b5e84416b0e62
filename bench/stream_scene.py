"""Inputs of the stream benchmarks: a 720p clip with numbered frames, and engines."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from frame_numbers import mark
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, Precision
from edgeseg.building import BuildConfig, EngineRuntime, build
from edgeseg.data.folders import load_image
from edgeseg.export.network import export_onnx
from edgeseg.models import build as build_model
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import measure_ranges
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint

SAMPLE = Path(__file__).parents[1] / "edgeseg" / "data" / "nuclei"
CLASSES = 11


def make_clip(path: Path, frames: int, *, fps: int = 25, video: Path | None = None) -> Path:
    """Write H.264 of 1280×720 as network cameras send it: no frame refers to a later one.

    Args:
        path: ``*.mp4``.
        frames: How many, below 65536.
        fps: Frames a second.
        video: What is shown, again from the start at its end; by default a window that moves
            over the sample's pictures.
    """
    pictures = _from_video(video) if video else _from_sample()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"crf": "26", "preset": "veryfast", "tune": "zerolatency", "g": "50"}
        for number in range(frames):
            picture = mark(next(pictures), number)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def make_engines(
    work: Path,
    runtimes: Sequence[EngineRuntime],
    precisions: Sequence[Precision],
    run: Path | None = None,
    size: tuple[int, int] = (256, 512),
) -> dict[tuple[EngineRuntime, Precision], Path]:
    """Engines of a ``unet-lite`` for ``size`` (height, width).

    Args:
        work: A folder for all that is made.
        runtimes: Which to build for.
        precisions: In which.
        run: Run folder whose checkpoint gives the weights; by default they are random, which
            costs a network the same time.
        size: Of the network's input.
    """
    checkpoint = work / "model.safetensors"
    if run is None:
        card = ModelCard(
            name="unet-lite",
            arch="unet-lite",
            classes=ClassMap.model_validate({"names": [f"class {n}" for n in range(CLASSES)]}),
            input=InputSpec(height=size[0], width=size[1]),
        )
        model = build_model("unet-lite", CLASSES)
    else:
        model, card = load_checkpoint(run / "model.safetensors")
    spec = card.input.model_copy(update={"height": size[0], "width": size[1]})
    save_checkpoint(checkpoint, model, card.model_copy(update={"input": spec}))
    network = work / "model.onnx"
    export_onnx(checkpoint, network)
    collect(str(SAMPLE / "train" / "images"), work / "manifest.json", count=16)
    measure_ranges(network, work / "manifest.json").save(work / "model.ranges.json")
    return {
        (runtime, precision): build(
            BuildConfig(network, precision, runtime, min_agreement=0.0)
        ).engine
        for runtime in runtimes
        for precision in precisions
    }


def workshop() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="edgeseg-stream-")


def _from_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    while True:
        capture = cv2.VideoCapture(str(path))
        while (frame := capture.read()[1]) is not None:
            yield np.asarray(cv2.resize(frame, (1280, 720)), np.uint8)
        capture.release()


def _from_sample() -> Iterator[NDArray[np.uint8]]:
    pictures = map(load_image, sorted((SAMPLE / "train" / "images").iterdir())[:6])
    strip = np.hstack([cv2.resize(picture, (960, 960)) for picture in pictures])
    reach_x, reach_y = strip.shape[1] - 1280, strip.shape[0] - 720
    number = 0
    while True:
        x, y = number * 4 % reach_x, number % reach_y
        yield np.asarray(strip[y : y + 720, x : x + 1280].copy(), np.uint8)
        number += 1
