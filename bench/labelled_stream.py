"""Check the live score of a labelled stream by scoring the same frames in four ways.

``python bench/labelled_stream.py NETWORK DIR OUT`` takes DIR/images and DIR/masks as frames of
a drive at 15 frames per second, encodes them as H.264 at several qualities and writes
OUT/labelled.json and OUT/labelled.md with the mean IoU

- of the pictures themselves, as ``edgeseg eval`` gives it;
- of the frames that OpenCV decodes from the file, one by one through ``Engine.segment``: less
  than the pictures' by what H.264 costs;
- of the file as a stream, which must equal that;
- of the file as an RTSP camera that is read frame by frame, which must equal it too.

Needs ffmpeg with libx264 and aio-rtsp-toolkit[server].
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import cv2
import numpy as np
from faults.conftest import RtspCamera
from numpy.typing import NDArray

import edgeseg
from edgeseg.data.folders import list_images, load_sample, read_split
from edgeseg.engines.base import Engine
from edgeseg.evaluation import evaluate, score
from edgeseg.stream import Scoring, Stream, StreamOptions, run

FPS = 15
QUALITIES = (18, 23, 28, 35)
"""Constant rate factors of x264: 18 is taken for lossless by eye, 23 is its default."""


@dataclass(frozen=True)
class Row:
    """Mean IoU of one coding of the drive.

    ``live_frames`` are those of which the camera's score is; ``equal`` says whether both
    streams gave exactly the decoded frames' figures, class by class.
    """

    crf: int
    kbit_s: int
    decoded: float
    file_stream: float
    camera_stream: float
    live_frames: int
    equal: bool


def encode(pictures: Sequence[Path], crf: int, out: Path) -> None:
    """One H.264 frame a picture, in their order."""
    listing = out.with_suffix(".txt")
    listing.write_text("".join(f"file '{path.resolve()}'\n" for path in pictures))
    source = ["-r", str(FPS), "-f", "concat", "-safe", "0", "-i", str(listing)]
    coding = ["-c:v", "libx264", "-crf", str(crf), "-pix_fmt", "yuv420p", "-r", str(FPS)]
    # A key frame a second and no frames out of order, as cameras send.
    camera = ["-g", str(FPS), "-bf", "0", "-movflags", "+faststart"]
    command = ["ffmpeg", "-v", "error", "-y", *source, *coding, *camera, str(out)]
    subprocess.run(command, check=True)


def decoded(video: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames as OpenCV decodes them."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    while True:
        found, frame = capture.read()
        if not found:
            return
        yield np.asarray(frame, np.uint8)


def streamed(source: str, engine: Engine, masks: Path, frames: int) -> dict[str, object]:
    """The live score of a source that is read frame by frame."""
    scoring = Scoring(masks, engine.card.classes)
    run(Stream(source, engine, StreamOptions(realtime=False, max_frames=frames)), [scoring])
    figures = scoring.to_dict()
    assert figures is not None
    return figures


def measure(engine: Engine, root: Path, crf: int, folder: Path) -> Row:
    """All ways of one quality."""
    split = read_split(root, "val")
    video = folder / f"crf{crf}.mp4"
    encode(list_images(root / "images"), crf, video)
    masks = [load_sample(sample, split.classes)[1] for sample in split]
    expected = score(engine, zip(decoded(video), masks, strict=True)).to_dict()
    file = streamed(str(video), engine, root / "masks", len(split))
    with RtspCamera(video) as camera:
        live = streamed(camera.url, engine, root / "masks", len(split))
    names = ("mean_iou", "pixel_accuracy", "per_class")
    return Row(
        crf=crf,
        kbit_s=round(video.stat().st_size * 8 / 1000 / (len(split) / FPS)),
        decoded=expected["mean_iou"],  # type: ignore[arg-type]
        file_stream=file["mean_iou"],  # type: ignore[arg-type]
        camera_stream=live["mean_iou"],  # type: ignore[arg-type]
        live_frames=live["frames"],  # type: ignore[arg-type]
        equal=all(expected[name] == file[name] == live[name] for name in names),
    )


def table(pictures: float, rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        f"Mean IoU of the pictures: {pictures:.5f}.",
        "",
        "| CRF | kbit/s | decoded frames | H.264 costs | file, streamed | RTSP camera | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row.decoded:.5f} | {pictures - row.decoded:+.5f}"
        streams = f"{row.file_stream:.5f} | {row.camera_stream:.5f}"
        same = "yes" if row.equal else "no"
        lines.append(f"| {row.crf} | {row.kbit_s} | {figures} | {streams} | {same} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    network, root, out = (Path(argument) for argument in sys.argv[1:4])
    with edgeseg.load(network) as engine, tempfile.TemporaryDirectory() as folder:
        pictures = evaluate(engine, read_split(root, "val"))
        rows = [measure(engine, root, crf, Path(folder)) for crf in QUALITIES]
    document = {
        "network": engine.card.name,
        "input": f"{engine.card.input.width}x{engine.card.input.height}",
        "frames": pictures.images,
        "fps": FPS,
        "opencv": cv2.__version__,
        "pictures_mean_iou": pictures.mean_iou,
        "rows": [asdict(row) for row in rows],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "labelled.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "labelled.md").write_text(table(pictures.mean_iou, rows))


if __name__ == "__main__":
    main()
