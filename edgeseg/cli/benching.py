"""The commands ``bench`` and ``bench compare``: measure engines, and compare two measurements."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, Overwrite
from edgeseg.cli.output import INTERRUPTED, fail, finish
from edgeseg.console import progress_bar, stderr_console, stdout_console
from edgeseg.options.base import Option, OptionalData, SplitName
from edgeseg.options.benchmark import BenchConfig, CompareConfig
from edgeseg.options.parsing import counts

if TYPE_CHECKING:
    from edgeseg.benchmark.budget import Recommendation
    from edgeseg.benchmark.document import BenchReport

logger = logging.getLogger(__name__)


Reports = Annotated[
    tuple[Path, ...], Option("Write a report to this .html or .md file; repeatable.")
]
USUAL = CompareConfig()


@flat
def bench(
    engines: Annotated[
        list[Path] | None,
        typer.Argument(help="Engines or run folders; default: all engines of the newest run."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    sequence: Annotated[
        Path | None,
        Option(
            "Video, or folder of pictures in the order of time, to measure the flicker of masks on."
        ),
    ] = None,
    report: Reports = (),
    worst: Annotated[
        int,
        Field(ge=0),
        Option("Number of pictures with the lowest IoU to show in an HTML report."),
    ] = 4,
    budget: Annotated[
        str | None,
        Option("Recommend the most accurate engine that meets 15ms or 66fps; needs --data."),
    ] = None,
    out: Annotated[Path | None, Option("Write the JSON document to this file.")] = None,
    *,
    config: BenchConfig,
    batch: Annotated[
        tuple[int, ...] | None,
        Option(
            "Batch sizes, e.g. 1,2,4: one row each, for engines that support them.", parse=counts
        ),
    ] = None,
    threads: Annotated[
        tuple[int, ...] | None,
        Option("CPU threads, e.g. 1,2: one row each; default: the runtime's choice.", parse=counts),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure latency and accuracy of engines in one run.

    Engines take turns, so that all see the same conditions. Ctrl-C ends the run early and
    keeps what was measured.
    """
    from contextlib import ExitStack

    from edgeseg.artifacts.files import refuse_to_replace, write_atomic
    from edgeseg.benchmark.accuracy import worst_of_focus
    from edgeseg.benchmark.budget import check_budget, recommend
    from edgeseg.benchmark.cases import open_cases
    from edgeseg.benchmark.measure import bench as measure
    from edgeseg.benchmark.measure import noise_frames
    from edgeseg.data.folders import read_split
    from edgeseg.report import check_report, write_report
    from edgeseg.runs import engines_of

    reports = [check_report(path) for path in report]
    check_budget(budget, labelled=data is not None)
    paths = engines_of(engines or [])
    read = [*paths, *(each for each in (data, sequence) if each is not None)]
    refuse_to_replace(*reports, *([out] if out else []), overwrite=overwrite, inputs=read)
    labelled = None if data is None else read_split(data, split)
    with ExitStack() as stack:
        opened = open_cases(paths, stack, batches=batch or (), threads=threads or ())
        result = measure(
            opened.cases,
            data=labelled,
            images=() if labelled else noise_frames(),
            unavailable=opened.unavailable,
            sequence=sequence,
            config=replace(config, threads=threads[0]) if threads and len(threads) == 1 else config,
            notes=opened.notes,
            track=progress_bar,
        )
        advice = recommend(result, budget) if budget else None
        shown = worst if any(path.suffix == ".html" for path in reports) else 0
        pictures = worst_of_focus(result, advice, opened.cases, labelled, shown)
    document = result.to_dict()
    if advice is not None:
        document["recommendation"] = advice.model_dump(mode="json")
    if out is not None:
        write_atomic(out, json.dumps(document, indent=1) + "\n")
    for path in reports:
        write_report(path, title="Latency and accuracy", bench=document, worst=pictures)
    _tell(result, advice, as_json=as_json)
    if as_json:
        finish(as_json, {**document, "reports": list(map(str, reports))})
    if result.cut_short:
        raise typer.Exit(INTERRUPTED)


def _tell(result: BenchReport, advice: Recommendation | None, *, as_json: bool) -> None:
    """Print the table, the notes and the recommendation."""
    from edgeseg.report.tables import bench_table, render_rich

    console = stderr_console() if as_json else stdout_console()
    console.print(render_rich(bench_table(result)))
    for note in result.notes:
        logger.warning("%s", note)
    if advice is not None:
        for line in (f"For a budget of {advice.budget}: {advice.why}", *advice.advice):
            console.print(line, markup=False)


@flat
def compare(
    before: Annotated[Path, typer.Argument(help="Baseline: JSON of `edgeseg bench --out`.")],
    after: Annotated[Path, typer.Argument(help="JSON of the benchmark to compare with it.")],
    report: Reports = (),
    threshold: Annotated[
        float,
        Field(ge=0),
        Option("Smallest change of latency to report, in per cent.", per_cent=True),
    ] = USUAL.latency,
    points: Annotated[
        float,
        Field(ge=0),
        Option("Smallest change of mean IoU to report, in points.", per_cent=True),
    ] = USUAL.accuracy,
    fail_on_regression: Annotated[
        bool,
        Option(
            "Exit with 8 on a regression, with 3 if the two are not comparable.",
            names="--fail-on-regression",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare two benchmarks.

    Reports what got slower, less accurate or larger.
    A difference is reported if it is both significant and above the threshold.
    """
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.benchmark.compare import compare as compared
    from edgeseg.benchmark.compare import origins, regression
    from edgeseg.benchmark.document import load_bench
    from edgeseg.report import check_report
    from edgeseg.report.differences import print_comparison, write_comparison

    reports = [check_report(path) for path in report]
    refuse_to_replace(*reports, overwrite=overwrite, inputs=[before, after])
    found = compared(
        load_bench(before),
        load_bench(after),
        CompareConfig(latency=threshold, accuracy=points),
        origins(before, after),
    )
    for path in reports:
        write_comparison(path, found)
    print_comparison(found, stderr_console() if as_json else stdout_console())
    if as_json:
        finish(as_json, {**found.to_dict(), "reports": list(map(str, reports))})
    if fail_on_regression and (error := regression(found)):
        # The document is on stdout already, and says the same in `regressions`.
        fail(error, as_json=False)
