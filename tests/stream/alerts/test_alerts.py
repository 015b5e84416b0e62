"""Rules over results: what is told, where it goes, and what a broken place for it does."""

import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from streaming import CLASSES, StillSource, still_result

from edgeseg.errors import CorruptArtifact, UsageError
from edgeseg.stream import StopStream, StreamResult
from edgeseg.stream.alerts import AlertOutputs, Alerts, Zone, parse_rule


def frame(road: int, at: float = 0.0, index: int = 0, camera: int = 0) -> StreamResult:
    """100 pixels, so many of them road, from the upper left on."""
    labels = np.zeros(100, np.uint8)
    labels[:road] = 1
    return still_result(labels.reshape(10, 10), captured_at=1000.0 + at, index=index, camera=camera)


class Told:
    """Alerts whose events are kept."""

    def __init__(
        self, *rules: str, sources: list[StillSource] | None = None, **outputs: Any
    ) -> None:
        self.stream = io.StringIO()
        self.sources = sources or [StillSource()]
        parsed = [parse_rule(rule) for rule in rules]
        self.sink = Alerts(parsed, CLASSES, AlertOutputs(lines=self.stream, **outputs))
        self.sink.open(self.sources)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def short(self) -> list[tuple[str, float | None]]:
        return [(event["event"], event["value"]) for event in self.events]


def test_an_event_has_the_documented_keys(tmp_path: Path) -> None:
    told = Told("road > 20% for 0.5s", snapshots=tmp_path / "shots")
    told.sink.write(frame(30, 0.0, 7))
    told.sink.write(frame(40, 0.5, 8))
    told.sink.close()
    event, _ = told.events
    assert list(event) == [
        *("event", "id", "time", "captured_at", "rule", "class", "value", "comparison"),
        *("threshold", "unit", "camera", "source", "state", "frame", "snapshot"),
    ]
    assert all(f"``{key}``" in str(Alerts.__doc__) for key in event)
    assert (event["event"], event["rule"]) == ("raised", "road > 20% for 0.5s")
    assert (event["class"], event["value"], event["threshold"]) == ("road", 40, 20)
    assert (event["frame"], event["captured_at"]) == (8, 1000.5)
    shot = cv2.imread(event["snapshot"])
    assert shot.shape == (10, 10, 3)


