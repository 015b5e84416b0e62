"""Several cameras of which some are dead, and consumers that are too slow."""

import io
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.engines.base import Engine
from edgeseg.errors import OpenFailed
from edgeseg.options.streaming import Mode
from edgeseg.stream import (
    Sink,
    SourceLimits,
    SourceSpec,
    SourceStatus,
    StopStream,
    Stream,
    StreamOptions,
    StreamResult,
    parse_source,
    run,
)

LIMITS = SourceLimits(open_s=20, read_s=20, stalled_s=20, backoff_s=(0.05,))
FRAMES = 20
BEHIND = 4
"""Frames: one interval, and what a busy machine may add."""


def spec_of(camera: Any, **limits: Any) -> SourceSpec:
    return replace(parse_source(camera.url), limits=replace(LIMITS, **limits))


def share_seen(stream: Stream, camera: int, during: Callable[[int], None]) -> float:
    """The share of the frames of one camera that came out, of the first ``FRAMES`` results."""
    indices: list[int] = []
    for result in stream:
        if result.camera == camera:
            during(len(indices))
            indices.append(result.index)
        if len(indices) == FRAMES:
            stream.stop()
    return len(indices) / (indices[-1] - indices[0] + 1)


@pytest.mark.parametrize("fault", ["none", "never there", "dies", "freezes"])
def test_a_dead_camera_costs_the_other_no_frames(
    fault: str, more_cameras: Callable[[], Any], grey_engine: Engine
) -> None:
    dead, alive = more_cameras(), more_cameras()
    if fault == "never there":
        dead.switch_off()

    def during(seen: int) -> None:
        if seen == 5 and fault == "dies":
            dead.switch_off()
        if seen == 5 and fault == "freezes":
            dead.frozen.set()

    with Stream([spec_of(dead, stalled_s=0.3, read_s=1), spec_of(alive)], grey_engine) as stream:
        share = share_seen(stream, 1, during)
    assert stream.mode == "throughput"
    assert share >= 0.9
    if fault != "none":
        assert stream.sources[0].state != "ok"


def test_an_engine_that_waits_for_each_camera_would_be_found(
    more_cameras: Callable[[], Any], grey_engine: Any
) -> None:
    camera = more_cameras()
    grey_engine.watch = lambda batch: time.sleep(0.1)
    with Stream(spec_of(camera), grey_engine) as stream:
        assert share_seen(stream, 0, lambda seen: None) < 0.9


class Watching(Sink):
    """Freezes a camera at the tenth result, and ends the run once its stall was logged."""

    def __init__(self, camera: Any, log: pytest.LogCaptureFixture) -> None:
        self.said = False
        self._camera, self._log = camera, log
        self._seen = 0

    def open(self, sources: Sequence[SourceStatus]) -> None: ...

    def write(self, result: StreamResult) -> None:
        self._seen += 1
        if self._seen == 10:
            self._camera.frozen.set()
        time.sleep(0.06)  # slower than the camera, so that a result always waits
        self.said = "stalled (no frame for 0.5 s)" in self._log.text
        if self.said:
            raise StopStream

    def close(self) -> None: ...


def test_a_frozen_camera_is_said_though_the_other_goes_on(
    more_cameras: Callable[[], Any],
    camera: Any,
    grey_engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    frozen = more_cameras()
    sources = [spec_of(camera), spec_of(frozen, stalled_s=0.5)]
    watching = Watching(frozen, caplog)
    run(Stream(sources, grey_engine, StreamOptions(max_frames=80)), [watching])
    assert watching.said, "before the end, where the report asks"
    assert caplog.text.count("stalled (") == 1


def test_a_camera_that_was_not_there_comes_later(
    more_cameras: Callable[[], Any], grey_engine: Engine
) -> None:
    late, alive = more_cameras(), more_cameras()
    late.switch_off()
    seen = {0: 0, 1: 0}
    with Stream([spec_of(late), spec_of(alive)], grey_engine) as stream:
        for result in stream:
            seen[result.camera] += 1
            if seen == {0: 0, 1: 5}:
                late.switch_on()
            if seen[0] == 5:
                stream.stop()
    assert stream.sources[0].state == "ok"


def test_when_all_are_dead_at_the_start_the_first_cause_is_raised(
    more_cameras: Callable[[], Any], grey_engine: Engine
) -> None:
    dead = [more_cameras(), more_cameras()]
    for camera in dead:
        camera.switch_off()
    with pytest.raises(OpenFailed, match="refused the connection") as failed:
        list(Stream([spec_of(camera) for camera in dead], grey_engine))
    assert str(dead[0].port) in failed.value.message
    assert failed.value.exit_code == 5


def behind(camera: Any, engine: Any, options: StreamOptions) -> int:
    """How many frames the camera is ahead of the engine, as a rule, with 200 ms a result.

    The median: a backlog lasts and grows, while a moment in which the machine runs nothing of ours
    passes. A maximum would tell the two apart on an idle machine only.
    """
    late: list[int] = []

    def watch(batch: NDArray[np.float32]) -> None:
        shade = round(float(batch.mean()) * 255)
        late.append((camera.sent - 1 - shade) % 250)

    with Stream(spec_of(camera), engine, options) as stream:
        engine.watch = watch
        for _ in stream:
            time.sleep(0.2)
    return statistics.median_low(late[1:])


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_slow_consumer_gets_fresh_frames(mode: Mode, camera: Any, grey_engine: Any) -> None:
    assert behind(camera, grey_engine, StreamOptions(mode=mode, max_frames=10)) <= BEHIND


def test_a_slow_consumer_of_every_frame_falls_behind(camera: Any, grey_engine: Any) -> None:
    assert behind(camera, grey_engine, StreamOptions(realtime=False, max_frames=10)) > BEHIND


def sizes_of(stream: Stream, change: Callable[[], None] = lambda: None) -> list[tuple[int, ...]]:
    """Shapes of the masks, after the fifth of which ``change`` is called."""
    shapes: list[tuple[int, ...]] = []
    with stream:
        for result in stream:
            if len(shapes) == 5:
                change()
            assert result.mask().shape == result.frame.shape[:2]
            shapes.append(result.mask().shape)
    return shapes


def test_a_camera_that_changes_its_size_is_followed_or_it_is_said(
    through: str, camera: Any, grey_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def change() -> None:
        camera.size = (128, 96)

    shapes = sizes_of(Stream(spec_of(camera), grey_engine, StreamOptions(max_frames=40)), change)
    if through == "opencv" and cv2.__version__.startswith("5."):
        assert shapes[-1] == (48, 64), "OpenCV follows by itself now"
        assert "frames of another size would be stretched" in caplog.text
    else:
        assert shapes[-1] == (96, 128)
        assert "frames of 128x96 from here on" in caplog.text


def encoded(size: tuple[int, int], frames: int) -> bytes:
    """H.264 in an MPEG transport stream, which may be followed by another."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height = size
        video.options = {"tune": "zerolatency"}
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), index * 4, np.uint8)
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)
    return target.getvalue()


def test_h264_that_changes_its_size_is_followed(grey_engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "two.ts"
    path.write_bytes(encoded((64, 48), 20) + encoded((128, 96), 20))
    spec = SourceSpec("url", str(path), "two.ts", live=True)
    options = StreamOptions(realtime=False, max_frames=36)
    shapes = sizes_of(Stream(spec, grey_engine, options))
    assert shapes[:20] == [(48, 64)] * 20
    assert set(shapes[20:]) == {(96, 128)}
