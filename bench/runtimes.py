"""Compare accuracy, latency and size of a network across all runtimes and precisions.

    python bench/runtimes.py runs/camvid-unet-lite runs/camvid-unet --data DIR

A run folder gives its checkpoint or network; nothing is written into it. Engines are built by
the default recipe, with the accuracy gate open, so that a loss is a row and not an error. All
engines of a network that can run here are measured interleaved, so that their ratios hold.
A run folder is done when its document lies in ``--out``: after an interruption the same command
goes on, and a document of other settings or of another network is made anew. The page and the
plot show all documents there.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from harness import command_line
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.documents import Document, load
from edgeseg.artifacts.files import atomic_path, sha256_file, write_atomic
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.benchmark.measure import Unavailable, bench
from edgeseg.building import BuildConfig, EngineRuntime, build
from edgeseg.console import progress_bar
from edgeseg.data.folders import Split, read_split
from edgeseg.errors import EdgesegError, RuntimeMissing
from edgeseg.export.on_demand import network_of
from edgeseg.loading import load as open_artifact
from edgeseg.machine import summary
from edgeseg.options.benchmark import BenchConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import measure_ranges
from edgeseg.report.contents import RUNTIMES
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.runs import CHECKPOINT, NETWORK, RANGES

RESULTS = Path(__file__).with_name("results") / "runtimes"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
# ONNX Runtime's FP32 is the first engine, so drops and speed-ups relate to it.
BUILDS: tuple[EngineRuntime, ...] = ("onnxruntime", "openvino", "tensorrt-rtx")
GOALS = {"onnxruntime": 2.0, "openvino": 3.0}
"""INT8's speed against ONNX Runtime in FP32 that ``unet-lite`` is to reach."""

COLOURS = {"onnxruntime": "#0072b2", "openvino": "#d55e00", "tensorrt-rtx": "#009e73"}
MARKERS = {"fp32": "o", "fp16": "s", "int8": "^"}

logger = logging.getLogger("edgeseg.bench.runtimes")


class Settings(Document):
    """What decides on the figures besides network and machine."""

    data: str
    split: str
    seconds: float
    pictures: int | None
    calibration: int
    threads: int | None


class Result(Document):
    """One network in all runtimes and precisions."""

    schema_version: Literal[1] = 1
    network: str
    arch: str
    source_sha256: str
    settings: Settings
    bench: BenchReport


