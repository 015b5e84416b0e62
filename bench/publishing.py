"""Measure the CPU time of publishing the overlay, in this process and the one that sends it.

    python bench/publishing.py VIDEO...

The frames of each video, scaled to 1280x720, get an overlay of two classes. It is published as an
HLS playlist, and by RTSP to FFmpeg's program on this machine, whose own time does not count. The
row ``off`` draws the overlay only. The start of the encoder and of the process are included.
"""

import itertools
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
from harness import circumstances, command_line, turns, words, write_json
from numpy.typing import NDArray
from recording import CARD, FPS, RESULTS, frames_of

from edgeseg.artifacts.files import write_atomic
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.sources.spec import parse_source
from edgeseg.stream import StreamResult, VideoPublisher
from edgeseg.stream.reader import Reader
from edgeseg.stream.sinks.base import SinkContext
from edgeseg.stream.sinks.encoded import find_encoder

SIZE = (1280, 720)
CASES = ("off", "HLS", "RTSP")


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def sample(case: str, frames: list[NDArray[np.uint8]]) -> float:
    """CPU time of a frame, seconds."""
    if case == "off":
        return played(frames, None)
    if case == "HLS":
        with tempfile.TemporaryDirectory() as folder:
            return played(frames, VideoPublisher(f"{folder}/a.m3u8"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"rtsp://127.0.0.1:{port}/live"
    command = ["ffmpeg", "-v", "quiet", "-rtsp_flags", "listen", "-i", url, "-c", "copy"]
    with subprocess.Popen([*command, "-f", "null", "-"], stdin=subprocess.DEVNULL) as server:
        while f":{port:04X} 00000000:0000 0A" not in Path("/proc/net/tcp").read_text():
            time.sleep(0.05)
        used = played(frames, VideoPublisher(url))
        server.kill()
    return used


def played(frames: list[NDArray[np.uint8]], sink: VideoPublisher | None) -> float:
    """Draw the overlay of each frame and publish it; CPU seconds a frame."""
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 1
    source = Reader(parse_source(f"test:64x64@{FPS}"), realtime=False)
    source.fps = FPS
    begin = cpu_seconds()
    if sink is not None:
        sink.prepare(SinkContext(patient=True))  # FFmpeg takes one connection, and none to try
        sink.open([source])
    for number, frame in enumerate(frames):
        at = number / FPS
        result = StreamResult(number, "", frame, at, media_time=at, labels=labels, card=CARD)
        result.overlay()
        if sink is not None:
            sink.write(result)
    if sink is not None:
        sink.close()
    return (cpu_seconds() - begin) / len(frames)


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=100, help="at most so many of each video")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    clips = {
        path.name: [
            np.asarray(cv2.resize(frame, SIZE), np.uint8)
            for frame in frames_of(path)[: options.frames]
        ]
        for path in options.videos
    }
    pairs = list(itertools.product(clips, CASES))
    samples: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    for _, (name, case) in turns(pairs, options.rounds):
        samples[name, case].append(sample(case, clips[name]))
    rows = [
        {"video": name, "publishing": case, "cpu_ms": round(1000 * statistics.median(found), 1)}
        for (name, case), found in samples.items()
    ]
    encoder = find_encoder("h264", SIZE)
    document = {
        "schema": "edgeseg.publishing/1",
        **circumstances(),
        "pyav": av.__version__,
        "encoder": encoder.name if encoder else None,
        "frames": options.frames,
        "rounds": options.rounds,
        "rows": rows,
    }
    write_json(options.out / "publishing.json", document)
    columns = (*words("Video", "Publishing"), Column("CPU a frame", "ms"))
    table = Table(columns, tuple(tuple(map(str, row.values())) for row in rows))
    text = (
        "# CPU time of publishing\n\n"
        "`python bench/publishing.py VIDEO…`: frames scaled to 1280x720, with the overlay drawn; "
        "medians.\n\n"
        f"{document['machine']['cpu']}, PyAV {av.__version__}, {document['encoder']}, "
        f"{document['created']}, {options.frames} frames,\n{options.rounds} rounds, "
        f"load average {document['load_1min']:.1f} after the run.\n\n"
    )
    write_atomic(options.out / "publishing.md", text + render_markdown(table) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
