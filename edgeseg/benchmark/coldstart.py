"""Measure the start of one engine in a fresh process.

Run as ``python -m edgeseg.benchmark.coldstart PATH THREADS``.

A process of its own because neither figure can be had in one that already runs: libraries are
imported once, and the peak of resident memory never falls.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeseg.machine import peak_rss_mib


@dataclass(frozen=True)
class ColdStart:
    """Time and memory of a fresh process until its first label map, with a warm page cache.

    Attributes:
        open_ms: Importing the runtime and loading the artefact.
        first_inference_ms: The first picture, preprocessing included.
        total_ms: From the start of the Python interpreter to the first label map.
        peak_rss_mib: Peak resident memory of the process.
    """

    open_ms: float
    first_inference_ms: float
    total_ms: float
    peak_rss_mib: float

    def milliseconds(self) -> dict[str, float]:
        """``open``, ``first_inference`` and ``total``."""
        return {
            "open": self.open_ms,
            "first_inference": self.first_inference_ms,
            "total": self.total_ms,
        }


def measure(
    artifact: Path, *, threads: int | None = None, timeout: float = 120.0
) -> ColdStart | str:
    """Start ``artifact`` in a fresh process; the reason as one line where that failed."""
    arguments = [
        sys.executable,
        "-m",
        "edgeseg.benchmark.coldstart",
        str(artifact),
        str(threads or 0),
    ]
    began = time.monotonic_ns()
    try:
        child = subprocess.run(
            arguments, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"gave no label map within {timeout:g} s"
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return lines[-1] if lines else f"ended with status {child.returncode}"
    report = json.loads(child.stdout)
    # CLOCK_MONOTONIC is one clock for all processes of a Linux machine.
    total_ms = (report.pop("ended_ns") - began) / 1e6
    return ColdStart(total_ms=total_ms, **report)


def run(artifact: Path, threads: int | None) -> dict[str, float]:
    """Open ``artifact`` in this process and segment one black picture."""
    began = time.monotonic_ns()
    import numpy as np

    from edgeseg.benchmark.cases import label_one
    from edgeseg.loading import load
    from edgeseg.ops.preprocess import preprocess

    with load(artifact, threads=threads) as engine:
        opened = time.monotonic_ns()
        spec = engine.card.input
        black = np.zeros((spec.height, spec.width, 3), np.uint8)
        label_one(engine, preprocess(black, spec))
        ended = time.monotonic_ns()
    return {
        "open_ms": (opened - began) / 1e6,
        "first_inference_ms": (ended - opened) / 1e6,
        "ended_ns": ended,
        "peak_rss_mib": peak_rss_mib(),
    }


def main(arguments: list[str]) -> int:
    """``PATH THREADS`` → one line of JSON on stdout; 0 threads is the runtime's default."""
    from edgeseg.errors import EdgesegError

    try:
        print(json.dumps(run(Path(arguments[0]), int(arguments[1]) or None)))
    except EdgesegError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


def medians(starts: list[ColdStart]) -> ColdStart:
    """Median of each figure of at least one start."""
    columns = zip(*(asdict(start).values() for start in starts), strict=True)
    return ColdStart(*(round(statistics.median(column), 2) for column in columns))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
