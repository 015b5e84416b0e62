"""Measure the resources and output of one camera and of several, and estimate many.

    python bench/scale.py --measure [--video VIDEO]    measure and write both files
    python bench/scale.py                              recompute the tables

Everything is measured by ``edgeseg stream`` as a user runs it, in processes of their own, through
``unet-lite`` in INT8 at 512×256. The cost of a frame is CPU time over frames of files, on one
thread, so that waiting does not count, and other work hardly. The cameras are live: RTSP of 25
frames per second from this machine, all in one process. ``docs/scale.md`` shows ``tables.md``.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from harness import circumstances, command_line, medians, write_json
from stream_live import rtsp_server
from stream_scene import make_clip, make_engines, workshop

from edgeseg.artifacts.files import write_atomic
from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).with_name("results") / "scale"
LIVE_CAMERAS = (1, 2, 4, 8, 16)
CLIENTS = 4
"""Cameras that one RTSP server plays; a seventh client would wait, on two cores, for another."""
CAMERAS = (10, 1_000, 100_000)
RATES = (1, 5, 25)
"""Analysed frames a second of each camera."""
CAMERA_FPS = 25
CORES_OF_A_SERVER = 64
GPU_FPS = 1_000
"""Assumed, not measured: frames a second of one GPU through this network. `edgeseg bench` tells."""


@dataclass(frozen=True)
class Case:
    """One command line: ``sources`` copies of the clip, and what it writes."""

    name: str
    sources: int = 1
    options: tuple[str, ...] = ()


CASES = (
    Case("overlay thrown away"),
    Case("with JSON lines", options=("--json-lines", "{folder}/lines.jsonl")),
    Case("with masks", options=("--save-masks", "{folder}/masks")),
    Case("with a recording", options=("--record", "{folder}/overlay.mkv", "--codec", "mjpeg")),
    Case("4 cameras", sources=4),
)


def main() -> None:
    """Measure if asked, then work the tables out."""
    parser = command_line(__doc__)
    parser.add_argument("--measure", action="store_true", help="measure before")
    parser.add_argument("--video", type=Path, help="video used as the content of the clip")
    parser.add_argument("--frames", type=int, default=60, help="number of frames per source")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="seconds of live cameras")
    options = parser.parse_args()
    measured = RESULTS / "measured.json"
    if options.measure:
        with workshop() as folder:
            write_json(measured, measure(Path(folder), options))
    text = tables(json.loads(measured.read_text("utf-8")))
    write_atomic(RESULTS / "tables.md", text)
    print(text, end="")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All cases in turns, the medians of their rounds; and what needs no rounds."""
    before = circumstances()
    (engine,) = make_engines(folder, ["onnxruntime"], ["int8"]).values()
    media = folder / "media"
    media.mkdir()
    clip = make_clip(media / "clip.mp4", options.frames, fps=CAMERA_FPS, video=options.video)
    # Longer than the stream, which opens its cameras first.
    frames = int((options.seconds + 15) * CAMERA_FPS)
    long = make_clip(media / "live.mp4", frames, fps=CAMERA_FPS, video=options.video)
    found: dict[str, list[dict[str, float]]] = {case.name: [] for case in CASES}
    for _ in range(options.rounds):
        for case in CASES:
            found[case.name].append(run(case, engine, clip, options.frames))
    document = {
        "schema": "edgeseg.scale/2",
        **before,
        "engine": engine.name,
        "clip": {"name": clip.name, **_describe(clip), "decode_cpu_ms": decode_cpu_ms(clip)},
        "cases": {name: medians(rows) for name, rows in found.items()},
        "metrics": {str(n): scrape(engine, long, n) for n in (1, 4)},
    }
    with contextlib.ExitStack() as stack:
        servers = range(0, max(LIVE_CAMERAS), CLIENTS)
        urls = [f"{stack.enter_context(rtsp_server(media))}/live.mp4" for _ in servers]
        rows = [live(engine, urls, cameras, options.seconds) for cameras in LIVE_CAMERAS]
    return document | {"live": rows}


