"""The ``stream`` command: segment live or recorded video and show, save or serve the result."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.artifacts.documents import printable
from edgeseg.cli.options import (
    Authority,
    Credentials,
    InsecureCameras,
    Json,
    MaxFramePixels,
    Threads,
    byte_size,
    height_width,
    one_of,
)
from edgeseg.cli.output import finish
from edgeseg.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgeseg.artifacts.card import ClassMap
    from edgeseg.cli.configuration import Meaning
    from edgeseg.engines.base import Engine
    from edgeseg.stream import Recording, Sink, Source, SourceSpec, StreamReport
    from edgeseg.stream.alerts import AlertOutputs, Rule
    from edgeseg.stream.sinks.retention import Budget, Rotation
    from edgeseg.stream.web.address import Address

_log = logging.getLogger(__name__)

ONE_SOURCE = "edgeseg stream --camera 0, or edgeseg stream --source test:"
MODES = ("latency", "throughput")

_DESCRIPTORS = 65536
"""Files and connections that cameras, outputs and viewers of a large stream may have open."""

_PARTS = 20
"""Number of parts that fit in ``--keep-bytes`` if ``--rotate`` is not given."""


def _checked(check: Callable[[str], object]) -> Callable[[Any], Any]:
    """Return an option callback that runs ``check`` on each value and returns it unchanged.

    This way an error in a configuration file is reported with the name and line of the file.
    """

    def callback(value: Any) -> Any:
        for text in [value] if isinstance(value, str) else value or ():
            check(text)
        return value

    return callback


def _check_source(text: str) -> object:
    from edgeseg.stream import parse_source

    return parse_source(text)


def _check_rule(text: str) -> object:
    return _rules([text])


def _configured(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values in the configuration file as defaults of the options."""
    if path is not None and not context.resilient_parsing:
        from edgeseg.cli import configuration

        context.default_map = configuration.read(path, context, _meaning())
    return path


def _meaning() -> Meaning:
    from edgeseg.cli.configuration import Meaning
    from edgeseg.sources import spec as source
    from edgeseg.stream.alerts import rule

    return Meaning(
        # A service that replaced its outputs at each start would keep no history.
        apart=frozenset({"config", "write_config", "overwrite"}),
        anchor={"source": source.anchored, "alert": rule.anchored},
        # Whoever knows the address of a webhook may post to it.
        secret={"source": source.has_secret, "web_token": bool, "alert_webhook": bool},
    )


