"""``bench``: engines measured against each other, and what is done with such measurements."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeseg.cli.options import Json, OptionalData, SplitName, counts
from edgeseg.console import progress_bar, stderr_console, stdout_console
from edgeseg.output import finish

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""The exit code that shells give a process that SIGINT ended."""


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
    report: Annotated[Path | None, typer.Option(help="Write this .html (or .md) file.")] = None,
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
    as_json: Json = False,
) -> None:
    """Measure latency and accuracy of engines, interleaved in one run.

    Ctrl-C ends the run early and keeps what was measured.
    """
    from contextlib import ExitStack

    from edgeseg.bench.cases import open_cases
    from edgeseg.bench.document import BenchConfig
    from edgeseg.bench.measure import bench, noise_frames
    from edgeseg.data.folders import read_split
    from edgeseg.report import write_report
    from edgeseg.report.tables import bench_table, render_rich
    from edgeseg.runs import engines_of

    batches, numbers = counts("--batch", batch), counts("--threads", threads)
    labelled = None if data is None else read_split(data, split)
    with ExitStack() as stack:
        opened = open_cases(engines_of(engines or []), stack, batches=batches, threads=numbers)
        result = bench(
            opened.cases,
            data=labelled,
            images=() if labelled else noise_frames(),
            unavailable=opened.unavailable,
            config=BenchConfig(seconds=seconds, threads=numbers[0] if len(numbers) == 1 else None),
            notes=opened.notes,
            track=progress_bar,
        )
    document = result.to_dict()
    if out is not None:
        result.save(out)
    if report is not None:
        write_report(report, title="Latency and accuracy", bench=document)
    console = stderr_console() if as_json else stdout_console()
    console.print(render_rich(bench_table(result)))
    for note in result.notes:
        log.warning("%s", note)
    if as_json:
        finish(as_json, {**document, "report": None if report is None else str(report)})
    if result.cut_short:
        raise typer.Exit(INTERRUPTED)
