"""``bench``: engines measured against each other, and what is done with such measurements."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeseg.cli.options import Json, OptionalData, Overwrite, SplitName, counts
from edgeseg.console import progress_bar, stderr_console, stdout_console
from edgeseg.output import INTERRUPTED, fail, finish

if TYPE_CHECKING:
    from edgeseg.bench.budget import Recommendation
    from edgeseg.bench.document import BenchReport

log = logging.getLogger(__name__)


class MeasureByDefault(TyperGroup):
    """``bench compare …`` is a command of its own; whatever else follows ``bench`` is measured.

    An engine whose file is called like a command is reached as ``./compare``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the measuring command before arguments that name no other."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["measure", *args])


class Nameless(TyperCommand):
    """Is called by the name of its group, in usage and errors too."""

    class _Context(TyperCommand.context_class):  # type: ignore[misc, valid-type]
        @property
        def command_path(self) -> str:
            return str(self.parent.command_path)

    context_class = _Context


app = typer.Typer(
    cls=MeasureByDefault, help="Measure latency and accuracy of engines, interleaved in one run."
)


@app.callback()
def _bench() -> None:
    """Measure latency and accuracy of engines, interleaved in one run."""


@app.command(cls=Nameless, hidden=True)
def measure(
    engines: Annotated[
        list[Path] | None,
        typer.Argument(help="Engines or run folders; default: all of the newest run."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    report: Annotated[
        list[Path] | None, typer.Option(help="Write this .html or .md file; repeatable.")
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, help="Pictures of lowest IoU to show in a page; 0: none.")
    ] = 4,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Recommend the most accurate that keeps it: 15ms or 66fps; needs --data."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the JSON document in this file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measuring time a row.")] = 5.0,
    batch: Annotated[
        str | None,
        typer.Option(help="Pictures a call, e.g. 1,2,4: a row each of engines that take them."),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="CPU threads, e.g. 1,2: a row each; default: the runtime's choice."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure latency and accuracy of engines, interleaved in one run.

    Ctrl-C ends the run early and keeps what was measured.
    """
    from contextlib import ExitStack

    from edgeseg.artifacts import refuse_to_replace, write_atomic
    from edgeseg.bench.budget import check_budget, recommend
    from edgeseg.bench.cases import open_cases
    from edgeseg.bench.document import BenchConfig
    from edgeseg.bench.measure import bench, noise_frames
    from edgeseg.bench.worst import worst_of_focus
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
    """What people read: a table, what to keep in mind, and the recommendation."""
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
    before: Annotated[Path, typer.Argument(help="JSON of `edgeseg bench --out`, to hold against.")],
    after: Annotated[Path, typer.Argument(help="The same of the run in question.")],
    report: Annotated[
        list[Path] | None, typer.Option(help="Write this .html or .md file; repeatable.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, help="Per cent of latency below which nothing is told.")
    ] = 2.0,
    points: Annotated[
        float, typer.Option(min=0, help="Points of mean IoU below which nothing is told.")
    ] = 0.1,
    fail_on_regression: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression",
            help="Exit 8 where something is worse, 3 where the two are not like with like.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Say what is slower, less accurate or larger in the second of two benchmarks.

    A difference is told where it is both sure and large enough to matter.
    """
    from edgeseg.artifacts import refuse_to_replace
    from edgeseg.bench.compare import compare as compared
    from edgeseg.bench.compare import origins, regression
    from edgeseg.bench.comparison import CompareConfig
    from edgeseg.bench.document import load_bench
    from edgeseg.report.differences import check_comparison, tell, write_comparison

    reports = [check_comparison(path) for path in report or ()]
    refuse_to_replace(*reports, overwrite=overwrite, inputs=[before, after])
    found = compared(
        load_bench(before),
        load_bench(after),
        CompareConfig(latency=threshold / 100, accuracy=points / 100),
        origins(before, after),
    )
    for path in reports:
        write_comparison(path, found)
    tell(found, stderr_console() if as_json else stdout_console())
    if as_json:
        finish(as_json, {**found.to_dict(), "reports": list(map(str, reports))})
    if fail_on_regression and (error := regression(found)):
        # The document is on stdout already, and says the same in `regressions`.
        fail(error, as_json=False)
