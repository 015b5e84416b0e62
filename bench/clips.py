"""Measure the CPU time and the memory of alert clips, of encoded frames and of a camera's packets.

    python bench/clips.py VIDEO...

The frames of each video, scaled to 1280x720, are results of a camera at 25 frames per second. Its
packets are the same frames in H.264 by libx264, a key frame every two seconds. Decoding and
inference are not part of it. Either no alert is raised, or one with the first frame, so that all
frames are in its clip.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from harness import circumstances, command_line, turns, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.files import write_atomic
from edgeseg.options.clips import ClipOptions
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.sources.spec import parse_source
from edgeseg.stream.alerts import Clips, parse_rule
from edgeseg.stream.reader import Reader
from edgeseg.stream.result import StreamResult

RESULTS = Path(__file__).with_name("results") / "stream"
FPS = 25
CASES = tuple(itertools.product(("frames", "packets"), (False, True)))


def frames_of(path: Path, most: int) -> list[NDArray[np.uint8]]:
    """The first frames of a video at 1280x720."""
    with av.open(str(path)) as container:
        decoded = itertools.islice(container.decode(video=0), most)
        frames = [frame.to_ndarray(format="bgr24") for frame in decoded]
    return [np.asarray(cv2.resize(frame, (1280, 720)), np.uint8) for frame in frames]


def film(path: Path, frames: Sequence[NDArray[np.uint8]]) -> Path:
    """Encode the frames as a camera does, one packet a frame."""
    with av.open(str(path), "w") as container:
        options = {"preset": "fast", "tune": "zerolatency"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.gop_size = 2 * FPS
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())
    return path


def sample(
    kind: str, in_clip: bool, frames: Sequence[NDArray[np.uint8]], film: Path
) -> dict[str, float]:
    """Pass the frames to clips once, each behind its packet."""
    source = Reader(parse_source("rtsp://127.0.0.1/live"), realtime=False)
    if kind == "packets":
        source.offer_packets()
    with tempfile.TemporaryDirectory() as folder, av.open(str(film)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        options = ClipOptions(clip_before=600, clip_after=600, clip_memory=10**9)
        sink = Clips(Path(folder), options, overlay=False)
        sink.open([source])
        if source.packets is not None:
            source.packets.connect(stream)
        begin = time.process_time()
        for number, (frame, packet) in enumerate(zip(frames, packets, strict=True)):
            at = number / FPS
            if source.packets is not None:
                source.packets.push(packet)
                at = time.monotonic()  # by which packets arrive
            result = StreamResult(number, "", frame, at)
            if in_clip and not number:
                sink.begin(parse_rule("bright > 0%"), result)
            sink.write(result)
        used = sink.memory
        sink.close()
        cpu = time.process_time() - begin
        assert sink.reports()[0].written == in_clip * len(frames)
    return {"cpu_ms": cpu / len(frames) * 1000, "mb_a_second": used / 1e6 * FPS / len(frames)}


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=100, help="at most so many of each video")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for path in options.videos:
        frames = frames_of(path, options.frames)
        samples: dict[Any, list[dict[str, float]]] = {case: [] for case in CASES}
        with tempfile.TemporaryDirectory() as folder:
            filmed = film(Path(folder) / "camera.mp4", frames)
            for _, case in turns(CASES, options.rounds):
                samples[case].append(sample(*case, frames, filmed))
        for (kind, in_clip), found in samples.items():
            figures = {key: statistics.median(each[key] for each in found) for key in found[0]}
            rows.append({"video": path.name, "kind": kind, "in_clip": in_clip, **figures})
    document = {
        "schema": "edgeseg.clips/1",
        **circumstances(),
        "pyav": av.__version__,
        "rounds": options.rounds,
        "frames": options.frames,
        "rows": rows,
    }
    write_json(options.out / "clips.json", document)
    table = Table(
        (
            *words("Video", "Clips of", "Alert"),
            Column("CPU a frame", "ms"),
            Column("Memory without an alert", "MB/s"),
        ),
        tuple(
            (
                row["video"],
                row["kind"],
                "with the first frame" if row["in_clip"] else "none",
                f"{row['cpu_ms']:.3f}",
                "" if row["in_clip"] else f"{row['mb_a_second']:.2f}",
            )
            for row in rows
        ),
    )
    text = (
        "# Alert clips\n\n"
        f"`python bench/clips.py VIDEO…`: 1280x720 at {FPS} frames a second, no overlay; the "
        "camera sends H.264. Medians.\n\n"
        f"{document['machine']['cpu']}, PyAV {av.__version__}, {document['created']}, "
        f"{options.rounds} rounds,\nload average {document['load_1min']:.1f} after the run.\n\n"
    )
    write_atomic(options.out / "clips.md", text + render_markdown(table) + "\n")


if __name__ == "__main__":
    main()
