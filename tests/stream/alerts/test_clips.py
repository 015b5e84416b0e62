"""Clips of alerts, read back by PyAV: which frames, at what times, in which files."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numbered_videos import number_of, numbered_frame
from streaming import CLASSES, StillSource, still_result

from edgeseg.stream import StreamResult
from edgeseg.stream.alerts import AlertOutputs, Alerts, ClipOptions, Clips, clips, parse_rule
from edgeseg.stream.sinks import encoded, health, matroska
from edgeseg.stream.sinks.encoded import EncodedWriter
from edgeseg.stream.sinks.retention import Budget
from edgeseg.stream.sinks.ring import Ring, RingPicture

ROAD = np.ones((64, 128), np.uint8)
RULE = parse_rule("road > 50%")
NONE = np.zeros((64, 128), np.uint8)


def camera(index: int = 0) -> StillSource:
    """A camera whose frames are none of them skipped."""
    return StillSource(f"camera:{index}", index=index, realtime=False)


def frame(number: int, at: float, seen: bool, source: int = 0) -> StreamResult:
    fields = {"index": number, "captured_at": at, "camera": source}
    return still_result(ROAD if seen else NONE, frame=numbered_frame(number), **fields)


class Watched:
    """Alerts that write clips, and keep their events."""

    def __init__(self, folder: Path, cameras: int = 1, **options: Any) -> None:
        own = {key: options.pop(key) for key in ("budget", "codec") if key in options}
        self.events: list[dict[str, Any]] = []
        self.clips = Clips(folder, ClipOptions(**options), overlay=False, **own)
        self.alerts = Alerts([RULE], CLASSES, AlertOutputs(clips=self.clips))
        self.alerts.subscribe(lambda event: self.events.append(dict(event)))
        self.alerts.open([camera(index) for index in range(cameras)])

    def play(self, times: Sequence[float], *raised: int, source: int = 0) -> None:
        """Frames at these times, of which some raise an alert and clear it with the next."""
        for number, at in enumerate(times):
            self.alerts.write(frame(number, at, number in raised, source))

    @property
    def named(self) -> list[Path]:
        return [Path(event["clip"]) for event in self.events if event["event"] == "raised"]


def opened(folder: Path, **options: Any) -> Clips:
    """Clips, of half a second before and after by default, in the test's own thread."""
    options = {"clip_before": 0.5, "clip_after": 0.5} | options
    sink = Clips(folder, ClipOptions(**options), overlay=False)
    sink.open([camera()])
    return sink


