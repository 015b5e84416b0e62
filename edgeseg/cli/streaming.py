"""``stream``: cameras through an engine to windows, files and other machines."""

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
from edgeseg.documents import printable
from edgeseg.errors import OutputError, UsageError
from edgeseg.output import finish

if TYPE_CHECKING:
    from edgeseg.card import ClassMap
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
"""Parts in which a budget is used up where nobody says how large a part is."""


def _checked(check: Callable[[str], object]) -> Callable[[Any], Any]:
    """A callback that leaves a text, or each of several, as it is if ``check`` raises nothing.

    A text that is wrong in a file is so refused with the file's name and line.
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
    """Take what stands in the file for the defaults of the options."""
    if path is not None and not context.resilient_parsing:
        from edgeseg.cli import configuration

        context.default_map = configuration.read(path, context, _meaning())
    return path


def _meaning() -> Meaning:
    from edgeseg.cli.configuration import Meaning
    from edgeseg.stream import source
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
        Path | None, typer.Argument(help="Engine or run folder; default: the newest run's.")
    ] = None,
    camera: Annotated[
        list[int] | None, typer.Option(min=0, help="V4L2 camera number; several: once each.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, csi:N, "
            "gst:PIPELINE, test:; several: once each.",
            callback=_checked(_check_source),
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Picture size to ask the camera for.",
            callback=_checked(partial(height_width, "--size")),
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second to ask the camera for.")
    ] = None,
    credentials: Credentials = None,
    ca: Authority = None,
    insecure_camera: InsecureCameras = None,
    max_pixels: MaxFramePixels = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Write the overlay to this .mkv file; of several sources NAME-N.mkv."),
    ] = None,
    record_raw: Annotated[
        Path | None,
        typer.Option(help="Write the camera's own pictures, without overlay, to this .mkv file."),
    ] = None,
    record_minutes: Annotated[
        float | None,
        typer.Option(help="Begin a new file NAME-0001.mkv, … every so many minutes."),
    ] = None,
    record_keep: Annotated[
        int | None,
        typer.Option(min=1, help="Keep only so many of these files, the newest of all runs."),
    ] = None,
    rotate: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Begin a new part of recordings and line files at this size, e.g. 100MB.",
            callback=_checked(partial(byte_size, "--rotate")),
        ),
    ] = None,
    rotate_minutes: Annotated[
        float | None, typer.Option(help="Begin a new part of line files every so many minutes.")
    ] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Delete the oldest parts, numbered masks and alert snapshots of all runs beyond "
            "this size in all, e.g. 2GB.",
            callback=_checked(partial(byte_size, "--keep-bytes")),
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace recordings, masks and lines of before.")
    ] = False,
    save_masks: Annotated[
        Path | None, typer.Option(help="Write label maps here; of several sources into N/.")
    ] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="Append one JSON line a frame to this file.")
    ] = None,
    coloured_masks: Annotated[
        bool, typer.Option(help="Masks with the classes' colours as palette; values stay ids.")
    ] = False,
    min_region: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the frame below which lines omit one.")
    ] = 0.001,
    alert: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Tell when a rule holds: 'Pedestrian > 2% in zone.json for 0.5s'; several.",
            callback=_checked(_check_rule),
        ),
    ] = None,
    alert_lines: Annotated[Path | None, typer.Option(help="Append a JSON line an alert.")] = None,
    alert_webhook: Annotated[
        str | None,
        typer.Option(
            envvar="EDGESEG_WEBHOOK_URL",
            help="POST each alert as JSON; signed where EDGESEG_WEBHOOK_SECRET is set.",
        ),
    ] = None,
    alert_snapshots: Annotated[
        Path | None, typer.Option(help="Keep a picture of each frame that raised an alert.")
    ] = None,
    window: Annotated[bool, typer.Option(help="Show the overlay; h lists the keys.")] = True,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve a page with the live pictures; of this machine alone unless a HOST is "
            "given; port 0: any that is free.",
            callback=_checked(lambda text: _address("--web", text)),
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        typer.Option(
            envvar="EDGESEG_WEB_TOKEN",
            help="Token that viewers must show, never printed. Without one, where others can "
            "reach the page, a token is made and printed.",
        ),
    ] = None,
    web_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which clients may call the page and the metrics, as behind a proxy; "
            "repeat it for several."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve metrics for Prometheus at /metrics.",
            callback=_checked(lambda text: _address("--metrics", text)),
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(help="Folder of masks: score the stream, by picture name or frame number."),
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Opacity of the overlay.")] = 0.5,
    outline: Annotated[bool, typer.Option(help="Draw the rim of each region.")] = False,
    names: Annotated[bool, typer.Option(help="Write class names on regions.")] = True,
    legend: Annotated[bool, typer.Option(help="Names beside colours in the corner.")] = True,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--every-frame",
            help="Newest frame wins (default for live), or none is lost (default for files).",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="latency: nothing waits (default for one live source); throughput: most frames "
            "a second (default for files and several sources).",
            callback=_checked(lambda text: one_of("--mode", text, MODES)),
        ),
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(min=1, help="Engines side by side in throughput mode.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Frames at once, at most; default: one a source.")
    ] = None,
    keep_trying: Annotated[
        bool,
        typer.Option(
            "--keep-trying", help="Wait for cameras, disks and ports that are not there yet."
        ),
    ] = False,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many frames of all sources together.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(help="A damaged file ends with exit 5, an output that lacks results with 9."),
    ] = False,
    threads: Threads = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            is_eager=True,
            callback=_configured,
            help="Options by their names without dashes; the command line goes before them.",
        ),
    ] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Write the options given to such a file, and end."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the camera loop: capture, segment, overlay, show or record."""
    if write_config is not None:
        _write_config(write_config, context, overwrite=overwrite)
        finish(as_json, {"config": str(write_config)})
        return
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.stream import JsonLines, Scoring, Stream, StreamOptions, Window, parse_source, run
    from edgeseg.stream.notify import Notifier
    from edgeseg.stream.sinks.watchdog import Watchdog
    from edgeseg.stream.source import MAX_PIXELS, with_format

    _raise_descriptors()
    keeping = _keeping(rotate, rotate_minutes, keep_bytes, overwrite)
    if (record_minutes or record_keep) and not (record or record_raw):
        raise UsageError("parts are of a recording", mend="add --record NAME.mkv")
    if (alert_lines or alert_snapshots) and not alert:
        raise UsageError(
            "there is no rule for alerts", mend="add --alert 'CLASS > 2%', see edgeseg stream -h"
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
    from edgeseg.artifacts import refuse_to_replace
    from edgeseg.cli import configuration

    refuse_to_replace(path, overwrite=overwrite)
    configuration.write(path, context, _meaning())


def _sources(cameras: Sequence[int], sources: Sequence[str]) -> list[str]:
    both = [*(f"camera:{number}" for number in cameras), *sources]
    if not both:
        raise UsageError("a source is needed: --camera N or --source …", mend=ONE_SOURCE)
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
    """What becomes of files that are there.

    Attributes:
        rotation: When a line file is followed by its next part.
        size: Bytes after which a recording is.
        budget: Of all outputs together.
        overwrite: Replace what is there.
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
                mend="give --keep-bytes several times the size of --rotate",
            )
    budget = None if limit is None else Budget(limit)
    return _Keeping(Rotation(size, minutes), size, budget, overwrite)


def _check_apart(
    outputs: Sequence[Path | None], inputs: Sequence[Path | None], specs: Sequence[SourceSpec]
) -> None:
    """Raises UsageError where two outputs are one file, or one is what the stream reads."""
    read = [each for each in inputs if each is not None]
    read += [Path(spec.target) for spec in specs if spec.kind == "file"]
    seen: set[Path] = set()
    for output in (each for each in outputs if each is not None):
        name = printable(str(output))
        if output.absolute() in seen:
            raise UsageError(f"{name} is the path of two outputs", mend="choose another for one")
        seen.add(output.absolute())
        if any(output.exists() and each.exists() and output.samefile(each) for each in read):
            raise UsageError(
                f"{name} is read by the stream and would be written to",
                mend="choose another path for the output",
            )


def _end(report: StreamReport, *, strict: bool) -> None:
    """Exit with the code of OutputError where an output lacks results, as the options say."""
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
    """Written beside the stream, into a folder a source where there are several."""
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
    """The files that a source of pictures reads; none where they are not there."""
    from edgeseg.data.folders import list_images

    if spec.kind != "pictures":
        return []
    try:
        return list_images(Path(spec.target))
    except UsageError:  # which opening the source says
        return []


@dataclass(frozen=True)
class _Recordings:
    """What is recorded of so many sources, encoded beside the stream."""

    sources: int
    overlay: Path | None
    raw: Path | None
    minutes: float | None
    keep: int | None
    keeping: _Keeping
    made: list[Recording] = field(default_factory=list)

    def names(self) -> list[Path]:
        """One a source, of overlays and of the cameras' own pictures."""
        given = [path for path in (self.overlay, self.raw) if path is not None]
        return [self._of(path, number) for path in given for number in range(self.sources)]

    def files(self) -> list[Path]:
        """Those that were recorded and are on the disk."""
        return [path for recording in self.made for path in recording.files()]

    def sinks(self) -> list[Sink]:
        """One for overlays, one for the cameras' own pictures, as far as they are wanted."""
        both = ((self.overlay, True), (self.raw, False))
        return [self._sink(path, overlay) for path, overlay in both if path is not None]

    def _sink(self, path: Path, overlay: bool) -> Sink:
        from edgeseg.stream import Background, Each

        # Made here, where a name that is none is said at once.
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
