"""Apply alert rules to results; report events in the log, a file and a webhook."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import UsageError
from edgeseg.ops.regions import check_min_region
from edgeseg.ops.zone import load_zone
from edgeseg.stream.alerts.clips import Clips
from edgeseg.stream.alerts.lines import AlertLines
from edgeseg.stream.alerts.rule import AlertEvent, AlertRule, Measure, RuleTracker
from edgeseg.stream.alerts.webhook import Webhook
from edgeseg.stream.result import StreamResult, moment
from edgeseg.stream.sinks.base import Sink, SinkContext, SourceStatus, StateChanges, StopStream
from edgeseg.stream.sinks.health import Health, SinkReport
from edgeseg.stream.sinks.lines import time_stamp
from edgeseg.stream.sinks.retention import Budget, Rotation, Shelf
from edgeseg.stream.sinks.snapshots import SNAPSHOT, save_snapshot
from edgeseg.stream.sinks.supervised import Background

logger = logging.getLogger(__name__)

_LOST = ("stalled", "reconnecting", "failed")


@dataclass(frozen=True)
class AlertOutputs:
    """Outputs for events in addition to the log.

    Attributes:
        lines: File to append to, or an open text stream; receives one line of JSON per event.
        webhook: Webhook that receives each event.
        snapshots: Folder for a picture and a mask of each frame that raised an alert.
        rotation: Limits after which the file of lines begins its next part.
        budget: Budget that the parts of lines and the snapshots of all runs count towards.
        overwrite: Truncate an existing file of lines instead of appending to it.
        clips: Writer of a video clip around each alert; not a sink of the stream as well.
    """

    lines: Path | TextIO | None = None
    webhook: Webhook | None = None
    snapshots: Path | None = None
    rotation: Rotation | None = None
    budget: Budget | None = None
    overwrite: bool = False
    clips: Clips | None = None


@dataclass(frozen=True)
class RuleStatus:
    """Status of a rule on a source.

    Attributes:
        rule: The rule.
        camera: Number of the source in the stream, from 0.
        state: ``raised``, ``clear``, or ``unknown`` before the first frame and while the source
            is lost.
        value: Value of the newest frame in the unit of the rule; None if unknown.
    """

    rule: AlertRule
    camera: int
    state: Literal["raised", "clear", "unknown"]
    value: float | None


@dataclass
class _TrackedRule:
    """A rule on a source, and its value in the newest frame."""

    rule: AlertRule
    source: SourceStatus
    measure: Measure
    tracker: RuleTracker
    value: float | None = None

    def status(self) -> RuleStatus:
        state: Literal["raised", "clear", "unknown"] = "clear"
        if self.tracker.state == "raised":
            state = "raised"
        elif self.tracker.state == "unknown" or self.value is None:
            state = "unknown"
        return RuleStatus(self.rule, self.source.index, state, self.value)


class Alerts(Sink):
    """Follows rules on each source and says when they are raised, cleared, or unknown.

    An event is a JSON document:

    =============== ====================================================================
    ``event``       ``raised``, ``cleared``, or ``unknown``: the source is lost, the zone covers
                    no pixel of its frames, or the stream ended while the alert was raised
    ``id``          another for each event, the same when it is delivered twice
    ``time``        of the frame, or when the loss was noticed: ISO 8601, UTC
    ``captured_at`` the same in seconds of the monotonic clock
    ``media_time``  of a frame of a file: seconds from the first frame of the video
    ``rule``        its text
    ``class``       its class
    ``value``       of the frame, in ``unit``; null where nothing is known
    ``comparison``  ``>``, ``>=``, ``<`` or ``<=``
    ``threshold``   what it was compared with
    ``unit``        ``%``, ``px`` or ``regions``
    ``camera``      number of the source in the stream, from 0
    ``source``      its label, passwords masked
    ``state``       where it stands
    ``frame``       number of the frame, null where there is none
    ``snapshot``    path of the picture, where one was written
    ``clip``        of ``raised``: path of the video, which is complete some seconds later
    =============== ====================================================================

    Durations are those of the scene: of a file they follow the times at which its frames are
    shown, however fast it is read.

    While the file of lines cannot be written, the newest thousand events wait for it.

    Args:
        rules: Rules parsed by :func:`edgeseg.stream.alerts.parse_rule`.
        classes: Classes of the network.
        outputs: Outputs for events.
        min_region: Share of the frame below which ``regions`` are not counted.

    Raises:
        UsageError: A rule names no class of the network, or a zone's file is not there.
        CorruptArtifact: A zone's file holds no zone.
    """

    retry = "next"

    def __init__(
        self,
        rules: Sequence[AlertRule],
        classes: ClassMap,
        outputs: AlertOutputs | None = None,
        min_region: float = 0.0,
    ) -> None:
        check_min_region(min_region)
        outputs = outputs or AlertOutputs()
        self._rules = [(rule, _measure(rule, classes, min_region)) for rule in rules]
        self._lines = None
        if outputs.lines is not None:
            self._lines = AlertLines(
                outputs.lines, outputs.rotation, outputs.budget, overwrite=outputs.overwrite
            )
        self._webhook = outputs.webhook
        self._snapshots = None if outputs.snapshots is None else _Snapshots(outputs)
        self._clips = outputs.clips
        self._clip_writer = None if outputs.clips is None else Background(outputs.clips)
        self.shows_overlay = outputs.clips is not None and outputs.clips.shows_overlay
        self._tracked: list[_TrackedRule] = []
        self._changes = StateChanges(())
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def __str__(self) -> str:
        return "the alerts"

    def subscribe(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Call ``listener`` with each event, in the stream's thread; it must not block."""
        self._listeners.append(listener)

    def statuses(self) -> list[RuleStatus]:
        """Return the status of each rule on each source that it is on; empty before ``open``."""
        return [tracked.status() for tracked in self._tracked]

    def prepare(self, context: SinkContext) -> None:
        """Pass it on to the writer of clips."""
        super().prepare(context)
        if self._clip_writer is not None:
            self._clip_writer.prepare(context)

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Raises UsageError if a rule is on no source that is there; as the lines' file does."""
        numbers = [source.index for source in sources]
        for rule, _ in self._rules:
            if rule.source is not None and rule.source not in numbers:
                raise UsageError(
                    f"the rule {str(rule)!r} is on source {rule.source}; there are "
                    f"{', '.join(map(str, numbers))}",
                    hint="sources count from 0, in the order in which they were given",
                )
        self._changes = StateChanges(sources)
        self._tracked = [
            _TrackedRule(rule, source, measure, RuleTracker(rule))
            for rule, measure in self._rules
            for source in sources
            if rule.source in (None, source.index)
        ]
        if self._lines is not None:
            self._lines.open()
        if self._snapshots is not None:
            self._snapshots.open()
        if self._webhook is not None:
            self._webhook.open()
        if self._clip_writer is not None:
            self._clip_writer.open(sources)

    def write(self, result: StreamResult) -> None:
        """Apply the rules; raises StopStream if the pipe of the events was closed."""
        self.idle()
        for tracked in self._tracked:
            if tracked.source.index == result.camera:
                self._evaluate(tracked, result)
        if self._clip_writer is not None:
            # After the rules, so that a clip is begun or extended before it may end.
            self._clip_writer.write(result)

    def idle(self) -> None:
        """Tell of sources that were lost; raises as :meth:`write`."""
        if self._lines is not None:
            self._lines.catch_up()
        for change in self._changes.poll():
            for tracked in self._tracked:
                if tracked.source is change.source and change.now in _LOST:
                    self._source_lost(tracked)

    def close(self) -> None:
        """Report raised alerts as unknown, and let the webhook deliver what is queued."""
        with ExitStack() as stack:
            if self._lines is not None:
                stack.callback(self._lines.close)
            if self._webhook is not None:
                stack.callback(self._webhook.close)
            if self._clip_writer is not None:
                stack.callback(self._clip_writer.close)
            with suppress(StopStream):
                self.idle()
                for tracked in self._tracked:
                    if tracked.tracker.state == "raised":
                        self._source_lost(tracked)

    def _evaluate(self, tracked: _TrackedRule, result: StreamResult) -> None:
        if tracked.source.state in _LOST:
            return  # the frame waited while its source was lost: it is of no moment that counts
        value = tracked.measure.of(result)
        if math.isnan(value):
            self._source_lost(tracked)
            return
        tracked.value = value
        outcome = tracked.tracker.update(value, moment(tracked.source, result))
        if outcome is not None:
            self._report(tracked, outcome, value, result)

    def _source_lost(self, tracked: _TrackedRule) -> None:
        tracked.value = None
        outcome = tracked.tracker.source_lost()
        if outcome is not None:
            self._report(tracked, outcome, None, None)

    def _report(
        self,
        tracked: _TrackedRule,
        outcome: AlertEvent,
        value: float | None,
        result: StreamResult | None,
    ) -> None:
        at = time.monotonic() if result is None else result.captured_at
        media = None if result is None else result.media_time
        rule, source = tracked.rule, tracked.source
        event: dict[str, Any] = {
            "event": outcome,
            "id": secrets.token_hex(8),
            "time": time_stamp(at),
            "captured_at": round(at, 6),
            **({} if media is None else {"media_time": round(media, 6)}),
            "rule": str(rule),
            "class": rule.label,
            "value": None if value is None else round(value, 6),
            "comparison": rule.comparison,
            "threshold": rule.amount,
            "unit": rule.unit,
            "camera": source.index,
            "source": source.label,
            "state": source.state,
            "frame": None if result is None else result.index,
        }
        _log_event(event)
        if outcome == "raised" and result is not None and self._snapshots is not None:
            event |= self._snapshots.keep(result)
        if outcome == "raised" and result is not None and self._clips is not None:
            event["clip"] = str(self._clips.begin(rule, result))
        if self._webhook is not None:
            self._webhook.send(event)
        for listener in self._listeners:
            listener(event)
        if self._lines is not None:
            self._lines.write(event)

    def reports(self) -> Sequence[SinkReport]:
        """Of the lines, the snapshots, the webhook and the clips, as far as there are any."""
        reports = [each.health.report() for each in (self._lines, self._snapshots) if each]
        if self._webhook is not None:
            reports.append(self._webhook.report())
        if self._clip_writer is not None:
            reports += self._clip_writer.reports()
        return reports