def shown(path: Path) -> list[tuple[int, float]]:
    """Numbers of the frames of a clip, and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames, path
    return [(number_of(each.to_ndarray(format="bgr24")), float(each.time)) for each in frames]


def numbers(path: Path) -> list[int]:
    return [number for number, _ in shown(path)]


def test_a_clip_has_the_frames_around_the_alert_at_their_times(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).choice([0.04, 0.1, 0.3], 60)
    times = (1000 + np.cumsum(steps)).tolist()
    watched = Watched(tmp_path, clip_before=1.5, clip_after=0.8)
    watched.play(times, 30)
    watched.alerts.close()
    raised = times[30]
    expected = [n for n, at in enumerate(times) if raised - 1.5 <= at <= raised + 0.8]
    (path,) = watched.named
    assert path.name.endswith("-0-road.mp4")
    assert numbers(path) == expected
    since = times[expected[0]]
    assert [at for _, at in shown(path)] == pytest.approx(
        [times[n] - since for n in expected], abs=1e-4
    )
    (report,) = watched.alerts.reports()
    assert (report.kind, report.state) == ("Clips", "ok")
    assert (report.written, report.lost) == (len(expected), 0)


def test_an_alert_within_a_clip_extends_it_and_a_later_one_begins_another(tmp_path: Path) -> None:
    watched = Watched(tmp_path, clip_before=0.5, clip_after=1.0)
    watched.play(np.arange(60) / 10, 10, 18, 40)
    watched.alerts.close()
    first, again, other = watched.named
    assert first == again != other
    assert numbers(first) == list(range(5, 29))
    assert numbers(other) == list(range(35, 51))


def test_a_clip_that_is_extended_for_long_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "_LONGEST_S", 2.0)
    watched = Watched(tmp_path, clip_before=0.5, clip_after=1.0)
    watched.play(np.arange(50) / 10, 10, 18, 26, 31)
    watched.alerts.close()
    first, *more = watched.named
    assert [path == first for path in more] == [True, True, False]
    assert numbers(first) == list(range(5, 31))
    assert numbers(more[-1]) == list(range(31, 42))


def test_cameras_have_clips_of_their_own(tmp_path: Path) -> None:
    watched = Watched(tmp_path, cameras=2, clip_before=0.2, clip_after=0.2)
    for number in range(20):
        watched.alerts.write(frame(number, number / 10, number == 5))
        watched.alerts.write(frame(100 + number, number / 10, number == 6, source=1))
    watched.alerts.close()
    assert [numbers(path) for path in watched.named] == [list(range(3, 8)), list(range(104, 109))]


def test_a_clip_in_progress_is_complete_at_the_end_of_the_stream_without_pyav_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for with_pyav in (True, False):
        if not with_pyav:
            for module in (encoded, matroska):
                monkeypatch.setattr(module, "have_pyav", lambda: False)
        watched = Watched(tmp_path / str(with_pyav), clip_before=1.0)
        watched.play(np.arange(20) / 25, 19)
        watched.alerts.close()
        (path,) = watched.named
        assert path.suffix == (".mp4" if with_pyav else ".mkv")
        assert numbers(path) == list(range(20))


def test_the_ring_keeps_to_its_bytes_and_the_clip_begins_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0)
    size = len(cv2.imencode(".jpg", numbered_frame(0))[1])
    ring = Ring(10 * size)
    for number in range(50):
        picture = noise.integers(0, 256, (32, 48, 3), np.uint8)
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        ring.push(RingPicture(number, data, number, None))
        kept = list(ring)
        assert ring.used == sum(len(each.data) for each in kept) <= 10 * size
        assert [each.at for each in kept] == list(range(number + 1 - len(kept), number + 1))
    assert ring.used > 8 * size
    ring.push(RingPicture(50, bytes(11 * size), 50, None))
    assert not list(ring)
    assert ring.used == 0
    sink = opened(tmp_path, clip_before=5, clip_after=0, clip_memory=10 * size)
    for number in range(40):
        result = frame(number, number / 10, False)
        if number == 30:
            path = sink.begin(RULE, result)
        sink.write(result)
    sink.close()
    found = numbers(path)
    assert found == list(range(found[0], 31))
    assert 7 <= len(found) <= 11
    assert caplog.text.count("increase --clip-memory") == 1
    assert sink.reports()[0].lost == 0


def test_clips_of_all_runs_are_limited_in_number_and_bytes(tmp_path: Path) -> None:
    foreign = tmp_path / "20200101-000000-holiday.mp4"
    foreign.write_bytes(b"mine")
    old = [tmp_path / f"2020010{day}-000000-0-road.mp4" for day in (1, 2, 3)]
    for day, path in enumerate(old):
        path.write_bytes(bytes(100_000))
        os.utime(path, (day, day))
    watched = Watched(tmp_path, clip_before=0.1, clip_after=0.1, clip_keep=3)
    watched.play(np.arange(10) / 10, 5)
    watched.alerts.close()
    assert [path.exists() for path in old] == [False, True, True]
    watched = Watched(tmp_path, clip_before=0.1, clip_after=0.1, budget=Budget(150_000))
    assert [path.exists() for path in old] == [False, False, True]
    watched.play(np.arange(10) / 10, 5)
    watched.alerts.close()
    assert watched.named[0].exists()
    assert foreign.exists()


def test_a_folder_that_is_back_gets_the_whole_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_BACKOFF_S", (0.0,))
    folder = tmp_path / "clips"
    folder.write_text("in the way")
    sink = opened(folder)
    results = [frame(number, number / 10, False) for number in range(40)]
    for number, result in enumerate(results):
        if number == 10:
            sink.begin(RULE, result)
        if number == 14:
            (report,) = sink.reports()
            assert (report.state, report.written, report.lost) == ("failed", 0, 0)
            folder.unlink()
        sink.write(result)
    sink.close()
    (path,) = folder.iterdir()
    assert numbers(path) == list(range(5, 16))
    (report,) = sink.reports()
    assert (report.state, report.written, report.lost) == ("ok", 11, 0)


def test_a_folder_that_does_not_come_back_costs_the_frames_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("in the way")
    sink = opened(tmp_path / "clips")
    for number in range(20):
        result = frame(number, number / 10, False)
        if number == 10:
            sink.begin(RULE, result)
        sink.write(result)
    sink.close()
    (report,) = sink.reports()
    assert (report.state, report.written, report.lost) == ("failed", 0, 11)


def test_a_disk_that_is_full_in_a_clip_costs_no_frame_but_the_rest_is_in_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_BACKOFF_S", (0.0,))
    count, write = iter(range(1000)), EncodedWriter.write
    monkeypatch.setattr(
        EncodedWriter, "write", lambda self, *of: next(count) != 7 and write(self, *of)
    )
    watched = Watched(tmp_path, clip_before=0.5, clip_after=0.5)
    watched.play(np.arange(20) / 10, 10)
    watched.alerts.close()
    part = watched.named[0].with_stem(f"{watched.named[0].stem}-0001")
    assert numbers(watched.named[0]) + numbers(part) == list(range(5, 16))
    assert watched.alerts.reports()[0].errors == 1


def test_the_clip_of_a_camera_that_was_lost_ends(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    begun = time.monotonic() - 60
    results = [frame(number, begun + number / 10, False) for number in range(12)]
    path = sink.begin(RULE, results[-1])
    for result in results:
        sink.write(result)
    assert sink.begin(RULE, results[-1]) == path
    for _ in range(5):
        sink.idle()
    assert numbers(path) == list(range(6, 12))
    assert sink.begin(RULE, results[-1]) != path
    sink.close()


def test_the_command_names_clips_in_its_alerts(
    edgeseg: Any, bright_network: Path, tmp_path: Path
) -> None:
    common = ("stream", str(bright_network), "--source", "test:64x48?frames=5", "--no-window")
    common += ("--json", "--alert", "background >= 0%")
    where = ("--alert-clips", str(tmp_path / "clips"), "--codec", "mjpeg")
    lines = tmp_path / "alerts.jsonl"
    outcome = edgeseg(*common, *where, "--alert-lines", str(lines))
    assert outcome.code == 0, outcome.err
    event = json.loads(lines.read_text().splitlines()[0])
    assert list((tmp_path / "clips").iterdir()) == [Path(event["clip"])]
    assert event["clip"].endswith("-0-background.mkv")
    refused = edgeseg(*common, "--clip-before", "3")
    assert refused.code == 2
    assert "--alert-clips DIR" in refused.document["error"]["hint"]