def main() -> int:
    """Measure what is not measured yet, then write the page and the plot."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _options()
    settings = Settings(
        data=options.data.name,
        split=options.split,
        seconds=options.seconds,
        pictures=options.pictures,
        calibration=options.calibration,
        threads=options.threads,
    )
    failed = 0
    for run in options.runs:
        document = options.out / f"{run.name}.json"
        try:
            if _is_done(document, run, settings):
                logger.info("%s: measured already (%s)", run, document)
                continue
            measure(run, options.data, settings).save(document)
        except EdgesegError as error:
            failed += 1
            logger.error("%s: %s%s", run, error.message, f" ({error.hint})" if error.hint else "")
    results = [load(Result, path) for path in sorted(options.out.glob("*.json"))]
    if results:
        write_atomic(options.out / "README.md", page(results))
        draw(results, options.out / "runtimes.png")
        print(page(results))
    return 1 if failed else 0


def measure(run: Path, data: Path, settings: Settings) -> Result:
    """Build and measure one network in a folder of its own, which is gone afterwards.

    Raises:
        EdgesegError: As the steps do; a runtime that is not installed is left out and said.
    """
    with tempfile.TemporaryDirectory(prefix="edgeseg-runtimes-") as folder, ExitStack() as stack:
        work = Path(folder) / run.name
        work.mkdir()
        for name in (CHECKPOINT, NETWORK):
            for path in (run / name, run / f"{name}.json"):
                if path.exists():
                    shutil.copy(path, work)
        network = network_of(work)
        manifest = Path(folder) / "calib" / "manifest.json"
        source = str(data / "train" / "images")
        collect(source, manifest, count=settings.calibration, track=progress_bar)
        measure_ranges(network, manifest, track=progress_bar).save(work / RANGES)
        opened, unavailable = [], []
        for path in _built(network):
            try:
                opened.append(stack.enter_context(open_artifact(path, threads=settings.threads)))
            except RuntimeMissing as error:
                unavailable.append(Unavailable(path, error.message.replace(f"{work}/", "")))
        report = bench(
            opened,
            data=_some(read_split(data, settings.split), settings.pictures),
            unavailable=unavailable,
            config=BenchConfig(seconds=settings.seconds, threads=settings.threads, cold_starts=1),
            track=progress_bar,
        )
        return Result(
            network=run.name,
            arch=opened[0].card.arch,
            source_sha256=_source_sha256(run),
            settings=settings,
            bench=_to_keep(report),
        )


def _built(network: Path) -> Iterator[Path]:
    """Every engine that can be built here, the accuracy gate open."""
    for runtime in BUILDS:
        for precision in PRECISIONS:
            logger.info("building %s for %s", precision, runtime)
            config = BuildConfig(network, precision, runtime, min_agreement=0.0)
            try:
                yield build(config, progress_bar).engine
            except RuntimeMissing as error:
                logger.warning("%s is left out: %s", runtime, error.message)
                break


def _some(split: Split, count: int | None) -> Split:
    """At most ``count`` pictures of a split, spread over all of it."""
    if count is None or len(split) <= count:
        return split
    chosen = [split.samples[place * len(split) // count] for place in range(count)]
    return replace(split, samples=tuple(chosen))


def _to_keep(report: BenchReport) -> BenchReport:
    """The same without scores of single pictures, and with names of files for their paths."""
    return report.model_copy(
        update={
            "reference": None if report.reference is None else Path(report.reference).name,
            "runs": tuple(
                run.model_copy(update={"engine": Path(run.engine).name}) for run in report.runs
            ),
            "accuracy": (),
        }
    )


def _source_sha256(run: Path) -> str:
    checkpoint = run / CHECKPOINT
    return sha256_file(checkpoint if checkpoint.exists() else run / NETWORK)


def _is_done(document: Path, run: Path, settings: Settings) -> bool:
    if not document.exists():
        return False
    made = load(Result, document)
    return made.settings == settings and made.source_sha256 == _source_sha256(run)


def page(results: Sequence[Result]) -> str:
    """Markdown: what was reached, then a table a network."""
    parts = ["# Runtimes and precisions\n", _INTRODUCTION]
    parts += [f"- {line}\n" for result in results for line in _headlines(result)]
    parts.append("\n![Mean IoU against latency](runtimes.png)\n")
    for result in results:
        report, settings = result.bench, result.settings
        versions = ", ".join(
            f"{name} {report.machine.versions[name]}"
            for name in ("edgeseg", *BUILDS)
            if name in report.machine.versions
        )
        threads = settings.threads or "default"
        parts.append(f"\n## {result.network}\n\n")
        parts.append(
            f"`{result.arch}` on {settings.data}, {report.labelled} labelled pictures of "
            f"`{settings.split}`, {settings.calibration} for calibration; "
            f"{settings.seconds:g} s an engine, threads: {threads}; {report.created:%Y-%m-%d}, "
            f"{summary(report.machine)}, {', '.join(report.machine.cpu_flags)}; {versions}.\n\n"
        )
        parts.append(render_markdown(_table(report)))
        parts += [f"\n> {note}\n" for note in report.notes]
    return "".join(parts)


_INTRODUCTION = """
Generated by `python bench/runtimes.py RUN… --data DIR`; do not edit. p50 and p95 are of a whole
call: preprocessing, network, labels back at the picture's size. × is the network alone, the
median of ONNX Runtime in FP32 over this one's, both from one interleaved run. Drop is against
the same engine, in points of mean IoU; agreement the share of pixels labelled as it labels them.

