"""The ``stream`` command: segment live or recorded video and show, save or serve the result."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from edgeseg.artifacts.documents import plural, printable
from edgeseg.cli import configuration
from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, accepted_by, on_demand
from edgeseg.cli.output import finish
from edgeseg.cli.outputs import Alerting, Files, Keeping, Live, Pages
from edgeseg.cli.sinks import (
    FileSinks,
    destinations,
    message_sinks,
    page_sinks,
    pictures_of,
    publishing_sinks,
)
from edgeseg.errors import OutputError, UsageError
from edgeseg.machine import physical_cores
from edgeseg.options.base import Option, Options, Threads
from edgeseg.options.clips import ClipOptions
from edgeseg.options.messaging import Messaging
from edgeseg.options.parsing import Size, height_width
from edgeseg.options.streaming import StreamOptions

if TYPE_CHECKING:
    from edgeseg.stream import Scoring, Sink, SourceSpec, StreamReport

logger = logging.getLogger(__name__)

ONE_SOURCE = "edgeseg stream --camera 0, or edgeseg stream --source test:"

_DESCRIPTORS = 65536
"""Files and connections that cameras, outputs and viewers of a large stream may have open."""


@dataclass(frozen=True)
class Cameras(Options):
    """The sources, and what to request from cameras."""

    camera: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Option("Number of a V4L2 camera; repeatable.")
    ] = ()
    source: Annotated[
        tuple[str, ...],
        Option(
            "Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, csi:N, "
            "gst:PIPELINE or test:; repeatable.",
            parse=accepted_by("edgeseg.sources.spec:parse_source"),
            anchor=on_demand("edgeseg.sources.spec:anchored"),
            secret=on_demand("edgeseg.sources.spec:has_secret"),
        ),
    ] = ()
    size: Annotated[
        Size | None,
        Option(
            "Frame size to request from the camera.", metavar="WIDTHxHEIGHT", parse=height_width
        ),
    ] = None
    fps: Annotated[
        float | None, Option("Frame rate to request from the camera, in frames per second.")
    ] = None

    def specs(self) -> list[SourceSpec]:
        """Return the sources; raises UsageError if there are none."""
        from edgeseg.sources.spec import parse_source, with_format

        both = [*(f"camera:{number}" for number in self.camera), *self.source]
        if not both:
            raise UsageError("a source is needed: --camera N or --source …", hint=ONE_SOURCE)
        size = None if self.size is None else self.size[::-1]
        return [with_format(parse_source(text), size=size, fps=self.fps) for text in both]


def _configured(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values in the configuration file as defaults of the options."""
    if path is not None and not context.resilient_parsing:
        context.default_map = configuration.read(path, context)
    return path


