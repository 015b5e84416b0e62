"""Score a labelled drive as a stream: in four ways, and with smoothed masks.

``python bench/labelled_stream.py NETWORK DIR OUT`` takes DIR/images and DIR/masks as frames of
a drive at 15 frames per second and encodes them as H.264. ``--part score``, at several qualities,
writes OUT/labelled.json and OUT/labelled.md with the mean IoU

- of the pictures themselves, as ``edgeseg eval`` gives it;
- of the frames that OpenCV decodes from the file, one by one through ``Engine.segment``: less
  than the pictures' by what H.264 costs;
- of the file as a stream, which must equal that;
- of the file as an RTSP camera that is read frame by frame, which must equal it too.

``--part smooth`` writes OUT/smooth.json and OUT/smooth.md: mean IoU, flicker and processor time of
the file as a stream, for several values of ``--smooth``. The network runs once for each frame.

Needs ffmpeg with libx264 and aio-rtsp-toolkit[server].
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import cv2
import numpy as np
from faults.conftest import RtspCamera
from harness import circumstances
from numpy.typing import NDArray

import edgeseg
from edgeseg.artifacts.card import InputSpec
from edgeseg.data.folders import list_images, load_sample, read_split
from edgeseg.engines.base import Engine
from edgeseg.evaluation import evaluate, score
from edgeseg.ops.native import simd_level
from edgeseg.ops.preprocess import fit_mask
from edgeseg.ops.smoothing import smooth
from edgeseg.stream import Scoring, Sink, Stream, StreamOptions, StreamResult, run
from edgeseg.stream.smoothing import Flicker, Smoother

FPS = 15
QUALITIES = (18, 23, 28, 35)
"""Constant rate factors of x264: 18 is taken for lossless by eye, 23 is its default."""

CRF = 23
SECONDS = (None, 0.1, 0.2, 0.4)
ROUNDS = 7


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


def streamed(
    source: str, engine: Engine, masks: Path, frames: int, *sinks: Sink, smooth: float | None = None
) -> dict[str, object]:
    """The live score of a source that is read frame by frame."""
    scoring = Scoring(masks, engine.card.classes)
    options = StreamOptions(realtime=False, max_frames=frames, smooth=smooth)
    run(Stream(source, engine, options), [scoring, *sinks])
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


class Remembering(Engine):
    """An engine whose answers are computed once, so that streams differ by all the rest."""

    runtime = "remembered"

    def __init__(self, engine: Engine) -> None:
        self.card, self.path, self.capabilities = engine.card, engine.path, engine.capabilities
        self._engine = engine
        self._known: dict[bytes, NDArray[np.uint8]] = {}

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        key = hashlib.sha1(batch.tobytes(), usedforsecurity=False).digest()
        if key not in self._known:
            self._known[key] = self._engine.infer(batch).copy()
        return self._known[key]

    def close(self) -> None:
        """Nothing to close."""


class Changes(Sink):
    """How label maps change from frame to frame, beside the drawn labels of the same frames.

    Args:
        truth: Drawn labels at the network's size, uint8 (height, width) each.
    """

    def __init__(self, truth: Sequence[NDArray[np.uint8]]) -> None:
        self._truth = truth
        self._maps: list[NDArray[np.uint8]] = []

    def write(self, result: StreamResult) -> None:
        """Keep the labels."""
        self._maps.append(result.labels)

    @property
    def share(self) -> float:
        """Share of pixels whose label differs from the frame's before."""
        pairs = zip(self._maps, self._maps[1:], strict=False)
        return statistics.fmean(float(np.mean(one != two)) for one, two in pairs)

    @property
    def false_flicker(self) -> float:
        """Flicker of the pixels whose drawn label is the same in all three frames."""
        flickering = still = 0
        for first in range(len(self._maps) - 2):
            a, b, c = self._maps[first : first + 3]
            same = np.ptp(self._truth[first : first + 3], axis=0) == 0
            still += int(np.count_nonzero(same))
            flickering += int(np.count_nonzero(same & (a == c) & (b != c)))
        return flickering / still


@dataclass(frozen=True)
class Smoothed:
    """One value of ``--smooth``: shares of 1, and milliseconds a frame.

    ``cpu_ms`` is the median of some runs of the whole stream without the network.
    """

    smooth: float | None
    mean_iou: float
    flicker: float
    false_flicker: float
    changes: float
    smooth_p50_ms: float | None
    cpu_ms: float


def smoothed(
    engine: Engine, video: Path, masks: Path, truth: Sequence[NDArray[np.uint8]]
) -> list[Smoothed]:
    """Figures of each of ``SECONDS``; the runs whose time is taken take turns."""
    fitted = [fit_mask(mask, engine.card.input) for mask in truth]
    rows: list[Smoothed] = []
    times: dict[float | None, list[float]] = {value: [] for value in SECONDS}
    for value in SECONDS:
        changes = Changes(fitted)
        score_of = streamed(str(video), engine, masks, len(truth), changes, smooth=value)
        options = StreamOptions(realtime=False, smooth=value)
        (source,) = (report := run(Stream(str(video), engine, options))).sources
        took = report.stages_ms.get("smooth", {}).get("p50")
        rows.append(
            Smoothed(
                smooth=value,
                mean_iou=score_of["mean_iou"],  # type: ignore[arg-type]
                flicker=source.flicker or 0.0,
                false_flicker=changes.false_flicker,
                changes=changes.share,
                smooth_p50_ms=took,
                cpu_ms=0.0,
            )
        )
    for _ in range(ROUNDS):
        for value in SECONDS:
            start = time.process_time()
            report = run(Stream(str(video), engine, StreamOptions(realtime=False, smooth=value)))
            times[value].append((time.process_time() - start) * 1000 / report.frames)
    return [replace(row, cpu_ms=statistics.median(times[row.smooth])) for row in rows]