class _Snapshots:
    """The folder of pictures that raised an alert."""

    def __init__(self, outputs: AlertOutputs) -> None:
        assert outputs.snapshots is not None
        self._folder = outputs.snapshots
        self._shelf = Shelf(self._folder, SNAPSHOT, outputs.budget)
        self.health = Health(f"the snapshots in {self._folder}", "Snapshots", patient=False)

    def open(self) -> None:
        """Count what is there."""
        with suppress(OSError):  # reported with the first write
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shelf.scan()

    def keep(self, result: StreamResult) -> dict[str, str]:
        """The part of an event that names the picture; empty where it cannot be written."""
        try:
            paths = save_snapshot(self._folder, result.overlay(), result.mask())
            for path in paths:
                self._shelf.put(path, path.stat().st_size)
        except OSError as error:
            self.health.fails(error)
            return {}
        self.health.works()
        return {"snapshot": str(paths[0])}


def _measure(rule: AlertRule, classes: ClassMap, min_region: float) -> Measure:
    if rule.label not in classes.names:
        raise UsageError(
            f"the rule {str(rule)!r}: expected a class of the network, found {rule.label!r}",
            hint=f"its classes are {', '.join(classes.names)}",
        )
    zone = None if rule.zone is None else load_zone(rule.zone)
    return Measure(classes.names.index(rule.label), rule.unit, zone, min_region)


def _log_event(event: dict[str, Any]) -> None:
    about = f"unknown; the source is {event['state']}"
    if event["value"] is not None:
        about = f"{event['value']:g} {event['unit']} in frame {event['frame']}"
    level = logging.INFO if event["event"] == "cleared" else logging.WARNING
    logger.log(
        level, "%s: alert %s: %s (%s)", *(event[key] for key in ("source", "event", "rule")), about
    )