def stream(
    context: typer.Context,
    engine: Annotated[
        Path | None, typer.Argument(help="Engine or run folder; default: the newest run.")
    ] = None,
    camera: Annotated[
        list[int] | None, typer.Option(min=0, help="Number of a V4L2 camera; repeatable.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, csi:N, "
            "gst:PIPELINE or test:; repeatable.",
            callback=_checked(_check_source),
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Frame size to request from the camera.",
            callback=_checked(partial(height_width, "--size")),
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frame rate to request from the camera, in frames per second."),
    ] = None,
    credentials: Credentials = None,
    ca: Authority = None,
    insecure_camera: InsecureCameras = None,
    max_pixels: MaxFramePixels = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Record the overlay to this .mkv file; for several sources NAME-N.mkv."),
    ] = None,
    record_raw: Annotated[
        Path | None,
        typer.Option(help="Record the original frames, without overlay, to this .mkv file."),
    ] = None,
    record_minutes: Annotated[
        float | None,
        typer.Option(help="Start a new recording, NAME-0001.mkv, …, at this interval in minutes."),
    ] = None,
    record_keep: Annotated[
        int | None,
        typer.Option(min=1, help="Number of recordings to keep, the newest of all runs."),
    ] = None,
    rotate: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Rotate recordings and JSON Lines files at this size, e.g. 100MB.",
            callback=_checked(partial(byte_size, "--rotate")),
        ),
    ] = None,
    rotate_minutes: Annotated[
        float | None, typer.Option(help="Rotate JSON Lines files at this interval in minutes.")
    ] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Delete the oldest rotated files, numbered masks and alert snapshots of all runs "
            "when they exceed this total size, e.g. 2GB.",
            callback=_checked(partial(byte_size, "--keep-bytes")),
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace existing recordings, masks and JSON Lines files."
        ),
    ] = False,
    save_masks: Annotated[
        Path | None,
        typer.Option(help="Write label maps to this folder; for several sources to N/ in it."),
    ] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="Append one JSON line per frame to this file.")
    ] = None,
    coloured_masks: Annotated[
        bool,
        typer.Option(help="Masks with the classes' colours as palette; values stay ids."),
    ] = False,
    min_region: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Smallest region to list in JSON Lines, as a share of the frame."
        ),
    ] = 0.001,
    alert: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Raise an alert when a rule holds, e.g. "
            "'Pedestrian > 2% in zone.json for 0.5s'; repeatable.",
            callback=_checked(_check_rule),
        ),
    ] = None,
    alert_lines: Annotated[
        Path | None, typer.Option(help="Append one JSON line per alert to this file.")
    ] = None,
    alert_webhook: Annotated[
        str | None,
        typer.Option(
            envvar="EDGESEG_WEBHOOK_URL",
            help="POST each alert as JSON to this URL; signed if EDGESEG_WEBHOOK_SECRET is set.",
        ),
    ] = None,
    alert_snapshots: Annotated[
        Path | None, typer.Option(help="Save each frame that raised an alert to this folder.")
    ] = None,
    window: Annotated[
        bool, typer.Option(help="Show the overlay in a window; press h for a list of keys.")
    ] = True,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve a live page, reachable from this machine only unless HOST is given; "
            "port 0 picks a free one.",
            callback=_checked(lambda text: _address("--web", text)),
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        typer.Option(
            envvar="EDGESEG_WEB_TOKEN",
            help="Token required from viewers, never printed; generated and printed if other "
            "machines can reach the page and no token is given.",
        ),
    ] = None,
    web_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name by which clients may call the page and the metrics; repeatable."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve Prometheus metrics at /metrics.",
            callback=_checked(lambda text: _address("--metrics", text)),
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help="Score the stream against masks in this folder, by picture name or frame number."
        ),
    ] = None,
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="Opacity of the overlay, from 0 to 1.")
    ] = 0.5,
    outline: Annotated[bool, typer.Option(help="Outline each region.")] = False,
    names: Annotated[bool, typer.Option(help="Write class names on regions.")] = True,
    legend: Annotated[bool, typer.Option(help="Show a legend of the class colours.")] = True,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--every-frame",
            help="Skip to the newest frame (default for live sources), or process every frame "
            "(default for files).",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="latency: no frame waits (default for one live source); throughput: most frames "
            "per second (default for files and several sources).",
            callback=_checked(lambda text: one_of("--mode", text, MODES)),
        ),
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(min=1, help="Number of parallel engines in throughput mode.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Maximum batch size; default: one frame per source.")
    ] = None,
    keep_trying: Annotated[
        bool,
        typer.Option(
            "--keep-trying", help="Wait for cameras, disks and ports that are not available yet."
        ),
    ] = False,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many frames, over all sources.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(help="Exit with 5 if a file is damaged, with 9 if an output lacks results."),
    ] = False,
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
        typer.Option(
            metavar="FILE.toml", help="Write the given options to a file for --config and exit."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment a camera or video: show, record or serve the result."""
    if write_config is not None:
        _write_config(write_config, context, overwrite=overwrite)
        finish(as_json, {"config": str(write_config)})
        return
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.sources.spec import MAX_PIXELS, with_format
    from edgeseg.stream import JsonLines, Scoring, Stream, StreamOptions, Window, parse_source, run
    from edgeseg.stream.notify import Notifier
    from edgeseg.stream.sinks.watchdog import Watchdog

    _raise_descriptors()
    keeping = _keeping(rotate, rotate_minutes, keep_bytes, overwrite)
    if (record_minutes or record_keep) and not (record or record_raw):
        raise UsageError("parts are of a recording", hint="add --record NAME.mkv")
    if (alert_lines or alert_snapshots) and not alert:
        raise UsageError(
            "there is no rule for alerts", hint="add --alert 'CLASS > 2%', see edgeseg stream -h"
        )
    pixels = None if size is None else height_width("--size", size)[::-1]
    specs = [
        with_format(parse_source(text), size=pixels, fps=fps)
        for text in _sources(camera or (), source or ())
    ]
    options = StreamOptions(
        realtime=realtime,
        mode=None if mode is None else one_of("--mode", mode, MODES),
        batch=batch,
        persistent=keep_trying,
        max_frames=max_frames,
        duration=duration,
        strict=strict,
        opacity=opacity,
        outline=outline,
        names=names,
        legend=legend,
        credentials=credentials,
        ca=ca,
        insecure_cameras=tuple(insecure_camera or ()),
        max_pixels=max_pixels or MAX_PIXELS,
    )
    rules = _rules(alert or ())
    page, counters = _address("--web", web), _address("--metrics", metrics)
    path = resolve(engine, RUNNABLE, "edgeseg build --fp16")
    recordings = _Recordings(
        len(specs), record, record_raw, record_minutes, record_keep, keeping=keeping
    )
    _check_apart(
        [*recordings.names(), json_lines, alert_lines],
        [path, config, credentials, *(rule.zone for rule in rules)],
        specs,
    )
    if save_masks is not None and ground_truth is not None:
        _check_apart([save_masks], [ground_truth], ())
    sinks = recordings.sinks()
    if save_masks is not None:
        sinks.append(_masks(specs, save_masks, coloured_masks, keeping))
    if json_lines is not None:
        sinks.append(
            JsonLines(json_lines, min_region, keeping.rotation, keeping.budget, overwrite=overwrite)
        )
    if window:
        sinks.append(Window())
    with contextlib.ExitStack() as stack:
        engines = _open(path, lanes or 1, threads, stack)
        if page is not None:
            sinks.append(_page(engines[0], str(page), web_token, web_host or ()))
        if counters is not None:
            sinks.append(_counters(engines[0], counters, web_host or ()))
        classes = engines[0].card.classes
        if rules:
            outputs = _alert_outputs(alert_lines, alert_webhook, alert_snapshots, keeping)
            sinks.append(_alerts(rules, classes, outputs))
        scoring = None if ground_truth is None else Scoring(ground_truth, classes)
        sinks += [scoring] if scoring else []
        sinks += [Watchdog(manager)] if (manager := Notifier.of_environment()) else []
        report = run(Stream(specs, engines, options), sinks)
    finish(
        as_json,
        {
            "engine": str(path),
            **report.to_dict(),
            "recordings": [printable(str(each)) for each in recordings.files()],
            "ground_truth": scoring.to_dict() if scoring else None,
        },
    )
    _end(report, strict=strict)


def _raise_descriptors() -> None:
    """Let this process have as many files open as the system allows.

    Shells and services start with 1,024 for the sake of programs that call ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _write_config(path: Path, context: typer.Context, *, overwrite: bool) -> None:
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.cli import configuration

    refuse_to_replace(path, overwrite=overwrite)
    configuration.write(path, context, _meaning())


def _sources(cameras: Sequence[int], sources: Sequence[str]) -> list[str]:
    both = [*(f"camera:{number}" for number in cameras), *sources]
    if not both:
        raise UsageError("a source is needed: --camera N or --source …", hint=ONE_SOURCE)
    return both


def _open(path: Path, lanes: int, threads: int | None, stack: contextlib.ExitStack) -> list[Engine]:
    from edgeseg.loading import load

    return [stack.enter_context(load(path, threads=threads)) for _ in range(lanes)]


def _address(option: str, text: str | None) -> Address | None:
    if text is None:
        return None
    from edgeseg.stream.web.address import parse_address

    return parse_address(text, option)


def _page(engine: Engine, address: str, token: str | None, hosts: Sequence[str]) -> Sink:
    from edgeseg.stream.web import About, WebView

    about = About.of(engine)
    return WebView(engine.card.classes, address, token=token, hosts=hosts, about=about)


def _counters(engine: Engine, address: Address, hosts: Sequence[str]) -> Sink:
    from edgeseg.stream.sinks.metrics import Metrics

    card = engine.card
    said = {"name": engine.path.name, "runtime": engine.runtime, "precision": card.precision}
    return Metrics(address.host, address.port, said, card.classes.names, hosts)


def _rules(texts: Sequence[str]) -> list[Rule]:
    if not texts:
        return []
    from edgeseg.stream.alerts import parse_rule

    return [parse_rule(text) for text in texts]


@dataclass(frozen=True)
class _Keeping:
    """How outputs are rotated, limited and replaced.

    Attributes:
        rotation: When a JSON Lines file is rotated.
        size: Bytes at which a recording is rotated; None for never.
        budget: Limit on the total size of all outputs.
        overwrite: Whether existing files are replaced.
    """

    rotation: Rotation
    size: int | None
    budget: Budget | None
    overwrite: bool


def _keeping(
    rotate: str | None, minutes: float | None, keep_bytes: str | None, overwrite: bool
) -> _Keeping:
    from edgeseg.stream.sinks.retention import Budget, Rotation

    size = None if rotate is None else byte_size("--rotate", rotate)
    limit = None if keep_bytes is None else byte_size("--keep-bytes", keep_bytes)
    if limit is not None:
        size = size or max(1, limit // _PARTS)
        if 2 * size > limit:
            raise UsageError(
                f"parts of {rotate} leave no room for a second one in {keep_bytes}",
                hint="give --keep-bytes several times the size of --rotate",
            )
    budget = None if limit is None else Budget(limit)
    return _Keeping(Rotation(size, minutes), size, budget, overwrite)


def _check_apart(
    outputs: Sequence[Path | None], inputs: Sequence[Path | None], specs: Sequence[SourceSpec]
) -> None:
    """Raise UsageError if two outputs are the same file, or an output is also an input."""
    read = [each for each in inputs if each is not None]
    read += [Path(spec.target) for spec in specs if spec.kind == "file"]
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
        _log.error(
            "%s lacks %d of %d results: %s",
            *(each.name, each.lost, each.written + each.lost, each.error),
        )
    if report.incomplete if strict else report.failed:
        raise typer.Exit(OutputError.exit_code)


def _alert_outputs(
    lines: Path | None, webhook: str | None, snapshots: Path | None, keeping: _Keeping
) -> AlertOutputs:
    from edgeseg.stream.alerts import SECRET_VARIABLE, AlertOutputs, Webhook

    hook = Webhook(webhook, os.environ.get(SECRET_VARIABLE)) if webhook else None
    return AlertOutputs(lines, hook, snapshots, keeping.rotation, keeping.budget, keeping.overwrite)


def _alerts(rules: Sequence[Rule], classes: ClassMap, outputs: AlertOutputs) -> Sink:
    from edgeseg.stream.alerts import Alerts

    return Alerts(rules, classes, outputs)


def _masks(specs: Sequence[SourceSpec], folder: Path, coloured: bool, keeping: _Keeping) -> Sink:
    """Return a background sink for masks, with one folder per source if there are several."""
    from edgeseg.stream import Background, Each, Masks

    def make(number: int, where: Path) -> Sink:
        return Masks(
            where,
            coloured=coloured,
            pictures=_pictures(specs[number]),
            budget=keeping.budget,
            overwrite=keeping.overwrite,
        )

    if len(specs) == 1:
        return Background(make(0, folder))

    def make_of(source: Source) -> Sink:
        return make(source.index, folder / str(source.index))

    return Background(Each(make_of, f"the mask folders in {folder}"))


def _pictures(spec: SourceSpec) -> list[Path]:
    """List the files of a picture source; empty if it is another kind or cannot be read."""
    from edgeseg.data.folders import list_images

    if spec.kind != "pictures":
        return []
    try:
        return list_images(Path(spec.target))
    except UsageError:  # opening the source reports it
        return []


@dataclass(frozen=True)
class _Recordings:
    """The recordings of all sources, encoded in the background."""

    sources: int
    overlay: Path | None
    raw: Path | None
    minutes: float | None
    keep: int | None
    keeping: _Keeping
    made: list[Recording] = field(default_factory=list)

    def names(self) -> list[Path]:
        """Paths of the recordings: one per source, for overlays and for original frames."""
        given = [path for path in (self.overlay, self.raw) if path is not None]
        return [self._of(path, number) for path in given for number in range(self.sources)]

    def files(self) -> list[Path]:
        """Paths of the recordings that are on disk."""
        return [path for recording in self.made for path in recording.files()]

    def sinks(self) -> list[Sink]:
        """Sinks for the requested recordings: overlays, original frames, or both."""
        both = ((self.overlay, True), (self.raw, False))
        return [self._sink(path, overlay) for path, overlay in both if path is not None]

    def _sink(self, path: Path, overlay: bool) -> Sink:
        from edgeseg.stream import Background, Each

        # Created here, so that an invalid name is reported at once.
        made = [self._make(self._of(path, number), overlay) for number in range(self.sources)]
        self.made.extend(made)
        if self.sources == 1:
            return Background(made[0])
        several = Each(
            lambda source: made[source.index], f"the recordings {path}", shows_overlay=overlay
        )
        return Background(several)

    def _make(self, name: Path, overlay: bool) -> Recording:
        from edgeseg.stream import Recording

        return Recording(
            name,
            overlay=overlay,
            minutes=self.minutes,
            keep=self.keep,
            size=self.keeping.size,
            budget=self.keeping.budget,
            overwrite=self.keeping.overwrite,
        )

    def _of(self, path: Path, number: int) -> Path:
        return path if self.sources == 1 else path.with_stem(f"{path.stem}-{number}")
