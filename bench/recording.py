"""Measure size, CPU time and quality of recordings in each codec.

    python bench/recording.py VIDEO...

The frames of each video are recorded without overlay at 25 frames per second, into a folder of
its own. Encoders are those that the stream finds on this machine.
"""

import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from harness import circumstances, command_line, cpu_seconds, turns, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.artifacts.files import write_atomic
from edgeseg.options.streaming import Codec
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.sources.spec import parse_source
from edgeseg.stream.reader import Reader
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.encoded import find_encoder
from edgeseg.stream.sinks.recording import Recording

RESULTS = Path(__file__).with_name("results") / "stream"
CASES: tuple[tuple[Codec, str], ...] = (
    ("mjpeg", ".mkv"),
    ("h264", ".mkv"),
    ("h264", ".mp4"),
    ("hevc", ".mp4"),
)
FPS = 25
CARD = ModelCard(
    name="none",
    arch="none",
    classes=ClassMap.model_validate({"names": ("a", "b")}),
    input=InputSpec(height=64, width=64),
)


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    """All frames of a video."""
    with av.open(str(path)) as container:
        decoded = container.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in decoded]


def sample(codec: Codec, suffix: str, frames: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Record the frames once."""
    labels = np.zeros((64, 64), np.uint8)
    source = Reader(parse_source(f"test:64x64@{FPS}"), realtime=False)
    source.fps = FPS
    with tempfile.TemporaryDirectory() as folder:
        sink = Recording(Path(folder) / f"a{suffix}", overlay=False, codec=codec)
        begin = cpu_seconds()
        sink.open([source])
        for number, frame in enumerate(frames):
            at = number / FPS
            result = StreamResult(number, "", frame, at, media_time=at, labels=labels, card=CARD)
            sink.write(result)
        sink.close()
        cpu = cpu_seconds() - begin
        size = sink.path.stat().st_size
        shown = frames_of(sink.path)
    quality = [cv2.PSNR(a, b) for a, b in zip(shown, frames, strict=True)]
    return {
        "mb_a_minute": size / 1e6 / (len(frames) / FPS) * 60,
        "cpu_ms": cpu / len(frames) * 1000,
        "psnr_db": statistics.fmean(quality),
    }


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=100, help="at most so many of each video")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    clips = {path.name: frames_of(path)[: options.frames] for path in options.videos}
    pairs = list(itertools.product(clips, CASES))
    samples: dict[Any, list[dict[str, float]]] = {pair: [] for pair in pairs}
    for _, (name, case) in turns(pairs, options.rounds):
        samples[name, case].append(sample(*case, clips[name]))
    encoders = {"h264": find_encoder("h264"), "hevc": find_encoder("hevc")}
    rows = []
    for (name, (codec, suffix)), found in samples.items():
        height, width = clips[name][0].shape[:2]
        encoder = encoders.get(codec)
        rows.append(
            {
                "video": f"{name}, {width}x{height}, {len(clips[name])} frames",
                "codec": codec,
                "container": suffix,
                "encoder": encoder.name if encoder else "OpenCV's JPEG",
                **{key: round(statistics.median(row[key] for row in found), 1) for key in found[0]},
            }
        )
    document = {
        "schema": "edgeseg.recording/1",
        **circumstances(),
        "pyav": av.__version__,
        "rounds": options.rounds,
        "rows": rows,
    }
    write_json(options.out / "recording.json", document)
    columns = (
        *words("Video", "Codec", "Container", "Encoder"),
        Column("Size", "MB/min"),
        Column("CPU a frame", "ms"),
        Column("PSNR", "dB"),
    )
    table = Table(columns, tuple(tuple(map(str, row.values())) for row in rows))
    text = (
        "# Recordings in each codec\n\n"
        f"`python bench/recording.py VIDEO…`: no overlay, {FPS} frames a second. Medians.\n\n"
        f"{document['machine']['cpu']}, PyAV {av.__version__}, {document['created']}, "
        f"{options.rounds} rounds,\nload average {document['load_1min']:.1f} after the run.\n\n"
    )
    write_atomic(options.out / "recording.md", text + render_markdown(table) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
