"""``infer``: pictures through an engine, a few or an archive of them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.options import Json, Threads
from edgeseg.console import progress_bar
from edgeseg.errors import ArtifactError, UsageError
from edgeseg.output import finish

if TYPE_CHECKING:
    from edgeseg.archive import ArchiveConfig

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
    overlays: Annotated[bool, typer.Option(help="Write overlays, too.")] = True,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    coloured: Annotated[
        bool, typer.Option("--coloured", help="Label maps with the class colours as palette.")
    ] = False,
    threads: Threads = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="An archive on many workers, videos too: local, auto or ray://HOST:10001; "
            "the same command goes on where it stopped.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of the cluster; default: as many as it has room for.")
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Of each video of the archive every N-th frame.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment pictures: a label map (PNG, class ids) and an overlay for each.

    Pictures are resized to the network's input, or with --tiles cut into tiles of that size,
    for networks that were trained at the pictures' own scale.

    With --cluster, PICTURES are folders with all below them, globs, files, and .txt lists of one
    path a line; a file that fails is reported in OUT/failures.jsonl, and the command ends with 3.
    """
    from edgeseg.inference import Outputs, segment_files, segmenter
    from edgeseg.loading import load
    from edgeseg.runs import engine_and_paths, engine_and_pictures

    if margin is not None and not tiles:
        raise UsageError("--margin is of tiles", mend=f"edgeseg infer … --tiles --margin {margin}")
    outputs = Outputs(out, opacity, overlays, coloured)
    if cluster is not None:
        from edgeseg.archive import ArchiveConfig
        from edgeseg.archive.cluster import Cluster

        engine_path, named = engine_and_paths(paths)
        where = Cluster(cluster, workers, threads or 1)
        config = ArchiveConfig(engine_path, named, outputs, where, tiles, margin, every or 1)
        _archive(config, as_json)
        return
    for option, value in (("--workers", workers), ("--every", every)):
        if value is not None:
            raise UsageError(
                f"{option} is of an archive", mend=f"edgeseg infer … --cluster local {option} …"
            )
    engine_path, pictures = engine_and_pictures(paths)
    with load(engine_path, threads=threads) as engine:
        segment = segmenter(engine, tiles=tiles, margin=margin)
        results = segment_files(engine, pictures, outputs, segment=segment, track=progress_bar)
    finish(
        as_json,
        {"engine": str(engine_path), "out": str(out), "pictures": [asdict(r) for r in results]},
    )


def _archive(config: ArchiveConfig, as_json: bool) -> None:
    """The exit code says whether all files were segmented; the result is printed in any case."""
    from edgeseg.archive import segment_archive

    summary = segment_archive(config, progress_bar)
    finish(as_json, summary.model_dump(mode="json"))
    if summary.failed:
        log.error("%d failed: see %s", summary.failed, Path(summary.out) / "failures.jsonl")
        raise typer.Exit(ArtifactError.exit_code)
