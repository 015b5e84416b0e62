"""The ``inspect`` command: describe an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json
from edgeseg.cli.output import finish
from edgeseg.console import stdout_console
from edgeseg.errors import ArtifactError


@flat
def inspect(
    artefact: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, network, engine, ranges, manifest, side-car or run folder; "
            "default: the newest run."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe an artefact; exits with 3 if it has problems."""
    from edgeseg.inspection import inspect as look_at
    from edgeseg.inspection import inspect_run
    from edgeseg.runs import located, newest_run

    path = located(artefact) if artefact else newest_run()
    found = inspect_run(path) if path.is_dir() else (look_at(path),)
    if as_json:
        one = found[0].to_dict()
        told = [each.to_dict() for each in found]
        finish(
            True, {"path": str(path), "kind": "run", "artefacts": told} if path.is_dir() else one
        )
    else:
        from edgeseg.inspection.rendering import show

        for each in found:
            show(stdout_console(), each)
    if any(each.problems for each in found):
        raise typer.Exit(ArtifactError.exit_code)
