"""The ``bench`` commands: measure engines, and compare two measurements."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeseg.cli.options import Json, OptionalData, Overwrite, SplitName, counts
from edgeseg.cli.output import INTERRUPTED, fail, finish
from edgeseg.console import progress_bar, stderr_console, stdout_console

if TYPE_CHECKING:
    from edgeseg.benchmark.budget import Recommendation
    from edgeseg.benchmark.document import BenchReport

log = logging.getLogger(__name__)


class MeasureByDefault(TyperGroup):
    """Command group that runs ``measure`` unless a subcommand such as ``compare`` is named.

    To measure an engine file named like a subcommand, write ``./compare``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``measure`` unless the first argument names a subcommand."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["measure", *args])


class Nameless(TyperCommand):
    """Command that appears under the name of its group in usage lines and errors."""

    class _Context(TyperCommand.context_class):  # type: ignore[misc, valid-type]
        @property
        def command_path(self) -> str:
            return str(self.parent.command_path)

    context_class = _Context


app = typer.Typer(cls=MeasureByDefault, help="Measure latency and accuracy of engines in one run.")


@app.callback()
def _bench() -> None:
    """Measure latency and accuracy of engines in one run."""


@app.command(cls=Nameless, hidden=True)
def measure(
    engines: Annotated[
        list[Path] | None,
        typer.Argument(help="Engines or run folders; default: all engines of the newest run."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Write a report to this .html or .md file; repeatable."),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            min=0, help="Number of pictures with the lowest IoU to show in an HTML report."
        ),
    ] = 4,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Recommend the most accurate engine that meets 15ms or 66fps; needs --data."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document to this file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measuring time per row.")] = 5.0,
    batch: Annotated[
        str | None,
        typer.Option(help="Batch sizes, e.g. 1,2,4: one row each, for engines that support them."),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="CPU threads, e.g. 1,2: one row each; default: the runtime's choice."),
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
    from edgeseg.benchmark.budget import check_budget, recommend
    from edgeseg.benchmark.cases import open_cases
    from edgeseg.benchmark.document import BenchConfig
    from edgeseg.benchmark.measure import bench, noise_frames
    from edgeseg.benchmark.worst import worst_of_focus
    from edgeseg.data.folders import read_split
    from edgeseg.report import check_report, write_report
    from edgeseg.runs import engines_of

    batches, numbers = counts("--batch", batch), counts("--threads", threads)
    reports = [check_report(path) for path in report or ()]
    check_budget(budget, labelled=data is not None)
    paths = engines_of(engines or [])
    read = paths if data is None else [*paths, data]
    refuse_to_replace(*reports, *([out] if out else []), overwrite=overwrite, inputs=read)
    labelled = None if data is None else read_split(data, split)
    with ExitStack() as stack:
        opened = open_cases(paths, stack, batches=batches, threads=numbers)
        result = bench(
            opened.cases,
            data=labelled,
            images=() if labelled else noise_frames(),
            unavailable=opened.unavailable,
            config=BenchConfig(seconds=seconds, threads=numbers[0] if len(numbers) == 1 else None),
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
        log.warning("%s", note)
    if advice is not None:
        for line in (f"For a budget of {advice.budget}: {advice.why}", *advice.advice):
            console.print(line, markup=False)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Baseline: JSON of `edgeseg bench --out`.")],
    after: Annotated[Path, typer.Argument(help="JSON of the benchmark to compare with it.")],
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Write a report to this .html or .md file; repeatable."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, help="Smallest change of latency to report, in per cent.")
    ] = 2.0,
    points: Annotated[
        float, typer.Option(min=0, help="Smallest change of mean IoU to report, in points.")
    ] = 0.1,
    fail_on_regression: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression",
            help="Exit with 8 on a regression, with 3 if the two are not comparable.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Report what got slower, less accurate or larger between two benchmarks.

    A difference is reported if it is both significant and above the threshold.
    """
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.benchmark.compare import compare as compared
    from edgeseg.benchmark.compare import origins, regression
    from edgeseg.benchmark.comparison import CompareConfig
    from edgeseg.benchmark.document import load_bench
    from edgeseg.report import check_report
    from edgeseg.report.differences import print_comparison, write_comparison

    reports = [check_report(path) for path in report or ()]
    refuse_to_replace(*reports, overwrite=overwrite, inputs=[before, after])
    found = compared(
        load_bench(before),
        load_bench(after),
        CompareConfig(latency=threshold / 100, accuracy=points / 100),
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
