"""Outputs that fail: tried again, named where people look, and said by the exit code."""

import json
import logging
import os
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streaming import StillSource, still_result

from edgeseg.engines.base import Engine
from edgeseg.errors import OutputError
from edgeseg.stream import (
    Background,
    Each,
    JsonLines,
    Masks,
    Recording,
    Sink,
    Stream,
    StreamOptions,
    StreamResult,
    run,
)
from edgeseg.stream.sinks import health, recording
from edgeseg.stream.sinks.base import SinkContext, SourceStatus
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.metrics import Metrics
from edgeseg.stream.sinks.retention import Budget, Rotation
from edgeseg.stream.sinks.supervised import Supervised
from edgeseg.stream.web import WebView

LIVE = StillSource()
LABELS = np.zeros((48, 64), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without a wait."""
    monkeypatch.setattr(health, "_BACKOFF_S", (0.0,))
    monkeypatch.setattr(recording, "_ROOM", 0)


def opened(sink: Sink) -> Supervised:
    supervised = Supervised(sink)
    supervised.open([LIVE])
    return supervised


def write(sink: Sink, *indices: int, frame: Any = NOISE) -> None:
    for index in indices:
        labels = np.zeros(frame.shape[:2], np.uint8)
        sink.write(still_result(labels, index=index, frame=frame, captured_at=1000 + index / 25))


def state(sink: Sink) -> tuple[str, int, int]:
    (report,) = sink.reports()
    return report.state, report.written, report.lost


def test_lines_go_on_when_the_disk_has_room_again(
    tmp_path: Path, largest: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(JsonLines(tmp_path / "a.jsonl"))
    write(sink, 0)
    largest((tmp_path / "a.jsonl").stat().st_size + 10)
    write(sink, 1, 2)
    assert state(sink) == ("failed", 1, 2)
    largest(-1)
    write(sink, 3)
    assert state(sink) == ("ok", 2, 2)
    sink.close()
    documents = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [each["frame"] for each in documents if "frame" in each] == [0, 3]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "works again; it has lost 2 results so far" in caplog.text


@pytest.mark.parametrize(
    ("codec", "suffix", "minutes", "size"),
    [
        ("mjpeg", ".mkv", None, 300_000),
        ("mjpeg", ".mkv", 10, 300_000),
        ("h264", ".mkv", None, 60_000),
        ("h264", ".mp4", 10, 60_000),
    ],
)
def test_a_recording_goes_on_in_the_next_part(
    codec: Any,
    suffix: str,
    minutes: float | None,
    size: int,
    tmp_path: Path,
    largest: Callable[[int], None],
    play: Callable[..., Any],
) -> None:
    inner = Recording(tmp_path / f"a{suffix}", overlay=False, codec=codec, minutes=minutes)
    sink = opened(inner)
    largest(size)
    write(sink, *range(100))
    assert sink.reports()[0].errors > 0
    largest(-1)
    write(sink, *range(100, 110))
    sink.close()
    assert state(sink)[0] == "ok"
    first = f"a{suffix}" if minutes is None else f"a-0001{suffix}"
    names = [path.name for path in inner.files()]
    assert names[0] == first
    assert set(names) == {path.name for path in tmp_path.iterdir()}
    assert len(play(tmp_path / first)) > 5
    assert len(play(tmp_path / names[-1])) >= 10


@pytest.mark.parametrize(("codec", "frames"), [("mjpeg", 400), ("h264", 30)])
def test_a_full_disk_leaves_no_heap_of_empty_parts(
    codec: Any, frames: int, tmp_path: Path, largest: Callable[[int], None]
) -> None:
    sink = opened(Recording(tmp_path / "a.mkv", overlay=False, codec=codec, minutes=10))
    largest(0)
    write(sink, *range(frames))
    assert sink.reports()[0].errors > 1
    sink.close()
    largest(-1)
    assert list(tmp_path.iterdir()) == []


def test_masks_go_on_with_the_next_frame(tmp_path: Path, largest: Callable[[int], None]) -> None:
    sink = opened(Masks(tmp_path / "masks"))
    largest(10)
    write(sink, 0)
    largest(-1)
    write(sink, 1)
    sink.close()
    assert state(sink) == ("ok", 1, 1)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["000001.png"]


def test_a_folder_that_went_away_with_its_disk_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "card"
    sinks = [opened(JsonLines(folder / "a.jsonl")), opened(Recording(folder / "a.mkv", minutes=9))]
    for sink in sinks:
        write(sink, 0)
    shutil.rmtree(folder)
    for sink in sinks:
        write(sink, 1, 2)
        assert state(sink)[0] == "failed"
    assert not folder.exists(), "it would be made on the disk below"
    folder.mkdir()
    for sink in sinks:
        write(sink, 3)
        assert state(sink)[0] == "ok"
        sink.close()
    assert sorted(path.name for path in folder.iterdir()) == ["a-0002.mkv", "a.jsonl"]


class Fragile(Sink):
    """Raises at the frames of ``at``; takes all others."""

    retry = "later"

    def __init__(self, *at: int) -> None:
        self.at, self.taken, self.opened, self.closed = at, [0][:0], 0, 0

    def __str__(self) -> str:
        return "the fragile one"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        self.opened += 1

    def write(self, result: StreamResult) -> None:
        if result.index in self.at:
            raise RuntimeError("no more")
        self.taken.append(result.index)

    def close(self) -> None:
        self.closed += 1


def test_a_sink_is_opened_again_in_each_place(engine: Engine) -> None:
    sinks = [Fragile(2), Fragile(2), Fragile(2)]
    around: list[Sink] = [sinks[0], Background(sinks[1]), Each(lambda _: sinks[2], "each")]
    report = run(Stream("test:64x48?frames=6", engine, StreamOptions(realtime=False)), around)
    for sink in sinks:
        assert (sink.taken, sink.opened, sink.closed) == ([0, 1, 3, 4, 5], 2, 2)
    assert [(it.state, it.written, it.lost, it.errors) for it in report.sinks] == [
        ("ok", 5, 1, 1)
    ] * 3
    assert report.failed == []
    assert len(report.incomplete) == 3
    assert json.loads(json.dumps(report.to_dict()))["sinks"][0]["error"] == "no more"


def test_one_recording_of_several_fails_alone() -> None:
    sinks = [Fragile(*range(9)), Fragile()]
    each = Each(lambda source: sinks[source.index], "each")
    each.open([StillSource(index=0), StillSource(index=1)])
    for camera in (0, 1, 0, 1):
        each.write(still_result(LABELS, camera=camera))
    each.close()
    assert [report.state for report in each.reports()] == ["failed", "ok"]
    assert sinks[1].taken == [0, 0]


FAILED = SinkReport("the recording /secret/a.mkv", "Recording", "failed", 7, 3, 0, 2, "full")
COMPANY = SinkContext(reports=lambda: [FAILED])


def test_metrics_tell_how_outputs_stand() -> None:
    metrics = Metrics("127.0.0.1", 0)
    metrics.prepare(COMPANY)
    metrics.open([LIVE])
    url = f"http://127.0.0.1:{metrics.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    metrics.close()
    for name, value in (("up", 0), ("written_total", 7), ("lost_total", 3), ("errors_total", 2)):
        assert f'edgeseg_sink_{name}{{sink="the recording /secret/a.mkv"}} {value}.0' in text


def test_the_page_and_its_health_tell_how_outputs_stand() -> None:
    httpx = pytest.importorskip("httpx")
    view = WebView(still_result(LABELS).classes, "127.0.0.1:0")
    view.prepare(COMPANY)
    view.open([LIVE])
    answer = httpx.get(f"{view.url}healthz")
    told = httpx.get(f"{view.url}status").json()["sinks"]
    view.close()
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "failed": ["Recording"]})
    assert told[0]["error"] == "full"


class Meanwhile(Sink):
    """Does something at a frame."""

    def __init__(self, at: int, what: Callable[[], object]) -> None:
        self._at, self._what = at, what

    def write(self, result: StreamResult) -> None:
        if result.index == self._at:
            self._what()


def test_a_port_in_use_is_waited_for_where_cameras_are(engine: Engine) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    metrics = Metrics("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(OutputError, match="already in use"):
        run(Stream("test:64x48?frames=6", engine, StreamOptions(realtime=False)), [metrics])
    options = StreamOptions(realtime=False, keep_trying=True)
    sinks = [metrics, Meanwhile(2, taken.close)]
    report = run(Stream("test:64x48?frames=6", engine, options), sinks)
    first = report.sinks[0]
    assert (first.kind, first.state, first.written, first.lost) == ("Metrics", "ok", 3, 3)


def test_a_sink_that_sits_in_one_result_has_failed() -> None:
    let, entered = threading.Event(), threading.Event()

    class Hanging(Sink):
        def write(self, result: StreamResult) -> None:
            entered.set()
            assert let.wait(60)

    sink = Background(Hanging())
    sink.open([LIVE])
    sink.write(still_result(LABELS))
    assert entered.wait(60)
    assert sink._busy_since is not None
    now, sink._busy_since = sink.reports()[0].state, sink._busy_since - 60
    later = sink.reports()[0]
    let.set()
    sink.close()
    assert (now, later.state) == ("ok", "failed")
    assert "it took no frame for 60 s" in str(later.error)
    assert sink.reports()[0].state == "ok"


@pytest.fixture
def stream(edgeseg: Any, bright_network: Path) -> Callable[..., Any]:
    """``stream(*options)``: the command on a hundred pictures without a window."""

    def command(*options: object) -> Any:
        source = ("--source", "test:64x48?frames=50", "--every-frame", "--no-window")
        return edgeseg("stream", bright_network, *source, *options, "--json")

    return command


def test_the_exit_code_says_that_an_output_failed(stream: Callable[..., Any]) -> None:
    outcome = stream("--json-lines", "/dev/full")
    assert outcome.code == OutputError.exit_code == 9
    (sink,) = json.loads(outcome.out)["sinks"]
    assert (sink["state"], sink["written"], sink["lost"]) == ("failed", 0, 50)
    assert "lacks 50 of 50 results: No space left on device" in outcome.err


def test_strict_says_that_an_output_lacks_results(
    stream: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Masks.write

    def flaky(self: Masks, result: StreamResult) -> None:
        if result.index == 3:
            raise OSError("a moment without disk")
        original(self, result)

    monkeypatch.setattr(Masks, "write", flaky)
    assert stream("--save-masks", tmp_path / "a").code == 0
    outcome = stream("--save-masks", tmp_path / "b", "--strict")
    assert outcome.code == 9
    assert "lacks 1 of 50 results" in outcome.err


def test_a_port_in_use_has_an_exit_code_after_which_the_service_starts_again(
    stream: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for option in ("--web", "--metrics"):
            assert stream(option, taken.getsockname()[1]).code == 9


def test_the_report_lists_files_that_are_there(stream: Callable[..., Any], tmp_path: Path) -> None:
    parts = ("--record", tmp_path / "a.mkv", "--record-minutes", 25 / 25 / 60, "--record-keep", 1)
    outcome = stream(*parts)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["recordings"] == [str(tmp_path / "a-0002.mkv")]
    assert [path.name for path in tmp_path.iterdir()] == ["a-0002.mkv"]


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_no_output_is_what_the_stream_reads(
    overwrite: tuple[str, ...], edgeseg: Any, bright_network: Path, make_video: Callable[..., Path]
) -> None:
    video = make_video(3)
    for read in (video, bright_network):
        before = read.read_bytes()
        source = ("--source", video, "--no-window")
        outcome = edgeseg("stream", bright_network, *source, "--json-lines", read, *overwrite)
        assert (outcome.code, read.read_bytes()) == (2, before)
    both = (*source, "--json-lines", "a.jsonl", "--alert", "bright > 1%", "--alert-lines")
    assert edgeseg("stream", bright_network, *both, "a.jsonl").code == 2
    assert not os.path.lexists("a.jsonl")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--keep-bytes", "many"), "--keep-bytes: expected a size"),
        (("--rotate", "0"), "--rotate: expected a size"),
        (("--rotate", "600MB", "--keep-bytes", "1GB"), "no room for a second one"),
        (("--rotate-minutes", "0"), "positive"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    options: tuple[str, ...], says: str, stream: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = stream("--json-lines", tmp_path / "a.jsonl", *options)
    assert outcome.code == 2
    assert says in outcome.err


def test_alerts_that_could_not_be_written_are_written_later(
    tmp_path: Path, largest: Callable[[int], None]
) -> None:
    from edgeseg.stream.alerts import AlertOutputs, Alerts, parse_rule

    outputs = AlertOutputs(
        lines=tmp_path / "a.jsonl",
        snapshots=tmp_path / "seen",
        rotation=Rotation(10**6),
        budget=Budget(10**7),
    )
    sink = Alerts([parse_rule("road > 20%")], still_result(LABELS).classes, outputs)
    sink.open([LIVE])
    largest(10)
    sink.write(still_result(np.ones((48, 64), np.uint8), index=0))
    assert [report.state for report in sink.reports()] == ["failed", "failed"]
    largest(-1)
    sink.idle()
    sink.write(still_result(LABELS, index=1))
    sink.write(still_result(np.ones((48, 64), np.uint8), index=2))
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["raised", "cleared", "raised"]
    assert ["snapshot" in event for event in events] == [False, False, True]
    assert [(it.state, it.lost) for it in sink.reports()] == [("ok", 0), ("ok", 1)]
    sink.close()
