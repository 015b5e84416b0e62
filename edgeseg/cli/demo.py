"""Run every step on bundled pictures: train, build engines, stream and report.

The demo runs the public commands, each in its own process, and prints them, so that every step
can be repeated by hand in the output folder.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.files import write_atomic
from edgeseg.cli.counting import count
from edgeseg.data.folders import bundled_sample, list_images, load_image
from edgeseg.errors import CorruptArtifact, EdgesegError, RuntimeMissing, UsageError
from edgeseg.runs import BUNDLED

logger = logging.getLogger(__name__)

DATA = "data/nuclei"
RUN = "runs/nuclei"
CLIP = "stage-pan.mkv"
RECORDING = "overlay.mkv"
NEEDED = ("torch", "kornia", "safetensors", "onnx", "onnxscript", "matplotlib", "jinja2")

# Small enough for two slow cores to train in about a minute. The crop gives several parts of
# each picture, and flips are valid since microscope pictures have no upright orientation.
TRAINING = (
    *("--size", "256x256", "--stem-stride", "2", "--depth", "3"),
    *("--augment", "any", "--crop", "128x128"),
    *("--epochs", "15", "--batch-size", "8", "--learning-rate", "0.004"),
)

BENCH = ("--data", DATA)


class StepFailed(EdgesegError):
    """A command of the demo failed, or a signal ended it; the demo exits as the shell would."""

    def __init__(self, command: str, status: int) -> None:
        if status < 0:
            killed = -status == signal.SIGKILL
            super().__init__(
                f"`{command}` was ended by {signal.Signals(-status).name}",
                hint="free memory: the kernel ends processes where it runs out" if killed else None,
            )
        else:
            super().__init__(f"`{command}` failed", hint="its message stands above")
        self.exit_code = status if status > 0 else 128 - status


@dataclass
class Demo:
    """The output folder, and the commands run in it so far."""

    out: Path
    commands: list[str] = field(default_factory=list)

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run one public command in the output folder and return its JSON document."""
        shown = shlex.join(("edgeseg", *arguments))
        logger.info("\n$ %s", shown)
        self.commands.append(shown)
        child = subprocess.run(
            [sys.executable, "-m", "edgeseg", *arguments, "--json"],
            cwd=self.out,
            stdout=subprocess.PIPE,
            check=False,
        )
        if child.returncode != 0:
            raise StepFailed(shown, child.returncode)
        document: dict[str, Any] = json.loads(child.stdout)
        return document


def run_demo(out: Path | None) -> dict[str, Any]:
    """Run the demo in ``out`` and return its summary.

    Args:
        out: Output folder; None uses the first unused one of ``edgeseg-demo``, ``edgeseg-demo-2`` …

    Raises:
        RuntimeMissing: The ``demo`` extra is not installed.
        UsageError: The folder cannot be written, or is not empty.
        StepFailed: A command failed.
    """
    began = time.perf_counter()
    _require_extra()
    demo = Demo(_output_folder(out))
    logger.info("everything goes to %s; the commands below can be repeated there", demo.out)
    shutil.copytree(bundled_sample(), demo.out / DATA, dirs_exist_ok=True)

    training = demo.run("train", "--data", DATA, "--arch", "unet-lite", "--run", RUN, *TRAINING)
    demo.run("export", RUN)
    demo.run("calibrate", RUN, "--from", f"{DATA}/train/images", "--out", "calib/nuclei.json")
    engines = _build(demo)
    measured = demo.run("bench", *engines, *BENCH)
    make_clip(list_images(demo.out / DATA / "val" / "images"), demo.out / CLIP)
    streamed = demo.run(
        *("stream", f"{RUN}/model.int8.onnx", "--source", CLIP),
        *("--record", RECORDING, "--no-window"),
    )
    counted, drawn = _count(demo)
    report = _write_report(demo, training, measured, streamed, drawn)
    summary = {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_rss_mib": _peak_rss_mib(),
        "val_mean_iou": training["val_mean_iou"],
        "engines": [_engine_row(run) for run in measured["runs"]],
        "stream": streamed,
        "objects": counted,
        "report": str(report),
        "recording": str(demo.out / RECORDING),
        "commands": demo.commands,
    }
    write_atomic(demo.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _build(demo: Demo) -> list[str]:
    """Build all engines that this installation supports; TensorRT-RTX needs no GPU to compile."""
    builds = [("onnxruntime", precision) for precision in ("fp32", "fp16", "int8")]
    if find_spec("openvino") is not None:
        builds += [("openvino", "fp32"), ("openvino", "int8")]
    if find_spec("tensorrt_rtx") is not None:
        builds += [("tensorrt-rtx", "fp16"), ("tensorrt-rtx", "int8")]
    else:
        logger.info(
            "\nno TensorRT-RTX here (pip install 'edgeseg[tensorrt-rtx]'): skipping its engines"
        )
    return [
        demo.run("build", RUN, f"--{precision}", "--runtime", runtime, "--data", DATA)["engine"]
        for runtime, precision in builds
    ]


def _count(demo: Demo) -> tuple[dict[str, Any], bytes]:
    """Count nuclei by Otsu's threshold, the network trained here, and the bundled one."""
    networks = {
        "trained here": demo.out / RUN / "model.onnx",
        "bundled:nuclei": BUNDLED / "nuclei" / "model.onnx",
    }
    scores, drawn = count(networks, demo.out / DATA)
    for name, score in scores.items():
        logger.info(
            "counting nuclei, %s: F1 at IoU 0.5 %.3f, merges %d of %d",
            *(name, score.f1 or 0.0, score.merges, score.truths),
        )
    return {name: score.to_dict() for name, score in scores.items()}, drawn


def make_clip(pictures: list[Path], path: Path, *, seconds: float = 10.0, fps: int = 25) -> None:
    """Write a video that pans slowly over held-out pictures, like a microscope stage.

    The pictures of one stain are laid side by side on two rows and blended at the seams; a
    window of 320×240 travels over them along a smooth closed path and is shown at 640×480.

    Args:
        pictures: At least one picture file.
        path: Output file: Matroska, motion JPEG.
    """
    mosaic = _mosaic([load_image(picture) for picture in pictures])
    frames = round(seconds * fps)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (640, 480))
    if not writer.isOpened():
        raise UsageError(f"cannot write {path}")
    room_y, room_x = mosaic.shape[0] - 240, mosaic.shape[1] - 320
    for index in range(frames):
        phase = 2 * np.pi * index / frames
        x = room_x * (0.5 - 0.5 * np.cos(phase))
        y = room_y * (0.5 - 0.5 * np.cos(2 * phase))
        view = np.array([[2.0, 0.0, -2.0 * x], [0.0, 2.0, -2.0 * y]])
        writer.write(cv2.warpAffine(mosaic, view, (640, 480), flags=cv2.INTER_CUBIC))
    writer.release()


