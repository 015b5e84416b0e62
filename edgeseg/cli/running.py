"""``infer`` and ``stream``: what engines are for."""

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


def stream(
    engine: Annotated[
        Path | None, typer.Argument(help="Engine or run folder; default: the newest run's.")
    ] = None,
    camera: Annotated[int | None, typer.Option(min=0, help="V4L2 camera number.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, test:."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write the overlay to this .mkv file.")
    ] = None,
    save_masks: Annotated[Path | None, typer.Option(help="Write label maps here.")] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="Write one JSON line a frame to this file.")
    ] = None,
    window: Annotated[bool, typer.Option(help="Show the overlay; q quits.")] = True,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--every-frame",
            help="Newest frame wins (default for live), or none is lost (default for files).",
        ),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1)] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    strict: Annotated[bool, typer.Option(help="A damaged file ends with exit 5.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the camera loop: capture, segment, overlay, show or record."""
    from edgeseg.loading import load
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.stream import (
        JsonLines,
        Masks,
        Recording,
        Sink,
        Stream,
        StreamOptions,
        Window,
        parse_source,
        run,
    )

    spec = parse_source(_one_source(camera, source))
    path = resolve(engine, RUNNABLE, "edgeseg build --fp16")
    sinks: list[Sink] = []
    if record is not None:
        sinks.append(Recording(record))
    if save_masks is not None:
        sinks.append(Masks(save_masks))
    if json_lines is not None:
        sinks.append(JsonLines(json_lines))
    if window:
        sinks.append(Window())
    with load(path, threads=threads) as loaded:
        options = StreamOptions(
            realtime=realtime,
            max_frames=max_frames,
            duration=duration,
            strict=strict,
            opacity=opacity,
        )
        report = run(Stream(spec, loaded, options), sinks)
    finish(
        as_json,
        {
            "engine": str(path),
            **report.to_dict(),
            "recording": None if record is None else str(record),
        },
    )


def _one_source(camera: int | None, source: str | None) -> str:
    if (camera is None) == (source is None):
        raise UsageError(
            "one source is needed: --camera N or --source …",
            mend="edgeseg stream --camera 0, or edgeseg stream --source test:",
        )
    return source if source is not None else f"camera:{camera}"
