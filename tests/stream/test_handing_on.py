"""Sinks that hand on: in the background, and to one sink a source."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from streaming import StillSource

from edgeseg.engines.base import Engine
from edgeseg.stream import (
    Background,
    Each,
    Sink,
    SourceStatus,
    Stream,
    StreamOptions,
    StreamResult,
    run,
)

ALIVE_S = 30.0
FILE = StillSource("drive.mkv", realtime=False)
LIVE = StillSource("camera:0", realtime=True)


class Slow(Sink):
    """Takes a result when the test lets it; raises ``error`` at the frame ``at``."""

    def __init__(self, at: int = -1) -> None:
        self.let = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.taken: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.over = threading.Event()
        self._at = at

    def __str__(self) -> str:
        return "the slow one"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        self.opened_in = threading.current_thread().name

    def write(self, result: StreamResult) -> None:
        self.entered.release()
        assert self.let.acquire(timeout=ALIVE_S)
        self.threads.add(threading.current_thread().name)
        if result.index == self._at:
            raise OSError("no more")
        self.taken.append(result.index)

    def close(self) -> None:
        self.closed += 1
        self.over.set()


@pytest.fixture
def results(engine: Engine) -> list[StreamResult]:
    options = StreamOptions(realtime=False)
    return list(Stream("test:64x48?frames=12", engine, options))


def test_writes_happen_in_another_thread_and_closing_waits_for_them(
    results: list[StreamResult],
) -> None:
    slow = Slow()
    sink = Background(slow)
    sink.open([FILE])
    for result in results[:4]:
        sink.write(result)  # comes back though nothing was let through
    slow.let.release(4)
    sink.close()
    assert slow.taken == [0, 1, 2, 3]
    assert slow.closed == 1
    assert slow.threads == {"the slow one"}
    assert slow.opened_in == "MainThread"


def test_where_every_frame_counts_a_full_queue_holds_up_and_loses_none(
    results: list[StreamResult],
) -> None:
    slow = Slow()
    sink = Background(slow, places=1)
    sink.open([FILE])
    writer = threading.Thread(target=lambda: [sink.write(result) for result in results])
    writer.start()
    assert slow.entered.acquire(timeout=ALIVE_S)
    assert writer.is_alive()
    slow.let.release(len(results))
    writer.join(ALIVE_S)
    sink.close()
    assert slow.taken == list(range(12))
    assert sink.skipped == 0


def test_where_the_newest_counts_a_full_queue_is_passed_by_and_said(
    results: list[StreamResult], caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    sink = Background(slow, places=1)
    sink.open([LIVE])
    sink.write(results[0])
    assert slow.entered.acquire(timeout=ALIVE_S)  # the thread holds the first
    for result in results[1:]:
        sink.write(result)
    slow.let.release(len(results))
    sink.close()
    assert slow.taken == [0, 1]
    assert sink.skipped == 10
    assert "the slow one was too slow and skipped 10 frames" in caplog.text


def test_what_an_essential_sink_raised_comes_to_the_caller_and_closing_ends(
    results: list[StreamResult],
) -> None:
    slow = Slow(at=0)
    slow.essential = True
    sink = Background(slow)
    sink.open([FILE])
    slow.let.release(12)
    with pytest.raises(OSError, match="no more"):
        for result in results * 50:
            sink.write(result)
    sink.close()
    assert slow.closed == 1


def test_a_run_switches_off_what_failed_in_the_background(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(at=1)
    slow.let.release(1000)
    options = StreamOptions(realtime=False)
    report = run(Stream("test:64x48?frames=60", engine, options), [Background(slow, places=1)])
    assert report.frames == 60
    assert slow.taken == [0]
    assert "the slow one failed and is off: no more" in caplog.text
    assert [(it.state, it.written, it.lost) for it in report.sinks] == [("failed", 1, 59)]


def test_a_sink_that_is_stuck_does_not_hold_the_end(
    results: list[StreamResult], caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    slow.close_s = 0.3
    sink = Background(slow)
    sink.open([LIVE])
    for result in results:
        sink.write(result)
    closing = threading.Thread(target=sink.close, daemon=True)
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    closed_meanwhile = slow.closed
    slow.let.release(1000)
    closing.join(ALIVE_S)
    assert ended
    assert closed_meanwhile == 0, "its own thread is in it"
    assert slow.over.wait(ALIVE_S), "and closes it"
    assert "the slow one is stuck" in caplog.text


class Note(Sink):
    def __init__(self) -> None:
        self.taken: list[str] = []
        self.idled = self.closed = 0
        self.sources: Sequence[SourceStatus] = ()

    def open(self, sources: Sequence[SourceStatus]) -> None:
        self.sources = sources

    def write(self, result: StreamResult) -> None:
        self.taken.append(result.source)

    def idle(self) -> None:
        self.idled += 1

    def close(self) -> None:
        self.closed += 1


def test_each_source_has_a_sink_of_its_own(make_video: Callable[..., Any], engine: Engine) -> None:
    made: dict[str, Note] = {}

    def make(source: SourceStatus) -> Note:
        made[source.label] = Note()
        return made[source.label]

    paths = [make_video(length, name=f"{length}.mkv") for length in (2, 5)]
    run(Stream(paths, engine), [Each(make, "notes")])
    for path, length in zip(paths, (2, 5), strict=True):
        note = made[str(path)]
        assert note.taken == [str(path)] * length
        assert [source.label for source in note.sources] == [str(path)]
        assert note.closed == 1


def test_where_one_cannot_open_those_opened_are_closed() -> None:
    first = Note()

    class Broken(Note):
        def open(self, sources: Sequence[SourceStatus]) -> None:
            raise OSError("no room")

    sink = Each(lambda source: first if source.index == 0 else Broken(), "notes")
    with pytest.raises(OSError, match="no room"):
        sink.open([StillSource(index=0), StillSource(index=1)])
    assert first.closed == 1


def test_idling_reaches_each() -> None:
    notes = [Note(), Note()]
    sink = Each(lambda source: notes[source.index], "notes")
    sink.open([StillSource(index=0), StillSource(index=1)])
    sink.idle()
    assert [note.idled for note in notes] == [1, 1]