"""


def _headlines(result: Result) -> Iterator[str]:
    for run in result.bench.runs:
        ratio = _ratio(run, result.bench)
        if run.precision != "int8" or ratio is None or run.drop is None:
            continue
        goal = GOALS.get(run.runtime) if result.arch == "unet-lite" else None
        held = "" if goal is None else f" (goal {goal:g}×: {'met' if ratio >= goal else 'not met'})"
        yield (
            f"{result.network}: {RUNTIMES[run.runtime]} INT8 {ratio:.2f}× ONNX Runtime FP32{held}, "
            f"drop {100 * run.drop:.2f} points"
        )


def _table(report: BenchReport) -> Table:
    columns = (
        Column("Runtime", number=False),
        Column("Precision", number=False),
        Column("Floats in", number=False),
        Column("Mean IoU", "%"),
        Column("Drop", "points"),
        Column("Agreement", "%"),
        Column("p50", "ms"),
        Column("p95", "ms"),
        Column("×"),
        Column("Size", "MiB"),
    )
    return Table(columns, tuple(_cells(run, report) for run in report.runs))


def _cells(run: Run, report: BenchReport) -> tuple[str, ...]:
    latency, ratio = run.latency_ms or {}, _ratio(run, report)
    return (
        RUNTIMES.get(run.runtime, run.runtime),
        run.precision.upper(),
        run.computes_in or "–",
        _per_cent(run.mean_iou),
        _per_cent(run.drop),
        _per_cent(run.pixel_agreement),
        *(f"{latency[key]:.2f}" if latency else "not run here" for key in ("p50", "p95")),
        "–" if ratio is None else f"{ratio:.2f}",
        f"{run.bytes / 2**20:.2f}",
    )


def _per_cent(value: float | None) -> str:
    # Adding 0 makes a rounded -0.0 plain.
    return "–" if value is None else f"{round(100 * value, 2) + 0.0:.2f}"


def _ratio(run: Run, report: BenchReport) -> float | None:
    """How much faster the network alone is than the reference's."""
    base = next((other for other in report.runs if other.engine == report.reference), None)
    if base is None or base.stages_ms is None or run.stages_ms is None:
        return None
    return base.stages_ms["infer"]["p50"] / run.stages_ms["infer"]["p50"]


def draw(results: Sequence[Result], path: Path) -> None:
    """A panel a network: mean IoU against the median latency of a call."""
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.7), layout="constrained")
        for place, result in enumerate(results):
            axes = figure.add_subplot(rows, columns, place + 1)
            for run in result.bench.runs:
                if run.latency_ms is None or run.mean_iou is None:
                    continue
                axes.plot(
                    run.latency_ms["p50"],
                    100 * run.mean_iou,
                    MARKERS[run.precision],
                    color=COLOURS[run.runtime],
                    markersize=9,
                    alpha=0.8,
                )
            axes.set_title(result.network)
            axes.margins(x=0.15, y=0.25)
            axes.set_xlim(left=0)
            # At least the point that the gate allows on each side: a hundredth looked like much.
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, (low + high) / 2 - 1.1), max(high, (low + high) / 2 + 1.1))
            axes.grid(alpha=0.25)
            axes.set_xlabel("latency of a call, p50 (ms)")
            axes.set_ylabel("mean IoU (%)")
        shown = {run.runtime for r in results for run in r.bench.runs if run.latency_ms}
        keys = [
            Line2D([], [], linestyle="", marker="D", color=COLOURS[name], label=RUNTIMES[name])
            for name in COLOURS
            if name in shown
        ] + [
            Line2D([], [], linestyle="", marker=marker, color="0.4", label=precision.upper())
            for precision, marker in MARKERS.items()
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=130)


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument(
        "--data", type=Path, required=True, help="labelled pictures, used for all RUNs"
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result documents")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time per engine")
    parser.add_argument(
        "--pictures", type=int, help="maximum number of labelled pictures; default: all"
    )
    parser.add_argument(
        "--calibration", type=int, default=64, help="number of calibration pictures"
    )
    parser.add_argument(
        "--threads", type=int, help="threads per engine; default: the runtime's own"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