def best_ms(call: Callable[[], object], calls: int = 300) -> float:
    """Shortest of many calls."""
    best = float("inf")
    for _ in range(calls):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def alone(engine: Engine) -> dict[str, float]:
    """Milliseconds of each part alone: a label map of 512x256, noise, and panning 1280x720."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 11, (4, 256, 512), np.uint8)
    memory = np.zeros((2, 256, 512), np.uint8)
    limits = np.where(rng.random((64, 128)) < 0.3, 52, 255).astype(np.uint8)
    card = engine.card.model_copy(update={"input": InputSpec(height=256, width=512)})
    world = cv2.GaussianBlur(rng.integers(0, 256, (720, 1280, 3), np.uint8), (0, 0), 8)
    world = cv2.normalize(world, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    frames = [np.roll(world, 12 * step, axis=1) for step in range(4)]
    smoother, flicker, count = Smoother(0.2), Flicker(), iter(range(1 << 30))

    def whole() -> None:
        index = next(count)
        frame, own = frames[index % 4], labels[index % 4].copy()
        result = StreamResult(index, "noise", frame, 0.0, labels=own, card=card)
        smoother.smooth(result, index / 25)

    return {
        "kernel": best_ms(lambda: smooth(labels[next(count) % 4], memory, limits, 52)),
        "smoother": best_ms(whole),
        "flicker": best_ms(lambda: flicker.add(labels[next(count) % 4])),
    }


def smooth_table(document: dict[str, Any]) -> str:
    """As Markdown."""
    parts = document["alone_ms"]
    lines = [
        f"{document['network']} at {document['input']}, {document['frames']} frames at {FPS} Hz, "
        f"H.264 of CRF {CRF}. The drawn labels of these frames change in "
        f"{document['labels_changes']:.2%} of the pixels from frame to frame, and flicker in "
        f"{document['labels_flicker']:.2%}.",
        "",
        "| `--smooth` | mean IoU | flicker | where the drawn label stays | changes a frame "
        "| smoothing, ms | stream without network, CPU ms a frame |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        took = "" if row["smooth_p50_ms"] is None else f"{row['smooth_p50_ms']:.2f}"
        shares = f"{row['mean_iou']:.4f} | {row['flicker']:.3%} | {row['false_flicker']:.3%}"
        shares += f" | {row['changes']:.2%}"
        value = "off" if row["smooth"] is None else f"{row['smooth']:g}"
        lines.append(f"| {value} | {shares} | {took} | {row['cpu_ms']:.2f} |")
    lines += [
        "",
        f"Alone, for a label map of 512x256 of a frame of 1280x720, on one core, shortest of 300: "
        f"the kernel {parts['kernel']:.3f} ms, all of the smoothing {parts['smoother']:.3f} ms, "
        f"the flicker figure {parts['flicker']:.3f} ms ({document['simd']}).",
        "",
        f"{document['machine']['cpu']}, {document['created']}, load {document['load_1min']:.1f}; "
        "noise of seed 0.",
    ]
    return "\n".join(lines) + "\n"


def measure_smoothing(engine: Engine, root: Path, folder: Path) -> dict[str, Any]:
    """The document of ``--part smooth``."""
    cv2.setNumThreads(1)
    split = read_split(root, "val")
    video = folder / "drive.mp4"
    encode(list_images(root / "images"), CRF, video)
    truth = [load_sample(sample, split.classes)[1] for sample in split]
    flicker = Flicker()
    for mask in truth:
        flicker.add(mask)
    pairs = zip(truth, truth[1:], strict=False)
    rows = smoothed(Remembering(engine), video, root / "masks", truth)
    return {
        "network": engine.card.name,
        "input": f"{engine.card.input.width}x{engine.card.input.height}",
        "frames": len(split),
        "fps": FPS,
        "crf": CRF,
        "simd": simd_level(),
        **circumstances(),
        "labels_flicker": flicker.share,
        "labels_changes": statistics.fmean(float(np.mean(one != two)) for one, two in pairs),
        "alone_ms": alone(engine),
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("network", "root", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--part", choices=("score", "smooth"), default="score")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--name", default="smooth", help="of the files of --part smooth")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part == "score":
        score_drive(given.network, given.root, given.out)
        return
    with (
        edgeseg.load(given.network, threads=given.threads) as engine,
        tempfile.TemporaryDirectory() as folder,
    ):
        document = measure_smoothing(engine, given.root, Path(folder))
    (given.out / f"{given.name}.json").write_text(json.dumps(document, indent=2) + "\n")
    (given.out / f"{given.name}.md").write_text(smooth_table(document))


def score_drive(network: Path, root: Path, out: Path) -> None:
    """Measure and write what ``--part score`` does."""
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
    (out / "labelled.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "labelled.md").write_text(table(pictures.mean_iou, rows))


if __name__ == "__main__":
    main()