def live(engine: Path, urls: Sequence[str], cameras: int, seconds: float) -> dict[str, float]:
    """Cameras in one process: frames per second, of the least and the most served one, ages."""
    sources = [part for n in range(cameras) for part in ("--source", urls[n // CLIENTS])]
    document, cpu = _stream(engine, ["--duration", str(seconds), *sources])
    rates = [source["frames"] / document["seconds"] for source in document["sources"]]
    return {
        "cameras": cameras,
        "fps": document["fps"],
        "least_fps": min(rates),
        "most_fps": max(rates),
        "age_p50_ms": document["frame_age_ms"]["p50"],
        "age_p99_ms": document["frame_age_ms"]["p99"],
        "cores": cpu / document["seconds"],
        "peak_rss_mib": document["peak_rss_mib"],
    }


def run(case: Case, engine: Path, clip: Path, frames: int) -> dict[str, float]:
    """One stream to its end: CPU milliseconds and bytes a frame, peak memory.

    Starting costs CPU time as well: a run of one frame is taken off.
    """
    with tempfile.TemporaryDirectory() as folder:
        _, started = _file(case, engine, clip, case.sources, Path(folder, "one"))
        document, whole = _file(case, engine, clip, case.sources * frames, Path(folder, "all"))
        files = (path for path in Path(folder, "all").rglob("*") if path.is_file())
        written = sum(path.stat().st_size for path in files)
    counted = document["frames"] - case.sources
    return {
        "cpu_ms": (whole - started) * 1000 / counted,
        "peak_rss_mib": document["peak_rss_mib"],
        "bytes": written / document["frames"],
    }


def _file(
    case: Case, engine: Path, clip: Path, frames: int, folder: Path
) -> tuple[dict[str, Any], float]:
    folder.mkdir()
    sources = (part for _ in range(case.sources) for part in ("--source", str(clip)))
    written = (option.format(folder=folder) for option in case.options)
    threads = ("--threads", "1", "--mode", "throughput", "--lanes", "1")
    return _stream(engine, [*threads, "--max-frames", str(frames), *sources, *written])


def _stream(engine: Path, options: Sequence[str]) -> tuple[dict[str, Any], float]:
    """The command's document and the CPU seconds of its process."""
    command = [sys.executable, "-m", "edgeseg", "stream", str(engine), "--no-window", "--json"]
    command += options
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return json.loads(out), usage.ru_utime + usage.ru_stime


def scrape(engine: Path, clip: Path, sources: int) -> dict[str, int]:
    """Series and bytes of one scrape of ``--metrics``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "edgeseg", "stream", str(engine), "--no-window", "--realtime"),
        *("--metrics", str(port)),
        *(part for _ in range(sources) for part in ("--source", str(clip))),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:  # until each source had a frame
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    text = answer.read().decode()
            except OSError:
                text = ""
            shown = re.findall(r"^edgeseg_frames_total\{.*\} [1-9]", text, re.MULTILINE)
            if len(shown) == sources:
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {"series": len(series), "bytes": len(text)}


def decode_cpu_ms(clip: Path) -> float:
    """CPU milliseconds that OpenCV takes to decode a frame."""
    capture = cv2.VideoCapture(str(clip))
    began, frames = time.process_time(), 0
    while capture.read()[0]:
        frames += 1
    capture.release()
    return (time.process_time() - began) * 1000 / frames


def _describe(clip: Path) -> dict[str, float]:
    capture = cv2.VideoCapture(str(clip))
    frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    size = [capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    capture.release()
    megabits = clip.stat().st_size * 8 * fps / frames / 1e6
    return {"width": size[0], "height": size[1], "fps": fps, "megabits_a_second": megabits}


def tables(document: dict[str, Any]) -> str:
    """Markdown: one camera as measured, many as they follow."""
    return "\n".join(
        (
            "# What a camera costs, and many",
            "",
            "## One camera, measured",
            "",
            render_markdown(one_camera(document)),
            "",
            _origin(document),
            "",
            "## Several live cameras, measured",
            "",
            render_markdown(several_cameras(document)),
            "",
            "## Many cameras, worked out",
            "",
            render_markdown(many_cameras(document)),
            "",
        )
    )


def one_camera(document: dict[str, Any]) -> Table:
    """What was measured, a row a case."""
    rows = [
        (name, f"{case['cpu_ms']:.1f}", f"{case['peak_rss_mib']:.0f}", _bytes(case["bytes"]))
        for name, case in document["cases"].items()
    ]
    clip = document["clip"]
    rows.append(("decoding alone", f"{clip['decode_cpu_ms']:.1f}", "–", "–"))
    columns = ("Stream", "CPU, ms a frame", "Memory, MiB", "Written a frame")
    return _table(columns, rows)


def several_cameras(document: dict[str, Any]) -> Table:
    """Live cameras in one process, a row a number of them."""
    rows = [
        (
            str(row["cameras"]),
            f"{row['fps']:.1f}",
            f"{row['least_fps']:.1f} to {row['most_fps']:.1f}",
            f"{row['age_p50_ms']:.0f} / {row['age_p99_ms']:.0f}",
            f"{row['cores']:.2f}",
            f"{1000 * row['cores'] / row['fps']:.1f}",
            f"{row['peak_rss_mib']:.0f}",
        )
        for row in document["live"]
    ]
    columns = (
        *("Cameras of 25 fps", "Frames per second", "Of each camera", "Age, p50 / p99, ms"),
        *("Cores", "CPU, ms a frame", "Memory, MiB"),
    )
    return _table(columns, rows)


def many_cameras(document: dict[str, Any]) -> Table:
    """Cores, servers, network and telemetry; every figure follows from the measured ones."""
    clip, cases, metrics = document["clip"], document["cases"], document["metrics"]
    decode = clip["decode_cpu_ms"]
    network = cases["overlay thrown away"]["cpu_ms"] - decode
    series = (metrics["4"]["series"] - metrics["1"]["series"]) / 3
    line = cases["with JSON lines"]["bytes"]
    rows = []
    for cameras in CAMERAS:
        for rate in RATES:
            # H.264 predicts from frame to frame: all are decoded, however few are looked at.
            decoding = cameras * CAMERA_FPS * decode / 1000
            inferring = cameras * rate * network / 1000
            servers = (decoding + inferring) / CORES_OF_A_SERVER
            rows.append(
                (
                    f"{cameras:,}",
                    str(rate),
                    _number(decoding),
                    _number(inferring),
                    _number(servers),
                    _number(cameras * rate / GPU_FPS),
                    f"{_number(cameras * clip['megabits_a_second'] / 1000)} Gbit/s",
                    _bytes(cameras * rate * line * 86_400),
                    f"{cameras * series:,.0f}",
                )
            )
    columns = (
        *("Cameras", "Looked at, fps", "Cores to decode", "Cores to segment"),
        *(f"Servers of {CORES_OF_A_SERVER} cores", f"GPUs of {GPU_FPS} fps", "Video in"),
        *("JSON lines a day", "Metric series"),
    )
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    first, *others = columns
    heads = (Column(first, number=False), *(Column(name) for name in others))
    return Table(heads, tuple(tuple(row) for row in rows))


def _origin(document: dict[str, Any]) -> str:
    clip = document["clip"]
    return (
        f"`{document['engine']}`, {clip['width']:.0f}×{clip['height']:.0f} H.264 of "
        f"{clip['megabits_a_second']:.1f} Mbit/s, one thread, {document['created'][:10]}, "
        f"{document['machine']['cpu']}, {', '.join(document['machine']['cpu_flags'])}."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


if __name__ == "__main__":
    main()
