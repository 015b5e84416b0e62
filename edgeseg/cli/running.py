"""The ``infer`` command: segment a few pictures or a whole archive."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from edgeseg.artifacts.documents import plural, printable
from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, MaxPixels, allow_pixels
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar
from edgeseg.errors import ArtifactError, DatasetError, UsageError
from edgeseg.options.base import Option, Threads
from edgeseg.options.inference import Outputs

if TYPE_CHECKING:
    from edgeseg.archive import ArchiveConfig

logger = logging.getLogger(__name__)


@flat
def infer(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[ENGINE] PICTURES...", help="Engine, then picture files, folders or globs."
        ),
    ],
    *,
    outputs: Outputs,
    tiles: Annotated[
        bool, Option("Segment overlapping tiles at the pictures' original scale.", names="--tiles")
    ] = False,
    margin: Annotated[
        int | None,
        Field(ge=0),
        Option("Border of each tile to discard, in pixels; default: 1/8 of its shorter side."),
    ] = None,
    overwrite: Annotated[
        bool, Option("Replace the results of an earlier run in --out.", names="--overwrite")
    ] = False,
    max_pixels: MaxPixels = None,
    threads: Threads = None,
    cluster: Annotated[
        str | None,
        Option(
            "Segment an archive, videos included, on a Ray cluster: local, auto or "
            "ray://HOST:10001; the same command resumes an interrupted run.",
            suggestions=("local", "auto", "ray://"),
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Field(ge=1),
        Option("Number of workers; default: as many as fit in the cluster."),
    ] = None,
    every: Annotated[
        int | None, Field(ge=1), Option("Segment every N-th frame of each video in the archive.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment pictures into label maps and overlays.

    Label maps are PNG files of class ids. Pictures are resized to the network's input, or cut into
    tiles of that size with --tiles and for networks that were trained with it.

    Pictures that cannot be read are skipped and listed at the end, and the command exits with 3.

    With --cluster, PICTURES are folders (searched recursively), globs, files, and .txt lists with
    one path per line; failures are listed in OUT/failures.jsonl, and the command exits with 3.
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.data.folders import list_images, passed_over
    from edgeseg.inference import Failed, refuse_conflicts, segment_files, segmenter
    from edgeseg.loading import load
    from edgeseg.runs import engine_and_paths

    if margin is not None and not tiles:
        raise UsageError("--margin is of tiles", hint=f"edgeseg infer … --tiles --margin {margin}")
    engine_path, named = engine_and_paths(paths)
    if cluster is not None:
        from edgeseg.archive import ArchiveConfig
        from edgeseg.archive.cluster import Cluster

        if overwrite:
            raise UsageError(
                "--overwrite cannot be used with an archive, which continues where it stopped",
                hint="choose another --out to do it all again",
            )
        where = Cluster(cluster, workers, threads or 1)
        config = ArchiveConfig(engine_path, named, outputs, where, tiles, margin, every or 1)
        _archive(config, as_json)
        return
    for option, value in (("--workers", workers), ("--every", every)):
        if value is not None:
            raise UsageError(
                f"{option} needs an archive (--cluster)",
                hint=f"edgeseg infer … --cluster local {option} …",
            )
    pictures = [image for path in named for image in list_images(Path(path))]
    skipped = [found for path in named for found in passed_over(Path(path))]
    pictures = list(dict.fromkeys(pictures))
    refuse_conflicts(pictures, outputs, overwrite=overwrite)
    failed: list[Failed] = []
    with load(engine_path, threads=threads) as engine:
        results = segment_files(
            engine,
            pictures,
            outputs,
            segment=segmenter(engine, tiles=tiles, margin=margin),
            overwrite=overwrite,
            failed=failed,
            track=progress_bar,
        )
    for failure in failed:
        logger.error("%s", printable(failure.message, 1000))
    if failed and not results:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DatasetError(failed[0].message + more, hint=failed[0].hint)
    finish(
        as_json,
        {
            "engine": str(engine_path),
            "out": str(outputs.folder),
            "pictures": [asdict(result) for result in results],
            "failed": [asdict(failure) for failure in failed],
            "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped],
        },
    )
    if failed:
        logger.error("%d of %s could not be read", len(failed), plural(len(pictures), "picture"))
        raise typer.Exit(ArtifactError.exit_code)


def _archive(config: ArchiveConfig, as_json: bool) -> None:
    """Segment an archive and print the result; exit with 3 if any file failed."""
    from edgeseg.archive import segment_archive

    summary = segment_archive(config, progress_bar)
    finish(as_json, summary.model_dump(mode="json"))
    if summary.failed:
        logger.error("%d failed: see %s", summary.failed, Path(summary.out) / "failures.jsonl")
        raise typer.Exit(ArtifactError.exit_code)