@flat
def stream(
    context: typer.Context,
    engine: Annotated[
        Path | None,
        typer.Argument(help="Engine or run folder; default: the newest run, else bundled:nuclei."),
    ] = None,
    *,
    cameras: Cameras,
    files: Files,
    keeping: Keeping,
    alerting: Alerting,
    clipping: ClipOptions,
    messaging: Messaging,
    live: Live,
    pages: Pages,
    window: Annotated[
        bool, Option("Show the overlay in a window; press h for a list of keys.")
    ] = True,
    ground_truth: Annotated[
        Path | None,
        Option("Score the stream against masks in this folder, by picture name or frame number."),
    ] = None,
    options: StreamOptions,
    lanes: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Number of parallel engines in throughput mode; for files, default: one per core, or "
            "one on all cores where that measures faster."
        ),
    ] = None,
    threads: Threads = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            is_eager=True,
            callback=_configured,
            help="Read options from this file; the command line takes precedence.",
        ),
    ] = None,
    write_config: Annotated[
        Path | None,
        Option("Write the given options to a file for --config and exit.", metavar="FILE.toml"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment a camera or video, live.

    The result is shown in a window, recorded, served as a web page or published as lines.
    """
    if write_config is not None:
        configuration.write(write_config, context, overwrite=keeping.overwrite)
        finish(as_json, {"config": str(write_config)})
        return
    from edgeseg.artifacts.sidecar import sidecar_path
    from edgeseg.cli.allocator import keep_freed_memory
    from edgeseg.cli.opencv import use_one_thread
    from edgeseg.loading import load
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.sources.spec import parse_source
    from edgeseg.stream import Stream, run

    _raise_descriptors()
    keep_freed_memory()
    use_one_thread()
    files.check(alerting.alert_clips)
    alerting.check(clipping)
    messaging.check()
    live.check()
    specs = cameras.specs()
    published = destinations(live, len(specs))
    path = resolve(engine, RUNNABLE, "edgeseg build --fp16", bundled=True)
    outputs = FileSinks(specs, files, keeping)
    playlists = [each.playlist for each in published]
    zones = [*(rule.zone for rule in alerting.rules), *(path for path, _ in options.zones())]
    _check_apart(
        [
            *outputs.names(),
            *playlists,
            files.json_lines,
            alerting.alert_lines,
            files.save_masks,
            files.keep_uncertain,
        ],
        [
            *(path, sidecar_path(path), config, options.credentials),
            *(messaging.mqtt_ca, live.publish_ca, ground_truth, *zones),
        ],
        [*specs, *([parse_source(ground_truth)] if ground_truth is not None else [])],
    )
    sinks = outputs.sinks()
    if window:
        from edgeseg.stream import Window

        sinks.append(Window())
    sinks += publishing_sinks(published, live, overwrite=keeping.overwrite)
    scoring: Scoring | None = None
    with contextlib.ExitStack() as stack:
        if lanes is not None and threads is None:
            threads = max(1, physical_cores() // lanes)
        engines = [stack.enter_context(load(path, threads=threads)) for _ in range(lanes or 1)]
        sinks += outputs.uncertain(engines[0].card.classes)
        sinks += page_sinks(pages, engines[0])
        alerts = outputs.alerts(alerting, clipping, engines[0]) if alerting.alert else None
        sinks += [alerts] if alerts else []
        sinks += message_sinks(messaging, engines[0], files.min_region, alerts)
        if ground_truth is not None:
            from edgeseg.stream import Scoring

            scoring = Scoring(ground_truth, engines[0].card.classes)
            sinks.append(scoring)
        report = run(Stream(specs, engines, options), [*sinks, *outputs.expiry(), *_watchdog()])
    finish(
        as_json,
        {
            "engine": str(path),
            **report.to_dict(),
            "recordings": [printable(str(each)) for each in outputs.recorded()],
            "ground_truth": scoring.to_dict() if scoring else None,
        },
    )
    _end(report, strict=options.strict)


def _raise_descriptors() -> None:
    """Let this process have as many files open as the system allows.

    Shells and services start with 1,024 for the sake of programs that call ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _watchdog() -> list[Sink]:
    """Make the sink that reports to systemd, if it started this process."""
    from edgeseg.stream.sinks.watchdog import Notifier, Watchdog

    manager = Notifier.of_environment()
    return [Watchdog(manager)] if manager else []


def _check_apart(
    outputs: Sequence[Path | None], inputs: Sequence[Path | None], specs: Sequence[SourceSpec]
) -> None:
    """Raise UsageError if two outputs are the same file, or an output is also an input."""
    read = [each for each in inputs if each is not None]
    read += [Path(spec.target) for spec in specs if spec.kind == "file"]
    if any(each is not None and each.is_file() for each in outputs):
        read += [picture for spec in specs for picture in pictures_of(spec)]
    seen: set[Path] = set()
    for output in (each for each in outputs if each is not None):
        name = printable(str(output))
        if output.absolute() in seen:
            raise UsageError(f"{name} is the path of two outputs", hint="choose another for one")
        seen.add(output.absolute())
        if any(output.exists() and each.exists() and output.samefile(each) for each in read):
            raise UsageError(
                f"{name} is read by the stream and would be written to",
                hint="choose another path for the output",
            )


def _end(report: StreamReport, *, strict: bool) -> None:
    """Exit with the code of OutputError if an output failed, or with ``strict`` lacks results."""
    for each in report.incomplete if strict else report.failed:
        logger.error(
            "%s lacks %d of %s: %s",
            *(each.name, each.lost, plural(each.written + each.lost, "result"), each.error),
        )
    if report.incomplete if strict else report.failed:
        raise typer.Exit(OutputError.exit_code)