def test_raised_and_cleared_in_a_zone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Zone(polygons=(((0, 0), (1, 0), (1, 0.2), (0, 0.2)),)).save(tmp_path / "zone.json")
    told = Told(f"road >= 50% in {tmp_path / 'zone.json'}")
    for index, road in enumerate([9, 10, 90, 5]):
        told.sink.write(frame(road, index))
    assert told.short == [("raised", 50), ("cleared", 25)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "50 % in frame 0" in caplog.text


def test_each_source_is_watched_by_itself_unless_the_rule_names_one() -> None:
    sources = [StillSource("a", index=0), StillSource("b", index=1)]
    told = Told("road > 20%", "road > 10 px on 1", sources=sources)
    told.sink.write(frame(30, camera=0))
    told.sink.write(frame(15, camera=1))
    told.sink.write(frame(30, camera=1))
    assert [(event["source"], event["unit"], event["value"]) for event in told.events] == [
        ("a", "%", 30),
        ("b", "px", 15),
        ("b", "%", 30),
    ]


@pytest.mark.parametrize("state", ["stalled", "reconnecting", "failed"])
def test_a_lost_source_is_told_as_unknown_once(state: Any) -> None:
    told = Told("road > 20%", "road > 90%")
    told.sink.write(frame(30))
    told.sources[0].state = state
    told.sink.idle()
    told.sink.idle()
    told.sources[0].state = "reconnecting"
    told.sink.idle()
    told.sources[0].state = "ok"
    told.sink.write(frame(30, 60))
    assert told.short == [
        ("raised", 30),
        ("unknown", None),
        ("unknown", None),
        ("raised", 30),
        ("cleared", 30),
    ]
    lost = told.events[1]
    assert (lost["state"], lost["frame"]) == (state, None)


def test_at_the_end_only_what_was_raised_is_left_open() -> None:
    told = Told("road > 20%", "road > 90%", sources=[StillSource("a.mkv", live=False)])
    told.sources[0].state = "ended"  # the reader is ahead of the frames
    told.sink.write(frame(30))
    told.sink.close()
    assert [(event["event"], event["rule"]) for event in told.events] == [
        ("raised", "road > 20%"),
        ("unknown", "road > 20%"),
    ]


def test_a_frame_that_waited_while_its_source_was_lost_does_not_count() -> None:
    told = Told("road > 20%")
    told.sources[0].state = "stalled"
    told.sink.write(frame(30))
    assert told.short == [("unknown", None)]
    told.sources[0].state = "ok"
    told.sink.write(frame(30, 3))
    assert told.short[1:] == [("raised", 30)]


def test_a_file_is_measured_by_the_time_of_its_scene() -> None:
    """Read in no time at all, 13 frames of 25 a second still last half a second."""
    file = StillSource("a.mkv", fps=25.0, realtime=False, live=False)
    told = Told("road > 20% for 0.5s", sources=[file])
    for index in range(15):
        told.sink.write(frame(30, index / 1000, index))
    assert [event["frame"] for event in told.events] == [13]
    live = Told("road > 20% for 0.5s")
    for index in range(15):
        live.sink.write(frame(30, index / 1000, index))
    assert live.events == []


def test_a_zone_too_small_for_the_frames_is_unknown(tmp_path: Path) -> None:
    Zone(polygons=(((0, 0), (0.01, 0), (0.01, 0.01)),)).save(tmp_path / "z.json")
    told = Told(f"road > 20% in {tmp_path / 'z.json'}")
    told.sink.write(frame(30))
    told.sink.write(frame(30, 1))
    assert told.short == [("unknown", None)]


def test_a_bad_zone_is_refused_before_the_stream(tmp_path: Path) -> None:
    (tmp_path / "z.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"z\.json: polygons"):
        Alerts([parse_rule(f"road > 2% in {tmp_path / 'z.json'}")], CLASSES)


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="is on source 2; there are 0, 1"):
        Told("road > 2% on 2", sources=[StillSource(index=0), StillSource(index=1)])


def test_a_full_disk_stops_neither_the_alerts_nor_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    sink = Alerts([parse_rule("road > 20%")], CLASSES, AlertOutputs(lines=Path("/dev/full")))
    sink.open([StillSource()])
    for index, road in enumerate([30, 0, 30]):
        sink.write(frame(road, index))
    sink.close()
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [error.getMessage() for error in errors] == [
        "the alert lines to /dev/full failed and will be tried again: No space left on device"
    ]
    assert [(it.kind, it.state, it.written, it.lost) for it in sink.reports()] == [
        ("AlertLines", "failed", 0, 4)  # the last says that the stream ended
    ]
    assert caplog.text.count("alert raised") == 2


def test_snapshots_that_cannot_be_written_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    told = Told("road > 20%", snapshots=tmp_path / "file")
    told.sink.write(frame(30))
    assert told.short == [("raised", 30)]
    assert "the snapshots in" in caplog.text
    assert [(it.kind, it.state, it.lost) for it in told.sink.reports()] == [
        ("AlertLines", "ok", 0), ("Snapshots", "failed", 1),
    ]  # fmt: skip


def test_a_pipe_that_nobody_reads_stops_the_stream() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    sink = Alerts([parse_rule("road > 20%")], CLASSES, AlertOutputs(lines=stream))
    sink.open([StillSource()])
    with pytest.raises(StopStream):
        sink.write(frame(30))
    with pytest.raises(BrokenPipeError):
        stream.close()
