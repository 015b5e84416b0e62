"""The reader thread: slots, states, ends; frames come from real sources or from our Protocol."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import Undeclared, next_frame

from edgeseg.errors import OpenFailed, SourceError
from edgeseg.sources.capture import Frames
from edgeseg.sources.spec import SourceLimits, SourceSpec, parse_source
from edgeseg.stream import reader as module
from edgeseg.stream.reader import Reader
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Intake, Slot

ALIVE_S = 30.0
"""Longer than anything here takes on a busy machine; past it the test has hung."""

PATIENT = SourceLimits(read_s=ALIVE_S, stalled_s=ALIVE_S, backoff_s=(0.01,))
"""No state changes because this machine is busy."""


def captured(index: int) -> StreamResult:
    return StreamResult(index, "test", np.zeros((2, 2, 3), np.uint8), time.monotonic())


def take_all(reader: Reader) -> list[StreamResult]:
    frames: list[StreamResult] = []
    deadline = time.monotonic() + ALIVE_S
    while not (reader.over and reader.slot.empty):
        assert time.monotonic() < deadline
        frame = next_frame(reader.slot, 0.05)
        if frame is not None:
            frames.append(frame)
    return frames


def started(spec: SourceSpec, *, realtime: bool = False, strict: bool = False) -> Reader:
    reader = Reader(spec, realtime=realtime, strict=strict)
    reader.start()
    return reader


def test_newest_wins_and_drops_are_counted() -> None:
    slot = Slot(1, newest_wins=True)
    for index in range(5):
        slot.put(captured(index))
    newest = slot.take()
    assert newest is not None
    assert (newest.index, slot.dropped, slot.empty) == (4, 4, True)


def test_every_frame_waits_for_room() -> None:
    slot = Slot(2, newest_wins=False)
    putter = threading.Thread(target=lambda: [slot.put(captured(i)) for i in range(50)])
    putter.start()
    indices = []
    while len(indices) < 50:
        item = next_frame(slot, ALIVE_S)
        assert item is not None
        indices.append(item.index)
    putter.join(ALIVE_S)
    assert indices == list(range(50))
    assert slot.dropped == 0


@pytest.mark.parametrize("discard", [False, True])
def test_closing_frees_a_waiting_thread_and_keeps_what_waits(discard: bool) -> None:
    slot = Slot(1, newest_wins=False)
    slot.put(captured(0))
    putter = threading.Thread(target=lambda: slot.put(captured(1)))
    putter.start()
    slot.close(discard=discard)
    putter.join(ALIVE_S)
    assert not putter.is_alive()
    assert (slot.take() is None) == discard
    assert slot.take() is None


def test_a_file_is_read_to_its_end(make_video: Callable[..., Path]) -> None:
    reader = started(parse_source(make_video(40)))
    frames = take_all(reader)
    assert [frame.index for frame in frames] == list(range(40))
    assert (reader.state, reader.error, reader.dropped, reader.bad_frames) == ("ended", None, 0, 0)
    assert all(a.captured_at <= b.captured_at for a, b in zip(frames, frames[1:], strict=False))
    assert reader.close()


def test_a_truncated_file_says_how_much_is_missing(
    truncated: Path, play: Callable[..., list[object]], caplog: pytest.LogCaptureFixture
) -> None:
    found = len(play(truncated))
    assert 0 < found < 100
    reader = started(parse_source(truncated))
    assert len(take_all(reader)) == found
    assert reader.state == "ended"
    assert reader.bad_frames == 100 - found
    assert f"{found} of 100 frames" in caplog.text


def test_a_file_in_realtime_passes_at_its_own_rate(make_video: Callable[..., Path]) -> None:
    reader = started(parse_source(make_video(10)), realtime=True)
    frames = take_all(reader)
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert len(frames) + reader.dropped == 10
    # 9 intervals of 40 ms; a busy machine only makes it longer, save for a frame or two.
    assert frames[-1].captured_at - frames[0].captured_at > 0.2


def test_stop_ends_the_thread_while_it_waits_for_room(make_video: Callable[..., Path]) -> None:
    reader = started(parse_source(make_video(40)))
    assert next_frame(reader.slot, ALIVE_S) is not None
    assert reader.close(timeout=ALIVE_S)


Step = int | float | threading.Event | None


class Script(Undeclared):
    """Frames that do as the test says: a frame of that shade, None for a loss, and before that
    a hang of so many seconds or until an event."""

    def __init__(self, steps: Sequence[Step], stopping: threading.Event) -> None:
        self._steps: Iterator[Step] = iter(steps)
        self._stopping = stopping

    def read(self) -> NDArray[np.uint8] | None:
        step = next(self._steps, None)
        if isinstance(step, float):
            self._stopping.wait(step)
            step = next(self._steps, None)
        elif isinstance(step, threading.Event):
            step.wait(ALIVE_S)
            step = next(self._steps, None)
        return np.full((2, 2, 3), step, np.uint8) if isinstance(step, int) else None

    def close(self) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reader]]:
    """``scripted([1, 2, None], …) -> Reader``: a live source, a script or an error a connection.

    After the last script each further connection is refused.
    """
    stopping = threading.Event()
    readers: list[Reader] = []

    def make(*connections: Sequence[Step] | SourceError, limits: SourceLimits = PATIENT) -> Reader:
        pending = iter(connections)

        def open_next(spec: SourceSpec) -> Frames:
            outcome = next(pending, SourceError("refused"))
            if isinstance(outcome, SourceError):
                raise outcome
            return Script(outcome, stopping)

        monkeypatch.setattr(module, "open_frames", open_next)
        spec = replace(parse_source("rtsp://user:secret@cam/live"), limits=limits)
        readers.append(Reader(spec, realtime=False, strict=False))
        readers[-1].start()
        return readers[-1]

    yield make
    stopping.set()
    for reader in readers:
        assert reader.close(ALIVE_S)


def take_frames(reader: Reader, count: int) -> list[StreamResult]:
    frames: list[StreamResult] = []
    deadline = time.monotonic() + ALIVE_S
    while len(frames) < count:
        assert time.monotonic() < deadline
        frame = next_frame(reader.slot, 0.02)
        if frame is not None:
            frames.append(frame)
    return frames


def take(reader: Reader, count: int) -> list[int]:
    return [int(frame.frame[0, 0, 0]) for frame in take_frames(reader, count)]


def moves(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The states that were logged, in order."""
    said = [r.getMessage() for r in caplog.records if r.name == "edgeseg.stream.reader"]
    return [line.removeprefix("rtsp://user:***@cam/live: ").split(" (")[0] for line in said]


