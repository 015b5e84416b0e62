"""Cameras of one's own in a stream: the same states, drops and ages as any other."""

# mypy: enable-error-code="arg-type"

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import DOCS, blocks

from edgeseg.engines.base import Engine
from edgeseg.errors import SourceError
from edgeseg.stream import SourceLimits, Stream, StreamOptions, from_frames, run

AT_ONCE = SourceLimits(backoff_s=(0.0,))
PATIENCE_S = 20.0


def test_a_generator_that_ends(engine: Engine, step: Callable[..., NDArray[np.uint8]]) -> None:
    frames = ((step(index), index / 10) for index in range(6))
    results = list(Stream(frames, engine))
    assert [result.index for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result.media_time for result in results] == pytest.approx(np.arange(6) / 10)
    assert [int(result.areas()[1]) for result in results] == [
        int((step(index)[..., 0] > 0).sum()) for index in range(6)
    ]


def test_a_camera_that_raises_is_opened_again(
    engine: Engine, step: Callable[..., NDArray[np.uint8]], caplog: pytest.LogCaptureFixture
) -> None:
    opened, closed = [], []

    def frames() -> Iterator[NDArray[np.uint8]]:
        opened.append(threading.current_thread())
        try:
            for index in range(3):
                yield step(index)
            raise OSError("the cable is out")
        finally:
            closed.append(threading.current_thread())

    caplog.set_level(logging.INFO)
    options = StreamOptions(max_frames=7, realtime=False)
    with Stream(from_frames(frames, "gate", limits=AT_ONCE), engine, options) as stream:
        results = list(stream)
        (source,) = stream.sources
        assert source.reconnects >= 2
    assert [result.index for result in results] == list(range(7))
    assert "gate: reconnecting (gate: OSError: the cable is out)" in caplog.text
    source.close(PATIENCE_S)
    assert len(opened) == len(closed) >= 3
    assert {*opened, *closed} == {opened[0]}  # all in the thread of the source


def test_an_exception_ends_a_recording_after_its_frames(
    engine: Engine, step: Callable[..., NDArray[np.uint8]]
) -> None:
    def frames() -> Iterator[NDArray[np.uint8]]:
        yield step(0)
        yield step(1)
        raise EOFError("truncated")

    seen = []
    with pytest.raises(SourceError, match="EOFError: truncated"):
        seen.extend(Stream(frames(), engine))
    with pytest.raises(SourceError, match="EOFError: truncated"):
        run(Stream(from_frames(frames, live=False), engine))


def test_a_camera_that_cannot_be_opened(engine: Engine) -> None:
    def frames() -> Any:
        raise LookupError("no camera with serial 42")

    with pytest.raises(SourceError, match="python:frames: LookupError: no camera with serial 42"):
        run(Stream(frames, engine))


def test_one_that_waits_is_stalled_and_does_not_hold_the_end(
    engine: Engine, step: Callable[..., NDArray[np.uint8]]
) -> None:
    more, left = threading.Event(), threading.Event()

    def frames() -> Iterator[NDArray[np.uint8]]:
        try:
            yield step(0)
            assert more.wait(PATIENCE_S)
            yield step(1)
        finally:
            left.set()

    limits = SourceLimits(stalled_s=0.05)
    with Stream(from_frames(frames, "gate", limits=limits), engine) as stream:
        ticks = stream.ticks()
        assert next(result for result in ticks if result is not None).index == 0
        while stream.sources[0].state != "stalled":
            next(ticks)
    assert not left.is_set()  # its thread still waits, and the stream has ended
    more.set()
    assert left.wait(PATIENCE_S)


def test_only_the_newest_frame_counts_and_its_age_is_that_of_its_capture(
    engine: Engine, step: Callable[..., NDArray[np.uint8]]
) -> None:
    entered, all_sent, taken = threading.Event(), threading.Event(), threading.Event()

    def frames() -> Iterator[tuple[NDArray[np.uint8], float]]:
        for index in range(10):
            yield step(index), time.monotonic() - 30
            assert entered.wait(PATIENCE_S)
        all_sent.set()
        assert taken.wait(PATIENCE_S)

    with Stream(from_frames(frames), engine) as stream:
        entered.set()
        assert all_sent.wait(PATIENCE_S)
        result = next(iter(stream))
        taken.set()
    assert (result.index, stream.dropped) == (9, 9)
    assert result.age_ms >= 30_000


def test_several_sources_of_several_kinds(
    engine: Engine, step: Callable[..., NDArray[np.uint8]]
) -> None:
    own = [step(0), step(1)]
    # Sources written into the list, as users do: type checkers then know no kind of it.
    with Stream(
        [from_frames(own, "own"), "test:64x48?frames=3"], engine, StreamOptions(realtime=False)
    ) as stream:
        results = list(stream)
    assert sorted(result.source for result in results) == ["own"] * 2 + ["test:64x48?frames=3"] * 3


@pytest.mark.filterwarnings("ignore:.*load_module:ImportWarning")
def test_the_genicam_example_with_the_fake_camera_of_aravis(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, "/usr/lib/python3/dist-packages"])
    gi = pytest.importorskip("gi", reason="no python3-gi for this Python", exc_type=ImportError)
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip("no Aravis (apt-get install gir1.2-aravis-0.8)")
    page = DOCS / "own-cameras.md"
    (example,) = (block for block in blocks(page, "python") if "def genicam" in block.text)
    names: dict[str, Any] = {}
    exec(example.text, names)
    names["Aravis"].enable_interface("Fake")
    options = StreamOptions(max_frames=3)
    with Stream(lambda: names["genicam"]("Fake_1"), engine, options) as stream:
        results = list(stream)
    assert [result.frame.shape for result in results] == [(512, 512, 3)] * 3
    assert all(0 <= result.age_ms < PATIENCE_S * 1000 for result in results)
    assert stream.sources[0].close(PATIENCE_S)
