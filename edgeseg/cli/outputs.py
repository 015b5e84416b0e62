"""Options of the outputs of the ``stream`` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from edgeseg.cli.options import accepted_by, on_demand
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options
from edgeseg.options.clips import ClipOptions
from edgeseg.options.parsing import byte_size
from edgeseg.options.streaming import Codec

if TYPE_CHECKING:
    from edgeseg.stream.alerts import AlertRule
    from edgeseg.stream.sinks.retention import Rotation

_PARTS = 20
"""Number of parts that fit in ``--keep-bytes`` or ``--keep-days`` if no length is given."""

_ADDRESS = accepted_by("edgeseg.stream.web.address:parse_address")


@dataclass(frozen=True)
class Keeping(Options):
    """How outputs are rotated, limited and replaced; sizes in bytes."""

    rotate: Annotated[
        int | None,
        Option(
            "Rotate recordings and JSON Lines files at this size, e.g. 100MB.",
            metavar="SIZE",
            parse=byte_size,
        ),
    ] = None
    rotate_minutes: Annotated[
        float | None, Option("Rotate JSON Lines files at this interval in minutes.")
    ] = None
    keep_bytes: Annotated[
        int | None,
        Option(
            "Delete the oldest rotated files, numbered masks, alert snapshots and clips of all "
            "runs when they exceed this total size, e.g. 2GB.",
            metavar="SIZE",
            parse=byte_size,
        ),
    ] = None
    keep_days: Annotated[
        float | None,
        Field(gt=0),
        Option("Delete such files when nothing was written to them for this number of days."),
    ] = None
    overwrite: Annotated[
        bool,
        Option("Replace existing recordings, masks and JSON Lines files.", names="--overwrite"),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotate and self.keep_bytes and 2 * self.rotate > self.keep_bytes:
            raise UsageError(
                f"files of {self.rotate} bytes leave no room for a second one in "
                f"{self.keep_bytes} bytes",
                hint="set --keep-bytes to several times --rotate",
            )

    @property
    def size(self) -> int | None:
        """Size at which a file is rotated; None for never."""
        if self.rotate is None and self.keep_bytes is not None:
            return max(1, self.keep_bytes // _PARTS)
        return self.rotate

    def part_minutes(self, wanted: float | None) -> float | None:
        """Length of a part: as wanted, by default of the days to keep; None for no limit."""
        if wanted is None and self.keep_days is not None:
            return self.keep_days * 24 * 60 / _PARTS
        return wanted

    @property
    def rotation(self) -> Rotation:
        """When a JSON Lines file is rotated."""
        from edgeseg.stream.sinks.retention import Rotation

        return Rotation(self.size, self.part_minutes(self.rotate_minutes))


@dataclass(frozen=True)
class Files(Options):
    """The files that a stream writes, besides those of alerts."""

    record: Annotated[
        Path | None,
        Option("Record the overlay to this .mkv or .mp4 file; for several sources NAME-N.mkv."),
    ] = None
    record_raw: Annotated[
        Path | None, Option("Record the frames without overlay to this .mkv or .mp4 file.")
    ] = None
    codec: Annotated[
        Codec,
        Option(
            "Codec of recordings and clips; auto: H.264 where PyAV has an encoder, otherwise MJPEG."
        ),
    ] = "auto"
    record_minutes: Annotated[
        float | None,
        Option("Start a new recording, NAME-0001.mkv, …, at this interval in minutes."),
    ] = None
    record_keep: Annotated[
        int | None, Field(ge=1), Option("Number of recordings to keep, the newest of all runs.")
    ] = None
    save_masks: Annotated[
        Path | None, Option("Write label maps to this folder; for several sources to N/ in it.")
    ] = None
    coloured_masks: Annotated[
        bool, Option("Masks with the classes' colours as palette; values stay ids.")
    ] = False
    keep_uncertain: Annotated[
        Path | None,
        Option("Add the frames that the network is least certain of to this data set, to label."),
    ] = None
    per_hour: Annotated[
        int, Field(ge=1), Option("Number of uncertain frames to keep of an hour of each source.")
    ] = 20
    json_lines: Annotated[Path | None, Option("Append one JSON line per frame to this file.")] = (
        None
    )
    min_region: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Smallest region to list in JSON Lines and on MQTT, as a share of the frame."),
    ] = 0.001

    def check(self, clips: Path | None = None) -> None:
        """Raise UsageError if there are options of an output and no such output or ``clips``."""
        if self.per_hour != Files.per_hour and self.keep_uncertain is None:
            raise UsageError(
                "--per-hour needs a folder of uncertain frames", hint="add --keep-uncertain DIR"
            )
        needing = self.record_minutes or self.record_keep or (self.codec != "auto" and not clips)
        if needing and not (self.record or self.record_raw):
            raise UsageError(
                "--record-minutes, --record-keep and --codec need a recording",
                hint="add --record NAME.mkv",
            )


@dataclass(frozen=True)
class Alerting(Options):
    """Rules, and outputs for their events."""

    alert: Annotated[
        tuple[str, ...],
        Option(
            "Raise an alert when a rule holds, e.g. "
            "'Pedestrian > 2% in zone.json for 0.5s'; repeatable.",
            metavar="RULE",
            parse=accepted_by("edgeseg.stream.alerts.rule:parse_rule"),
            anchor=on_demand("edgeseg.stream.alerts.rule:anchored"),
        ),
    ] = ()
    alert_lines: Annotated[Path | None, Option("Append one JSON line per alert to this file.")] = (
        None
    )
    alert_webhook: Annotated[
        str | None,
        Option(
            "POST each alert as JSON to this URL; signed if EDGESEG_WEBHOOK_SECRET is set.",
            envvar="EDGESEG_WEBHOOK_URL",
            secret=bool,  # whoever knows the address may post to it
        ),
    ] = None
    alert_snapshots: Annotated[
        Path | None, Option("Save each frame that raised an alert to this folder.")
    ] = None
    alert_clips: Annotated[
        Path | None,
        Option(
            "Save a video of the seconds around each alert to this folder; of frames without "
            "overlay if only those are recorded."
        ),
    ] = None

    def check(self, clipping: ClipOptions) -> None:
        """Raise UsageError if there are outputs and no rule, or options of clips and no folder."""
        if self.alert_clips is None and clipping != ClipOptions():
            raise UsageError(
                "--clip-before, --clip-after, --clip-memory and --clip-keep need a folder of clips",
                hint="add --alert-clips DIR",
            )
        if (self.alert_lines or self.alert_snapshots or self.alert_clips) and not self.alert:
            raise UsageError(
                "no alert rule was given", hint="add --alert 'CLASS > 2%', see edgeseg stream -h"
            )

    @property
    def rules(self) -> list[AlertRule]:
        """The rules."""
        if not self.alert:
            return []
        from edgeseg.stream.alerts import parse_rule

        return [parse_rule(text) for text in self.alert]


@dataclass(frozen=True)
class Live(Options):
    """Where the overlay is published as live video."""

    publish: Annotated[
        str | None,
        Option(
            "Publish the overlay as live H.264 to an RTSP, RTMP or SRT server, or as an HLS "
            "playlist; for several sources PATH-N.",
            metavar="URL|FILE.m3u8",
            envvar="EDGESEG_PUBLISH_URL",
            parse=accepted_by("edgeseg.stream.sinks.destination:parse_destination"),
            anchor=on_demand("edgeseg.stream.sinks.destination:anchored"),
            secret=on_demand("edgeseg.stream.sinks.destination:has_secret"),
        ),
    ] = None
    publish_ca: Annotated[
        Path | None,
        Option("Additional CA certificates (PEM) to trust for rtsps:// servers.", metavar="FILE"),
    ] = None

    def check(self) -> None:
        """Raise UsageError if certificates are given for no server over TLS."""
        if self.publish_ca is not None and not (self.publish or "").lower().startswith("rtsps:"):
            raise UsageError(
                "--publish-ca needs a server over TLS", hint="add --publish rtsps://HOST/PATH"
            )


@dataclass(frozen=True)
class Pages(Options):
    """The live page and the metrics."""

    web: Annotated[
        str | None,
        Option(
            "Serve a live page, reachable from this machine only unless HOST is given; "
            "port 0 picks a free one.",
            metavar="[HOST:]PORT",
            parse=_ADDRESS,
        ),
    ] = None
    web_token: Annotated[
        str | None,
        Option(
            "Token required from viewers, never printed; generated and printed if other "
            "machines can reach the page and no token is given.",
            envvar="EDGESEG_WEB_TOKEN",
            secret=bool,
        ),
    ] = None
    web_host: Annotated[
        tuple[str, ...],
        Option("Host name by which clients may call the page and the metrics; repeatable."),
    ] = ()
    metrics: Annotated[
        str | None,
        Option("Serve Prometheus metrics at /metrics.", metavar="[HOST:]PORT", parse=_ADDRESS),
    ] = None