def test_a_live_source_is_connected_again_and_says_each_change_once(
    scripted: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refusals = [SourceError("refused")] * 3
    reader = scripted([1, 2, None], *refusals, [3, None], [4, 5, 60.0])
    frames = take_frames(reader, 5)
    assert [int(frame.frame[0, 0, 0]) for frame in frames] == [1, 2, 3, 4, 5]
    assert [frame.reconnects for frame in frames] == [0, 0, 1, 2, 2]
    assert reader.reconnects == 2
    assert moves(caplog) == ["ok", "reconnecting", "ok", "reconnecting", "ok"]
    assert "secret" not in caplog.text


def test_silence_is_a_stall_and_the_next_frame_ends_it(
    scripted: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate = threading.Event()
    reader = scripted([1, gate, 2, 60.0], limits=replace(PATIENT, stalled_s=0.05))
    assert take(reader, 1) == [1]
    deadline = time.monotonic() + ALIVE_S
    while reader.state != "stalled":
        assert time.monotonic() < deadline
        assert next_frame(reader.slot, 0.02) is None
    gate.set()
    assert take(reader, 1) == [2]
    assert moves(caplog)[:3] == ["ok", "stalled", "ok"]
    assert reader.reconnects == 0


def test_a_frame_that_came_after_the_read_time_out_is_not_shown(
    scripted: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader = scripted([1, 1.0, 1, 1], [2, 60.0], limits=replace(PATIENT, read_s=1.0))
    assert take(reader, 2) == [1, 2]
    assert moves(caplog) == ["ok", "reconnecting", "ok"]


def test_a_first_open_that_fails_is_final(scripted: Callable[..., Reader]) -> None:
    reader = scripted(OpenFailed("refused"), [1, 60.0])
    assert take_all(reader) == []
    assert isinstance(reader.error, OpenFailed)
    assert reader.state == "failed"


def test_a_camera_that_opens_and_sends_nothing_is_said(scripted: Callable[..., Reader]) -> None:
    reader = scripted([None])
    take_all(reader)
    assert isinstance(reader.error, OpenFailed)
    assert "no frame came" in reader.error.message


def test_an_unexpected_exception_ends_the_source_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def explode(spec: SourceSpec) -> Frames:
        raise RuntimeError(f"cannot open {spec.target}")

    monkeypatch.setattr(module, "open_frames", explode)
    reader = started(parse_source("rtsp://user:secret@cam/live"))
    assert take_all(reader) == []
    assert isinstance(reader.error, SourceError)
    assert "RuntimeError" in reader.error.message
    assert "secret" not in reader.error.message


def test_waits_grow_to_a_cap_and_vary() -> None:
    reader = Reader(parse_source("rtsp://cam/live"), realtime=True, strict=False)
    nominal = (0.5, 1, 2, 4, 5, 5, 5)
    for failures, expected in enumerate(nominal):
        waits = [reader._delay(failures) for _ in range(200)]
        assert all(0.8 * expected <= wait <= 1.2 * expected for wait in waits)
        assert max(waits) - min(waits) > 0.1 * expected


def test_no_source_gives_a_second_frame_while_another_has_a_first() -> None:
    changed = threading.Condition()
    slots = [Slot(4, newest_wins=False, changed=changed) for _ in range(3)]
    for index in range(4):
        slots[0].put(captured(index))
    slots[2].put(captured(20))
    intake = Intake(slots, changed)
    assert [each.index for each in intake.take(3, 0)] == [0, 20, 1]
    slots[1].put(captured(10))
    assert [each.index for each in intake.take(2, 0)] == [10, 2]
    assert [each.index for each in intake.take(9, 0)] == [3]
