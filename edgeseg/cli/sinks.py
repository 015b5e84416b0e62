"""Make the sinks of the ``stream`` command from its options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.outputs import Alerting, Files, Keeping, Live, Pages
from edgeseg.errors import UsageError
from edgeseg.options.clips import ClipOptions
from edgeseg.options.messaging import Messaging, with_login

if TYPE_CHECKING:
    from edgeseg.artifacts.card import ClassMap
    from edgeseg.engines.base import Engine
    from edgeseg.stream import Recording, Sink, SourceSpec
    from edgeseg.stream.alerts import Alerts, Clips
    from edgeseg.stream.sinks.destination import Destination
    from edgeseg.stream.sinks.retention import Budget


@dataclass
class FileSinks:
    """The sinks that write files; all share one budget.

    Attributes:
        keeping: How they are rotated, limited and replaced.
    """

    specs: Sequence[SourceSpec]
    files: Files
    keeping: Keeping
    recordings: list[Recording] = field(default_factory=list)
    budget: Budget | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.keeping.keep_bytes is not None or self.keeping.keep_days is not None:
            from edgeseg.stream.sinks.retention import Budget

            self.budget = Budget(self.keeping.keep_bytes, self.keeping.keep_days)

    def names(self) -> list[Path]:
        """Paths of the recordings: one per source, for overlays and for original frames."""
        given = [path for path in (self.files.record, self.files.record_raw) if path is not None]
        return [self._of(path, number) for path in given for number in range(len(self.specs))]

    def recorded(self) -> list[Path]:
        """Paths of the recordings that are on disk."""
        return [path for recording in self.recordings for path in recording.files()]

    def sinks(self) -> list[Sink]:
        """Make the sinks of recordings, masks and JSON Lines."""
        both = ((self.files.record, True), (self.files.record_raw, False))
        made = [self._recorder(path, overlay) for path, overlay in both if path is not None]
        if self.files.save_masks is not None:
            made.append(self._masks(self.files.save_masks))
        if self.files.json_lines is not None:
            from edgeseg.stream import JsonLines

            lines, smallest = self.files.json_lines, self.files.min_region
            rotation, overwrite = self.keeping.rotation, self.keeping.overwrite
            made.append(JsonLines(lines, smallest, rotation, self.budget, overwrite=overwrite))
        return made

    def expiry(self) -> list[Sink]:
        """Make the sink that deletes old files; opened behind those that write them."""
        if self.budget is None or self.budget.days is None:
            return []
        from edgeseg.stream.sinks.retention import Expiry

        return [Expiry(self.budget)]

    def uncertain(self, classes: ClassMap) -> list[Sink]:
        """Make the sink that keeps uncertain frames, in the background."""
        if self.files.keep_uncertain is None:
            return []
        from edgeseg.stream import Background, UncertainFrames

        folder, per_hour = self.files.keep_uncertain, self.files.per_hour
        return [Background(UncertainFrames(folder, classes, per_hour))]

    def alerts(self, alerting: Alerting, clipping: ClipOptions, engine: Engine) -> Alerts:
        """Make the sink that follows the rules."""
        from edgeseg.stream.alerts import SECRET_VARIABLE, AlertOutputs, Alerts, Webhook

        url = alerting.alert_webhook
        outputs = AlertOutputs(
            alerting.alert_lines,
            Webhook(url, os.environ.get(SECRET_VARIABLE)) if url else None,
            alerting.alert_snapshots,
            self.keeping.rotation,
            self.budget,
            self.keeping.overwrite,
            self._clips(alerting.alert_clips, clipping),
        )
        return Alerts(alerting.rules, engine.card.classes, outputs)

    def _clips(self, folder: Path | None, clipping: ClipOptions) -> Clips | None:
        from edgeseg.stream.alerts import Clips

        if folder is None:
            return None
        raw = self.files.record is None and self.files.record_raw is not None
        codec, budget = self.files.codec, self.budget
        return Clips(folder, clipping, overlay=not raw, codec=codec, budget=budget)

    def _recorder(self, path: Path, overlay: bool) -> Sink:
        """Encode the recordings in the background, one per source."""
        from edgeseg.stream import Background

        # Created here, so that an invalid name is reported at once.
        names = [self._of(path, number) for number in range(len(self.specs))]
        made = [self._recording(name, overlay) for name in names]
        self.recordings.extend(made)
        return Background(_per_source(made, f"the recordings {path}", shows_overlay=overlay))

    def _recording(self, name: Path, overlay: bool) -> Recording:
        from edgeseg.stream import Recording

        return Recording(
            name,
            overlay=overlay,
            codec=self.files.codec,
            minutes=self.keeping.part_minutes(self.files.record_minutes),
            keep=self.files.record_keep,
            size=self.keeping.size,
            budget=self.budget,
            overwrite=self.keeping.overwrite,
        )

    def _of(self, path: Path, number: int) -> Path:
        return path if len(self.specs) == 1 else path.with_stem(f"{path.stem}-{number}")

    def _masks(self, folder: Path) -> Sink:
        """Write masks in the background, with one folder per source if there are several."""
        from edgeseg.stream import Background, Masks

        alone = len(self.specs) == 1
        made = [
            Masks(
                folder if alone else folder / str(number),
                coloured=self.files.coloured_masks,
                pictures=pictures_of(spec),
                budget=self.budget,
                overwrite=self.keeping.overwrite,
            )
            for number, spec in enumerate(self.specs)
        ]
        return Background(_per_source(made, f"the mask folders in {folder}"))


def destinations(live: Live, count: int) -> list[Destination]:
    """Where each of ``count`` sources is published; empty for nowhere."""
    if live.publish is None:
        return []
    from edgeseg.stream.sinks.destination import parse_destination

    one = parse_destination(live.publish)
    return [one] if count == 1 else [one.numbered(number) for number in range(count)]


def publishing_sinks(where: Sequence[Destination], live: Live, *, overwrite: bool) -> list[Sink]:
    """Make the sink that publishes each source in a thread of its own."""
    if not where:
        return []
    from edgeseg.stream import Background, VideoPublisher

    made = [
        Background(
            VideoPublisher(each, ca=live.publish_ca, overwrite=overwrite),
            may_skip=each.playlist is None,
        )
        for each in where
    ]
    return [_per_source(made, "the published videos", shows_overlay=True)]


def _per_source(made: Sequence[Sink], name: str, *, shows_overlay: bool = False) -> Sink:
    """Give each source its own of the sinks, in the order of the sources."""
    from edgeseg.stream import Each

    if len(made) == 1:
        return made[0]
    return Each(lambda source: made[source.index], name, shows_overlay=shows_overlay)


def page_sinks(pages: Pages, engine: Engine) -> list[Sink]:
    """Make the sinks of the live page and of the metrics."""
    made: list[Sink] = []
    card = engine.card
    if pages.web is not None:
        from edgeseg.stream.web import About, WebView

        about = About.of(engine)
        token, hosts = pages.web_token, pages.web_host
        made.append(WebView(card.classes, pages.web, token=token, hosts=hosts, about=about))
    if pages.metrics is not None:
        from edgeseg.stream.sinks.metrics import Metrics
        from edgeseg.stream.web.address import parse_address

        at = parse_address(pages.metrics)
        labels = {"name": engine.path.name, "runtime": engine.runtime, "precision": card.precision}
        made.append(Metrics(at.host, at.port, labels, card.classes.names, pages.web_host))
    return made


def message_sinks(
    messaging: Messaging, engine: Engine, min_region: float, alerts: Alerts | None
) -> list[Sink]:
    """Make the sink of messages to a broker."""
    if messaging.mqtt is None:
        return []
    from edgeseg.stream.messaging import Mqtt, Publisher, Publishing

    broker = with_login(messaging.mqtt, os.environ)
    publishing = Publishing(
        broker.prefix, messaging.mqtt_every, min_region, messaging.mqtt_discovery
    )
    return [Publisher(Mqtt(broker, messaging.mqtt_ca), engine.card, publishing, alerts)]


def pictures_of(spec: SourceSpec) -> list[Path]:
    """List the files of a picture source; empty if it is another kind or cannot be read."""
    from edgeseg.data.folders import list_images

    if spec.kind != "pictures":
        return []
    try:
        return list_images(Path(spec.target))
    except UsageError:  # opening the source reports it
        return []
