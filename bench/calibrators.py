"""Compare the accuracy of INT8 across ways to choose calibration pictures and clip ranges.

    python bench/calibrators.py RUN --data DIR --name NAME        # → results/calibrators/NAME.*
    python bench/calibrators.py RUN --data DIR --name NAME --count 128 --count 8 --threads 1
    python bench/calibrators.py --memory model.onnx --data DIR --name fcn8s    # peak of memory

For each way to choose pictures from DIR's ``train``, the network runs once and each method
computes its ranges from that run. `edgeseg build` then builds INT8 engines, which are compared
with FP32 on ``val``: mean IoU as in `edgeseg eval`, and the share of pixels that keep their
label, both at the pictures' original size. With ``--runtime tensorrt-rtx`` the same ranges are
also evaluated in the form that TensorRT reads (int8 around zero), on the graph, in ONNX Runtime.
RUN is not written to.

``--memory`` computes ranges in a fresh process for 8 and for 128 pictures with each method, and
reports peak resident memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import circumstances, command_line, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.files import atomic_path, write_atomic
from edgeseg.building import BuildConfig, build
from edgeseg.console import log_to_stderr
from edgeseg.data.folders import Split, load_image, load_sample, read_split
from edgeseg.data.selection import SELECTS
from edgeseg.engines import open_engine
from edgeseg.errors import EdgesegError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.options.building import Method, Select
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import Ranges, measure_methods, measure_ranges
from edgeseg.precision.thresholds import METHODS
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.runs import CHECKPOINT, NETWORK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).with_name("results") / "calibrators"
RUNTIMES = ("onnxruntime", "tensorrt-rtx")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; write NAME.json and NAME.md, and NAME.png of the comparison."""
    options = _options(arguments)
    log_to_stderr(logging.ERROR)
    began = time.perf_counter()
    try:
        rows = memory(options) if options.memory else list(compare(options))
    except EdgesegError as error:
        print(f"error: {error.message}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    document = {
        "schema": "edgeseg.calibrators/1",
        "name": options.name,
        **circumstances(),
        "threads": options.threads,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }
    write_json(options.out / f"{options.name}.json", document)
    table = memory_table(rows) if options.memory else comparison_table(rows)
    write_atomic(options.out / f"{options.name}.md", f"# {options.name}\n\n{_text(table, rows)}")
    if not options.memory:
        save_plot(options.out / f"{options.name}.png", rows)
    print(render_markdown(table))


