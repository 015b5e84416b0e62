"""Benchmark a network against a copy of itself, which must show no difference.

    python bench/same.py runs/nuclei/model.onnx

Each trial is a benchmark of both files, interleaved as `edgeseg bench` does it. Their intervals
should nearly always overlap, in one trial and from one trial to the next; two intervals of 95 %
around the same value miss each other in about one of 170 trials (normal, of equal width).
"""

import argparse
import shutil
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import command_line, write_json

from edgeseg.artifacts.sidecar import sidecar_path
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.benchmark.measure import Case, bench, noise_frames
from edgeseg.console import progress_bar
from edgeseg.loading import load
from edgeseg.metrics import Interval
from edgeseg.options.benchmark import BenchConfig

RESULTS = Path(__file__).with_name("results") / "same.json"
FIGURES = ("p50", "p90", "mean")


def main() -> None:
    """Measure, print a line a figure, write JSON."""
    options = _options()
    reports = measure(options.network, options)
    document = {
        "schema": "edgeseg.same/1",
        "machine": reports[0].machine.to_dict(),
        "network": options.network.name,
        "threads": options.threads,
        "seconds": options.seconds,
        "trials": len(reports),
        "noisy_trials": sum(report.noisy for report in reports),
        "apart": {figure: apart(reports, figure) for figure in FIGURES},
        "medians_ms": [[_median(run) for run in report.runs] for report in reports],
    }
    write_json(options.out, document)
    print(f"{len(reports)} trials, {document['noisy_trials']} of them noisy")
    for figure, found in document["apart"].items():
        print(
            f"{figure}: intervals apart in {found['in_one_run']} of {len(reports)} trials, "
            f"from a trial to the next in {found['between_runs']} of {2 * len(reports) - 2}; "
            f"the interval is {found['width']:.1%} wide"
        )


def measure(network: Path, options: argparse.Namespace) -> list[BenchReport]:
    """Benchmarks of the network and its copy, one after another."""
    config = BenchConfig(
        seconds=options.seconds, threads=options.threads, cold_starts=0, seed=options.seed
    )
    with tempfile.TemporaryDirectory(prefix="edgeseg-same-") as folder, ExitStack() as stack:
        copy = Path(shutil.copy(network, folder))
        if sidecar_path(network).exists():
            shutil.copy(sidecar_path(network), folder)
        engines = [stack.enter_context(load(p, threads=options.threads)) for p in (network, copy)]
        cases = [Case.of(engine, options.threads) for engine in engines]
        return [
            bench(cases, images=noise_frames(), config=config)
            for _ in progress_bar(range(options.trials), "Trials", options.trials)
        ]


def apart(reports: list[BenchReport], figure: str) -> dict[str, Any]:
    """How often two intervals of one figure do not overlap, and how wide they are (median)."""
    pairs = [report.runs for report in reports]
    widths = sorted(
        (high - low) / _median(run)
        for runs in pairs
        for run in runs
        for low, high in [_of(run, figure)]
    )
    return {
        "in_one_run": sum(_miss(_of(one, figure), _of(two, figure)) for one, two in pairs),
        "between_runs": sum(
            _miss(_of(before, figure), _of(after, figure))
            for earlier, later in pairwise(pairs)
            for before, after in zip(earlier, later, strict=True)
        ),
        "width": round(widths[len(widths) // 2], 4),
    }


def _of(run: Run, figure: str) -> Interval:
    return (run.latency_interval_ms or {})[figure]


def _median(run: Run) -> float:
    return (run.latency_ms or {})["p50"]


def _miss(one: Interval, two: Interval) -> bool:
    return one[1] < two[0] or two[1] < one[0]


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("network", type=Path, help="engine that runs on this machine")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="measuring time per file and trial"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the results")
    options = parser.parse_args()
    if options.trials < 2:
        parser.error("--trials must be at least 2, to compare one with the next")
    return options


if __name__ == "__main__":
    main()
