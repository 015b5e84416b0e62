"""What follows the time in the video: recordings, lines, alerts, the pace, scores by number."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numbered_videos import damage, make_numbered
from streaming import StillSource, still_result, written

from edgeseg.artifacts.card import ClassMap
from edgeseg.engines.base import Engine
from edgeseg.sources import capture
from edgeseg.stream import JsonLines, Masks, Recording, Stream, StreamOptions, StreamResult, run
from edgeseg.stream.alerts import AlertOutputs, Alerts, parse_rule
from edgeseg.stream.sinks import encoded, matroska
from edgeseg.stream.sinks.scoring import Scoring

TWO = ClassMap.model_validate({"names": ("background", "bright")})
ODD = (*(number / 25 for number in range(25)), *(float(second) for second in range(1, 9)))
"""A second at 25 frames a second, then a frame a second: as of a screen or a sparing camera."""


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return make_numbered(tmp_path / "odd.mp4", "m", len(ODD), ODD)


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (capture, encoded, matroska):
        monkeypatch.setattr(module, "have_pyav", lambda: False)


def shown_at(path: Path) -> list[float]:
    """The presentation times of a recording, in seconds, by an independent reader."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def test_a_recording_shows_each_frame_at_its_time(
    odd: Path, engine: Engine, tmp_path: Path, play: Callable[[Path], Any]
) -> None:
    sinks = [
        Recording(tmp_path / "a.mkv", codec="mjpeg"),
        Recording(tmp_path / "raw.mkv", overlay=False),
    ]
    run(Stream(odd, engine), sinks)
    for sink in sinks:
        assert shown_at(sink.path) == pytest.approx(ODD, abs=0.002)
        assert sink.frames == len(ODD)
    frames, expected = play(sinks[1].path), play(odd)
    assert all(cv2.PSNR(a, b) > 30 for a, b in zip(frames, expected, strict=True))


@pytest.mark.usefixtures("without_pyav")
def test_without_pyav_frames_are_repeated_to_keep_the_time_and_that_is_said(
    odd: Path, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Recording(tmp_path / "raw.mkv", overlay=False)
    run(Stream(odd, engine), [sink])
    times = shown_at(sink.path)
    assert times == pytest.approx(np.arange(len(times)) / 25, abs=0.002)
    assert times[-1] == pytest.approx(ODD[-1], abs=0.05)
    assert "some are repeated" in caplog.text
    with av.open(str(sink.path)) as container:
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    changes = [
        number / 25
        for number, (a, b) in enumerate(zip(pictures, pictures[1:], strict=False), 1)
        if not np.array_equal(a, b)
    ]
    assert changes == pytest.approx(ODD[1:], abs=0.05)


def results(times: Sequence[float | None]) -> list[StreamResult]:
    labels = np.zeros((48, 64), np.uint8)
    return [
        still_result(labels, index=number, media_time=at, captured_at=1000 + number / 1000)
        for number, at in enumerate(times)
    ]


def recorded(path: Path, source: StillSource, times: Sequence[float | None]) -> Recording:
    return written(Recording(path), *results(times), source=source)


@pytest.mark.usefixtures("without_pyav")
def test_without_pyav_frames_that_come_too_soon_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = StillSource("a.mkv", fps=12.5, realtime=False, live=False)
    even = recorded(tmp_path / "even.mkv", file, [number / 12.5 for number in range(10)])
    assert (even.frames, len(shown_at(even.path))) == (10, 10)
    assert not caplog.records
    soon = recorded(tmp_path / "soon.mkv", file, [number / 25 for number in range(20)])
    assert shown_at(soon.path)[-1] == pytest.approx(19 / 25, abs=0.05)
    assert "skipped" in caplog.text


def test_parts_last_their_minutes_of_video(tmp_path: Path) -> None:
    file = StillSource("a.mkv", fps=25.0, realtime=False, live=False)
    six_seconds = Recording(tmp_path / "a.mkv", minutes=0.1)
    written(six_seconds, *results([float(second) for second in range(15)]), source=file)
    parts = sorted(tmp_path.glob("a-*.mkv"))
    assert [len(shown_at(part)) for part in parts] == [7, 7, 1]
    assert all(shown_at(part)[0] == 0 for part in parts)


def test_a_camera_is_recorded_by_the_clock_of_the_machine(tmp_path: Path) -> None:
    """Its time stamps, if it ever states any, are not trusted."""
    camera = StillSource("camera:0", fps=25.0, realtime=True, live=True)
    sink = recorded(tmp_path / "a.mkv", camera, [0.0, 100.0, 200.0])
    assert sink.frames == 3


def test_lines_hold_the_time_in_the_video(odd: Path, engine: Engine, tmp_path: Path) -> None:
    run(Stream(odd, engine), [JsonLines(tmp_path / "l.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    frames = [line for line in lines if "frame" in line]
    assert [line["media_time"] for line in frames] == pytest.approx(ODD, abs=0.002)
    assert not any("damaged" in line for line in frames)


@pytest.mark.parametrize("rule", ["background >= 0% for 5s", "background >= 0% for 500ms"])
def test_alerts_follow_the_time_in_the_video(
    rule: str, odd: Path, engine: Engine, tmp_path: Path
) -> None:
    parsed = parse_rule(rule)
    alerts = Alerts([parsed], TWO, AlertOutputs(lines=tmp_path / "a.jsonl"))
    run(Stream(odd, engine), [alerts])
    raised = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    due = next(number for number, at in enumerate(ODD) if at >= parsed.duration - 1e-9)
    assert (raised["event"], raised["frame"]) == ("raised", due)
    assert raised["media_time"] == pytest.approx(ODD[due], abs=0.002)


def test_a_file_at_its_own_pace_takes_the_times_of_its_frames(
    engine: Engine, tmp_path: Path
) -> None:
    times = [0.0, 0.02, 0.04, 0.6, 0.62]
    path = make_numbered(tmp_path / "pause.mp4", "m", len(times), times)
    stream = Stream(path, engine, StreamOptions(realtime=True))
    before = time.monotonic()
    seen = {result.index: result.captured_at for result in stream}
    assert time.monotonic() - before > 0.6
    assert max(seen) == 4


def test_frames_behind_damage_meet_the_masks_of_their_number(
    make_video: Callable[..., Path], step: Callable[..., np.ndarray], engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "truth").mkdir()
    for number in range(30):
        mask = (step(number)[..., 0] > 127).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "truth" / f"{number:02d}.png"), mask)
    path = damage(make_video(30, name="video.avi"), "zero")
    scoring, masks = Scoring(tmp_path / "truth", TWO), Masks(tmp_path / "masks")
    report = run(Stream(path, engine), [scoring, masks])
    assert 0 < report.sources[0].bad_frames < 15
    assert report.frames + report.sources[0].bad_frames == 30
    names = sorted(each.name for each in (tmp_path / "masks").iterdir())
    assert (names[0], names[-1], len(names)) == ("000000.png", "000029.png", report.frames)
    figures = scoring.to_dict()
    assert figures is not None
    assert figures["frames"] == report.frames
    # A frame that met its neighbour's mask would be wrong in two of 64 columns.
    assert figures["pixel_accuracy"] > 0.995
