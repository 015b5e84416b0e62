"""Lines of JSON: what they say of a frame, of a source, and where they end."""

import io
import json
import math
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from streaming import StillSource, still_result, written

from edgeseg.artifacts.card import InputSpec
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.stream import JsonLines, StopStream, Stream, StreamOptions, run


def scene() -> Any:
    """A road, a sign in two parts and a speck of it."""
    labels = np.zeros((40, 60), np.uint8)
    labels[30:, :], labels[2:8, 5:9], labels[2:8, 40:44], labels[20, 20] = 1, 2, 2, 2
    return labels


def lines(*results: Any, **options: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    written(JsonLines(stream, **options), *results)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_frame_is_described_by_the_documented_keys() -> None:
    change, line = lines(still_result(scene(), index=3, captured_at=1000.5))
    assert list(line) == [
        *("frame", "source", "camera", "state", "time", "captured_at", "age_ms"),
        *("width", "height", "areas_px", "share", "regions", "stages_ms"),
    ]
    assert all(f"``{key}``" in str(JsonLines.__doc__) for key in (*line, *change, "name"))
    assert (line["frame"], line["captured_at"], line["state"]) == (3, 1000.5, "ok")
    assert (line["width"], line["height"]) == (60, 40)
    assert line["areas_px"] == {"background": 1751, "road": 600, "traffic sign": 49}
    assert line["share"] == {"background": 0.729583, "road": 0.25, "traffic sign": 0.020417}
    assert line["regions"][0] == {
        "class": "road",
        "area_px": 600,
        "share": 0.25,
        "box": [0, 30, 60, 10],
        "centroid": [29.5, 34.5],
    }
    assert set(line["stages_ms"]) == {"capture", "preprocess", "infer"}


def test_regions_are_those_of_the_mask_at_the_size_of_the_frame() -> None:
    spec = InputSpec(height=40, width=60, resize="letterbox")
    frame = np.zeros((90, 100, 3), np.uint8)
    result = still_result(scene(), frame=frame, input=spec)
    line = lines(result, min_region=0)[1]
    parts, count = ndimage.label(result.mask() == 2, np.ones((3, 3)))
    areas = sorted(np.bincount(parts.ravel())[1:].tolist(), reverse=True)
    assert count == 3
    found = [each for each in line["regions"] if each["class"] == "traffic sign"]
    assert [each["area_px"] for each in found] == areas


@pytest.mark.parametrize(("min_region", "count"), [(0, 4), (0.001, 3), (0.011, 1), (0.26, 0)])
def test_small_regions_are_left_out(min_region: float, count: int) -> None:
    line = lines(still_result(scene()), min_region=min_region)[1]
    assert len(line["regions"]) == count


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_a_smallest_region_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="a share of the frame"):
        JsonLines(io.StringIO(), share)


def test_a_picture_is_named() -> None:
    _, named, unnamed = lines(still_result(scene(), name="a.png"), still_result(scene()))
    assert named["name"] == "a.png"
    assert "name" not in unnamed


def test_the_time_is_that_of_the_capture_on_the_wall() -> None:
    before = datetime.now(timezone.utc)
    line = lines(still_result(scene(), captured_at=time.monotonic() - 3600))[1]
    assert line["time"].endswith("Z")
    said = datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
    assert abs((said + timedelta(hours=1)) - before) < timedelta(minutes=5)


def test_changes_of_the_state_are_lines_of_their_own() -> None:
    source = StillSource(label="rtsp://user:***@host/a", index=0, state="starting")
    stream = io.StringIO()
    sink = JsonLines(stream)
    sink.open([source])
    sink.idle()
    source.state = "ok"
    sink.write(still_result(scene()))
    source.state = "stalled"
    sink.idle()
    sink.idle()
    source.state, source.reconnects = "ok", 1
    sink.write(still_result(scene(), index=1))
    source.state = "ended"
    sink.close()
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line.get("before"), line["state"], line.get("reconnects")) for line in documents]
    assert told == [
        ("starting", "ok", 0),
        (None, "ok", None),
        ("ok", "stalled", 0),
        ("stalled", "ok", 1),
        (None, "ok", None),
        ("ok", "ended", 1),
    ]
    events = [line for line in documents if "event" in line]
    assert all(list(event)[:2] == ["event", "time"] for event in events)
    assert {event["source"] for event in events} == {"rtsp://user:***@host/a"}


def test_a_file_can_be_followed_while_it_is_written(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "new" / "a.jsonl")
    sink.open([StillSource()])
    sink.write(still_result(scene()))
    assert (tmp_path / "new" / "a.jsonl").read_text().count("\n") == 2
    sink.close()


def test_a_given_stream_stays_open() -> None:
    stream = io.StringIO()
    written(JsonLines(stream))
    assert not stream.closed


def test_a_pipe_that_nobody_reads_stops_the_stream() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    sink = JsonLines(stream)
    sink.open([StillSource()])
    with pytest.raises(StopStream):
        sink.write(still_result(scene()))
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_real_stream_says_how_its_source_ended(engine: Engine, tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "a.jsonl")
    run(Stream("test:64x48?frames=3", engine, StreamOptions(realtime=False)), [sink])
    documents = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in documents if "event" not in line] == [0, 1, 2]
    assert [line["state"] for line in documents if "event" in line][-1] == "ended"
