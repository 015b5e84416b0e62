"""Measure the resources and output of one camera, and estimate what many cameras need.

    python bench/scale.py runs/NAME/model.int8.onnx clip.mp4    measure and write both files
    python bench/scale.py                                       recompute the tables

Everything is measured by ``edgeseg stream`` as a user runs it, in processes of their own: CPU
time of a whole process over its frames, so that waiting does not count, and other work hardly.
One thread; the machine's other cores repeat it. ``docs/scale.md`` shows ``tables.md``.
"""

from __future__ import annotations

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

from edgeseg.artifacts.files import write_atomic
from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).with_name("results") / "scale"
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
    parser.add_argument("engine", nargs="?", type=Path)
    parser.add_argument("clip", nargs="?", type=Path, help="H.264 clip at 25 frames per second")
    parser.add_argument("--frames", type=int, default=60, help="number of frames per source")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measured = RESULTS / "measured.json"
    if options.engine is not None:
        if options.clip is None:
            parser.error("expected ENGINE and CLIP")
        document = measure(options.engine, options.clip, options.frames, options.rounds)
        write_json(measured, document)
    text = tables(json.loads(measured.read_text("utf-8")))
    write_atomic(RESULTS / "tables.md", text)
    print(text, end="")


def measure(engine: Path, clip: Path, frames: int, rounds: int) -> dict[str, Any]:
    """All cases in turns, the medians of their rounds; and what needs no rounds."""
    found: dict[str, list[dict[str, float]]] = {case.name: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            found[case.name].append(run(case, engine, clip, frames))
    return {
        "schema": "edgeseg.scale/1",
        **circumstances(),
        "engine": engine.name,
        "clip": {"name": clip.name, **_describe(clip), "decode_cpu_ms": decode_cpu_ms(clip)},
        "cases": {name: medians(rows) for name, rows in found.items()},
        "metrics": {str(n): scrape(engine, clip, n) for n in (1, 4)},
    }


def run(case: Case, engine: Path, clip: Path, frames: int) -> dict[str, float]:
    """One stream to its end: CPU milliseconds and bytes a frame, peak memory.

    Starting costs CPU time as well: a run of one frame is taken off.
    """
    with tempfile.TemporaryDirectory() as folder:
        _, started = _stream(case, engine, clip, case.sources, Path(folder, "one"))
        document, whole = _stream(case, engine, clip, case.sources * frames, Path(folder, "all"))
        files = (path for path in Path(folder, "all").rglob("*") if path.is_file())
        written = sum(path.stat().st_size for path in files)
    counted = document["frames"] - case.sources
    return {
        "cpu_ms": (whole - started) * 1000 / counted,
        "peak_rss_mib": document["peak_rss_mib"],
        "bytes": written / document["frames"],
    }


def _stream(
    case: Case, engine: Path, clip: Path, frames: int, folder: Path
) -> tuple[dict[str, Any], float]:
    """The command's document and the CPU seconds of its process."""
    folder.mkdir()
    command = [
        *(sys.executable, "-m", "edgeseg", "stream", str(engine), "--no-window", "--json"),
        *("--threads", "1", "--max-frames", str(frames), "--mode", "throughput", "--lanes", "1"),
        *(part for _ in range(case.sources) for part in ("--source", str(clip))),
        *(option.format(folder=folder) for option in case.options),
    ]
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
