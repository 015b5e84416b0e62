"""Measure how long edgeseg takes to start, using whole processes as a user starts them.

    python bench/startup.py runs/nuclei/model.int8.onnx

Runs are interleaved in random order; figures are medians. The bare interpreter is measured too,
since it is part of all other figures. Files are in the page cache, and modules are compiled, as
those of an installed package are.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import circumstances, command_line, turns, words, write_json

from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).with_name("results") / "startup.json"
GOALS_S = {"import edgeseg": 0.06, "edgeseg --help": 0.3, "edgeseg stream, first frame out": 0.8}
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def main() -> None:
    """Measure, print Markdown, write JSON."""
    options = _options()
    cases = commands(options.engine)
    samples = measure(cases, options.runs, options.seed)
    document = {
        "schema": "edgeseg.startup/1",
        **circumstances(),
        "runs": options.runs,
        "engine": None if options.engine is None else options.engine.name,
        "seconds": {name: summarise(values) for name, values in samples.items()},
    }
    write_json(options.out, document)
    print(render_markdown(table(document["seconds"])))
    if options.engine is None:
        print("No engine given, so the stream was not started.", file=sys.stderr)


def commands(engine: Path | None) -> dict[str, list[str]]:
    """Name → command line, the bare interpreter first."""
    python = [sys.executable]
    cases = {
        "python -c pass": [*python, "-c", "pass"],
        "import edgeseg": [*python, "-c", "import edgeseg"],
        "edgeseg --help": [*python, "-m", "edgeseg", "--help"],
        "edgeseg stream --help": [*python, "-m", "edgeseg", "stream", "--help"],
    }
    if engine is not None:
        source = ["--source", "test:640x480@25", "--max-frames", "1", "--no-window", "--json"]
        cases["edgeseg stream, first frame out"] = [
            *(*python, "-m", "edgeseg", "stream", str(engine), *source)
        ]
    return cases


def measure(cases: dict[str, list[str]], runs: int, seed: int) -> dict[str, list[float]]:
    """Wall seconds of ``runs`` processes a case; one more beforehand fills the caches."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for number, name in turns(list(cases), runs + 1, seed):
        began = time.perf_counter()
        ended = subprocess.run(
            cases[name], capture_output=True, text=True, check=False, env=ENVIRONMENT
        )
        seconds = time.perf_counter() - began
        if ended.returncode != 0:
            sys.exit(f"{name} failed:\n{ended.stderr}")
        if number:
            samples[name].append(seconds)
    return samples


def summarise(seconds: list[float]) -> dict[str, float]:
    """Median, quartiles and extremes, to a millisecond."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    figures = {"p25": low, "p50": middle, "p75": high, "min": min(seconds), "max": max(seconds)}
    return {name: round(value, 3) for name, value in figures.items()}


def table(seconds: dict[str, Any]) -> Table:
    """A row a command: median, quartiles, and the goal where there is one."""
    columns = (
        *words("Command"),
        Column("Median", "s"),
        Column("Quartiles", "s"),
        Column("Goal", "s"),
    )
    rows = tuple(
        (
            name,
            f"{value['p50']:.3f}",
            f"{value['p25']:.3f} to {value['p75']:.3f}",
            f"{GOALS_S[name]:.2f}" if name in GOALS_S else "–",
        )
        for name, value in seconds.items()
    )
    return Table(columns, rows)


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("engine", nargs="?", type=Path, help="model*.onnx for starting a stream")
    parser.add_argument(
        "--runs", type=int, default=15, help="number of processes per command (default 15)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for the order of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the results")
    options = parser.parse_args()
    if options.runs < 2:
        parser.error("--runs must be at least 2, for quartiles")
    return options


if __name__ == "__main__":
    main()
