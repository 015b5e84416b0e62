"""``infer``: pictures through an engine."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.options import (
    Json,
    Threads,
)
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError
from edgeseg.output import finish

log = logging.getLogger(__name__)


def infer(
    paths: Annotated[
        list[str], typer.Argument(metavar="[ENGINE] PICTURES...", help="Files, folders or globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for label maps and overlays.")] = Path(
        "predictions"
    ),
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Overlapping tiles at the pictures' own scale.")
    ] = False,
    margin: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rim of a tile left unused, pixels; default: an eighth of its shorter side.",
        ),
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Segment pictures: a label map (PNG, class ids) and an overlay for each.

    Pictures are resized to the network's input, or with --tiles cut into tiles of that size,
    for networks that were trained at the pictures' own scale.
    """
    from functools import partial

    from edgeseg.inference import segment_files, segment_tiled
    from edgeseg.loading import load
    from edgeseg.runs import engine_and_pictures

    if margin is not None and not tiles:
        raise UsageError("--margin is of tiles", mend=f"edgeseg infer … --tiles --margin {margin}")
    engine_path, pictures = engine_and_pictures(paths)
    with load(engine_path, threads=threads) as engine:
        segment = partial(segment_tiled, engine, margin=margin) if tiles else engine.segment
        results = segment_files(
            engine, pictures, out, segment=segment, opacity=opacity, track=progress_bar
        )
    finish(
        as_json,
        {"engine": str(engine_path), "out": str(out), "pictures": [asdict(r) for r in results]},
    )
