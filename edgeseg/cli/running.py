"""``infer``: pictures through an engine, a few or an archive of them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.options import Json, MaxPixels, Threads, allow_pixels
from edgeseg.console import progress_bar
from edgeseg.documents import printable
from edgeseg.errors import ArtifactError, DatasetError, UsageError
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
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="How strong the overlay's colours are.")
    ] = 0.5,
    coloured: Annotated[
        bool, typer.Option("--coloured", help="Label maps with the class colours as palette.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier run in --out.")
    ] = False,
    max_pixels: MaxPixels = None,
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

    A picture that cannot be read is named at the end; the others are done, and the command ends
    with 3.

    With --cluster, PICTURES are folders with all below them, globs, files, and .txt lists of one
    path a line; a file that fails is reported in OUT/failures.jsonl, and the command ends with 3.
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.data.folders import list_images, passed_over
    from edgeseg.inference import Failed, Outputs, refuse_conflicts, segment_files, segmenter
    from edgeseg.loading import load
    from edgeseg.runs import engine_and_paths

    if margin is not None and not tiles:
        raise UsageError("--margin is of tiles", mend=f"edgeseg infer … --tiles --margin {margin}")
    outputs = Outputs(out, opacity, overlays, coloured)
    engine_path, named = engine_and_paths(paths)
    if cluster is not None:
        from edgeseg.archive import ArchiveConfig
        from edgeseg.archive.cluster import Cluster

        if overwrite:
            raise UsageError(
                "--overwrite is not for an archive, which goes on where it stopped",
                mend="choose another --out to do it all again",
            )
        where = Cluster(cluster, workers, threads or 1)
        config = ArchiveConfig(engine_path, named, outputs, where, tiles, margin, every or 1)
        _archive(config, as_json)
        return
    for option, value in (("--workers", workers), ("--every", every)):
        if value is not None:
            raise UsageError(
                f"{option} is of an archive", mend=f"edgeseg infer … --cluster local {option} …"
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
        log.error("%s", printable(failure.message, 1000))
    if failed and not results:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DatasetError(failed[0].message + more, mend=failed[0].mend)
    finish(
        as_json,
        {
            "engine": str(engine_path),
            "out": str(out),
            "pictures": [asdict(result) for result in results],
            "failed": [asdict(failure) for failure in failed],
            "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped],
        },
    )
    if failed:
        log.error("%d of %d pictures could not be read", len(failed), len(pictures))
        raise typer.Exit(ArtifactError.exit_code)


def _archive(config: ArchiveConfig, as_json: bool) -> None:
    """The exit code says whether all files were segmented; the result is printed in any case."""
    from edgeseg.archive import segment_archive

    summary = segment_archive(config, progress_bar)
    finish(as_json, summary.model_dump(mode="json"))
    if summary.failed:
        log.error("%d failed: see %s", summary.failed, Path(summary.out) / "failures.jsonl")
        raise typer.Exit(ArtifactError.exit_code)