def compare(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each runtime, number of pictures, selection and method."""
    with tempfile.TemporaryDirectory() as folder:
        network = prepare(options.run, Path(folder))
        split = read_split(options.data, "val")
        fp32 = segment(network, split, options.threads)
        fp32_mean_iou = mean_iou(split, fp32)
        for count, select in itertools.product(options.count, SELECTS):
            found = measure(network, options.data / "train" / "images", count, select, options.seed)
            for method, ranges in found.items():
                for runtime in options.runtime or RUNTIMES[:1]:
                    labels = segment(quantised(network, ranges, runtime), split, options.threads)
                    score = mean_iou(split, labels)
                    row = {
                        "runtime": runtime,
                        "wanted": count,
                        "pictures": ranges.pictures,
                        "select": select,
                        "method": method,
                        "fp32_mean_iou": fp32_mean_iou,
                        "mean_iou": score,
                        "drop": fp32_mean_iou - score,
                        "agreement": same_labels(fp32, labels),
                    }
                    print(row, file=sys.stderr, flush=True)
                    yield row


def prepare(run: Path, folder: Path) -> Path:
    """A copy of the run's checkpoint, exported anew."""
    from edgeseg.export.network import export_onnx

    for path in run.glob(f"{CHECKPOINT}*"):
        shutil.copy(path, folder)
    return export_onnx(folder / CHECKPOINT, folder / NETWORK).path


def measure(
    network: Path, pictures: Path, count: int, select: Select, seed: int
) -> dict[Method, Ranges]:
    """Ranges by every method; the set is gone afterwards, so builds have nothing to be judged on.

    They are judged here, whatever they lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "set.json"
        collect(pictures, manifest, count=count, select=select, seed=seed)
        return measure_methods(network, manifest, METHODS)


def quantised(network: Path, ranges: Ranges, runtime: str) -> Path:
    """The graph in INT8 that `edgeseg build` makes for a runtime."""
    saved = network.with_name("calibrators.ranges.json")
    ranges.save(saved)
    config = BuildConfig(network, "int8", runtime, ranges=saved)  # type: ignore[arg-type]
    built = build(config).engine
    return built if built.suffix == ".onnx" else network.with_name("model.int8.tensorrt.onnx")


def segment(network: Path, split: Split, threads: int) -> list[NDArray[np.uint8]]:
    """Label maps of all pictures, at their own size."""
    with open_engine(network, threads) as engine:
        return [engine.segment(load_image(sample.image)) for sample in split]


def same_labels(these: Sequence[NDArray[np.uint8]], those: Sequence[NDArray[np.uint8]]) -> float:
    """Share of pixels, averaged over pictures."""
    return float(np.mean([np.mean(a == b) for a, b in zip(these, those, strict=True)]))


def mean_iou(split: Split, labels: Sequence[NDArray[np.uint8]]) -> float:
    """As `edgeseg eval` counts it."""
    confusion = ConfusionMatrix(len(split.classes), split.classes.ignore)
    for sample, found in zip(split, labels, strict=True):
        confusion.update(load_sample(sample, split.classes)[1], found)
    return confusion.mean_iou


def memory(options: argparse.Namespace) -> list[Row]:
    """Peaks of resident memory, each of a process of its own."""
    rows = []
    for pictures in options.count:
        for method in METHODS:
            command = [sys.executable, __file__, "--data", str(options.data), "--name", method]
            command += ["--count", str(pictures), "--peak", str(options.memory)]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"pictures": pictures, "method": method, **json.loads(ended.stdout)})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def peak(network: Path, data: Path, pictures: int, method: Any) -> Row:
    """Measure ranges here, and say what it took."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "set.json"
        made = collect(data / "train" / "images", manifest, count=pictures)
        began = time.perf_counter()
        measure_ranges(network, manifest, method=method)
    return {
        "measured": len(made.files),
        "seconds": round(time.perf_counter() - began, 1),
        "peak_rss_mib": round(_peak_rss_mib(), 1),
    }


def _peak_rss_mib() -> float:
    """``VmHWM``: ``ru_maxrss`` of a child starts at that of its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system states no VmHWM in /proc/self/status")


def comparison_table(rows: Sequence[Row]) -> Table:
    """Figures in points and per cent."""
    columns = [Column(name, number=False) for name in ("Runtime", "Selection", "Method")]
    columns[1:1] = [Column("Pictures")]
    columns += [Column("Mean IoU", "%"), Column("Drop", "points"), Column("Agreement", "%")]
    cells = [
        (
            *(row["runtime"], str(row["pictures"]), row["select"], row["method"]),
            *(f"{100 * row['mean_iou']:.2f}", f"{100 * row['drop']:.2f}"),
            f"{100 * row['agreement']:.2f}",
        )
        for row in rows
    ]
    best = min(range(len(rows)), key=lambda number: rows[number]["drop"])
    return Table(tuple(columns), tuple(cells), emphasis=best)


def memory_table(rows: Sequence[Row]) -> Table:
    """Peaks by method and number of pictures."""
    columns = (Column("Method", number=False), Column("Pictures"), Column("Peak", "MiB"))
    cells = [
        (row["method"], str(row["measured"]), f"{row['peak_rss_mib']:.0f}", f"{row['seconds']:.0f}")
        for row in rows
    ]
    return Table((*columns, Column("Time", "s")), tuple(cells))


def _text(table: Table, rows: Sequence[Row]) -> str:
    reference = rows[0].get("fp32_mean_iou")
    first = "" if reference is None else f"FP32: {100 * reference:.2f} % mean IoU.\n\n"
    return first + render_markdown(table)


def save_plot(path: Path, rows: Sequence[Row]) -> None:
    """Points lost, a panel a runtime and number of pictures, a group of bars a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["runtime"], row["wanted"]) for row in rows))
    figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, panels, rows)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)


def _draw(figure: Figure, panels: Sequence[tuple[str, int]], rows: Sequence[Row]) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    width = 0.8 / len(SELECTS)
    for axis, panel in zip(axes, panels, strict=True):
        those = [row for row in rows if (row["runtime"], row["wanted"]) == panel]
        for place, select in enumerate(SELECTS):
            drops = [100 * row["drop"] for row in those if row["select"] == select]
            left = [number + (place - 1.5) * width for number in range(len(drops))]
            axis.bar(left, drops, width, label=select, color=COLOURS[place])
        axis.set_xticks(range(len(METHODS)), METHODS)
        axis.set_title(f"{panel[0]}, {panel[1]} pictures", fontsize=9)
        axis.axhline(0, color="black", linewidth=0.8)
    axes[0].set_ylabel("mean IoU lost, points")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SELECTS), frameon=False)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="run folder with model.safetensors")
    parser.add_argument(
        "--data", type=Path, required=True, help="dataset folder with {train,val}/{images,masks|…}"
    )
    parser.add_argument("--name", required=True, help="name of the result files")
    parser.add_argument(
        "--count", type=int, action="append", help="number of calibration pictures; repeatable"
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        action="append",
        help="runtime to judge ranges for; repeatable",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--memory", type=Path, metavar="ONNX", help="measure peak memory on this network instead"
    )
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(json.dumps(peak(options.peak, options.data, options.count[0], options.name)))
        raise SystemExit
    if (options.run is None) == (options.memory is None):
        parser.error("name a run folder, or --memory ONNX")
    options.count = options.count or ([8, 128] if options.memory else [128])
    return options


if __name__ == "__main__":
    main()
