"""The command ``import``: from a network made elsewhere to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, Overwrite
from edgeseg.cli.output import finish
from edgeseg.options.base import Option
from edgeseg.options.importing import ImportConfig


@flat
def import_(
    network: Annotated[Path, typer.Argument(help="ONNX network for semantic segmentation.")],
    run: Annotated[
        Path | None, Option("Folder to write model.onnx into; default: runs/NETWORK.")
    ] = None,
    *,
    config: ImportConfig,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a segmentation network made elsewhere.

    The result is compared with the original, pixel by pixel, and is not written where they differ.
    """
    from edgeseg.console import progress_bar
    from edgeseg.importing import import_network

    made = import_network(network, run, config, overwrite=overwrite, track=progress_bar)
    if as_json:
        finish(True, made.to_dict())
        return
    for title, text in (*made.lines, ("written", str(made.path))):  # Titles may repeat.
        finish(False, {title: text})