def _mosaic(images: list[NDArray[np.uint8]], tile: int = 256, seam: int = 24) -> NDArray[np.uint8]:
    """Arrange dark-field pictures in two rows of tiles, cross-faded over ``seam`` pixels."""
    dark = [image for image in images if image.mean() < 100] or images
    tiles = [cv2.resize(image, (tile, tile), interpolation=cv2.INTER_AREA) for image in dark]
    columns = max(2, len(tiles) // 2)
    step = tile - seam
    shape = (step + tile, step * (columns - 1) + tile, 3)
    total, weight = np.zeros(shape, np.float32), np.zeros((*shape[:2], 1), np.float32)
    ramp = np.minimum(1, (np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 1) / seam)
    fade = np.outer(ramp, ramp).astype(np.float32)[..., np.newaxis]
    for place in range(2 * columns):
        top, left = step * (place // columns), step * (place % columns)
        region = np.s_[top : top + tile, left : left + tile]
        total[region] += fade * tiles[place % len(tiles)]
        weight[region] += fade
    return np.asarray(np.rint(total / weight), np.uint8)


def _output_folder(out: Path | None) -> Path:
    if out is None:
        names = ["edgeseg-demo", *(f"edgeseg-demo-{n}" for n in range(2, 1000))]
        out = next(Path(name) for name in names if not Path(name).exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} already exists and is not an empty folder",
            hint="choose a new folder with --out, or omit --out",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {out}: {error.strerror}") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write in {out}", hint="choose another --out")
    return out


def _require_extra() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise RuntimeMissing(
            f"the demo trains and builds, which needs {', '.join(missing)}",
            hint="pip install 'edgeseg[demo]'",
        )


def _write_report(
    demo: Demo,
    training: dict[str, Any],
    measured: dict[str, Any],
    streamed: dict[str, Any],
    counted: bytes,
) -> Path:
    from edgeseg.report import Picture, write_report

    run = demo.out / RUN
    report = demo.out / "report.html"
    shown = [
        Picture(
            "Held-out pictures",
            "Picture, truth and prediction, from the worst to the best.",
            (run / "predictions.png").read_bytes(),
        ),
        Picture(
            "The stream",
            "A frame of the recorded overlay, half way through the clip.",
            _middle_frame(demo.out / RECORDING),
        ),
        Picture(
            "Counting nuclei",
            "Outlines of the objects found by Otsu's threshold, by the network trained here, and "
            "by the one that comes with edgeseg.",
            counted,
        ),
    ]
    history = json.loads((run / "history.json").read_bytes())
    write_report(
        report,
        title="Nuclei: from labelled pictures to a stream",
        bench=measured,
        training={**training, "arch": "unet-lite", "dataset": DATA, "history": history},
        stream=streamed,
        pictures=shown,
        commands=demo.commands,
    )
    return report


def _middle_frame(recording: Path) -> bytes:
    """Return the middle frame of a video as PNG."""
    video = cv2.VideoCapture(str(recording))
    video.set(cv2.CAP_PROP_POS_FRAMES, video.get(cv2.CAP_PROP_FRAME_COUNT) // 2)
    read, frame = video.read()
    video.release()
    if not read:
        raise CorruptArtifact(f"{recording}: the stream was recorded and cannot be read back")
    return cv2.imencode(".png", frame)[1].tobytes()


def _engine_row(run: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("runtime", "precision", "mean_iou", "drop", "pixel_agreement", "bytes", "runs_here")
    latency = run["latency_ms"]
    return {
        "path": run["engine"],
        **{key: run[key] for key in keys},
        "latency_ms": latency and {key: latency[key] for key in ("p50", "p95", "p99")},
    }


def _peak_rss_mib() -> float:
    """Return the peak resident memory of the largest process of the demo, in MiB."""
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, -1))
    return round(kib / 1024, 1)
