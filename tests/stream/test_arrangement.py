"""One engine over all cores or several side by side: measured, chosen, measured again."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.errors import InferenceError
from edgeseg.stream import Stream, StreamOptions, arrangement
from edgeseg.stream.arrangement import Arrangement, Rate, RateTrial
from edgeseg.stream.lanes import Completion

ALIVE_S = 60.0
EVERY_FRAME = StreamOptions(realtime=False, mode="throughput")


def fed(one: float, each: float) -> RateTrial:
    """A trial of ``a`` at ``one`` frames per second against ``b`` and ``c`` at ``each``."""
    lanes: Any = (("a",), ("b", "c"))
    trial = RateTrial(*lanes, now=0.0)
    now, decided = 0.0, False
    while not decided and now < 100:
        turn = trial.active
        step = 1 / (one if turn == ("a",) else each)
        now += step
        decided = trial.add([Completion(lane, now, 1) for lane in turn], now)
    assert decided
    return trial


@pytest.mark.parametrize(("one", "each"), [(30.0, 18.0), (30.0, 12.0), (2.0, 1.5)])
def test_a_trial_finds_the_rates_of_both(one: float, each: float) -> None:
    assert fed(one, each).rates == pytest.approx((one, 2 * each))


def test_a_trial_of_equals_ends() -> None:
    assert fed(30.0, 15.3).rates == pytest.approx((30.0, 30.6))


def test_a_turn_begins_when_the_other_group_has_finished() -> None:
    lanes: Any = (("a",), ("b",))
    trial = RateTrial(*lanes, now=0.0)
    for now in (1.0, 2.0):
        trial.add([Completion(lanes[0][0], now, 1)], now)
    trial.add([Completion(lanes[1][0], 50.0, 1)], 50.0)
    for now in (51.0, 52.0):
        trial.add([Completion(lanes[0][0], now, 1)], now)
        assert trial.active == ("a",)
    trial.add([Completion(lanes[0][0], 53.0, 1)], 53.0)
    assert trial.active == ("b",)
    assert trial._rates[0] == [1.0]


def test_what_began_before_does_not_count() -> None:
    lane: Any = "a"
    rate = Rate([lane], 0.0)
    others: Any = "b"
    for each in (Completion(lane, 9.0, 50), Completion(others, 9.5, 50), Completion(lane, 10.0, 2)):
        rate.add(each)
    assert not rate.enough(0, 10.0), "one batch says little"
    rate.add(Completion(lane, 11.0, 4))
    assert rate.enough(0, 11.0)
    assert rate.value == 3.0


class Paced(Engine):
    """A network whose inferences last a given time, split into others."""

    runtime = "test"

    def __init__(self, inner: Engine, seconds: float, parts: Callable[[int], Sequence[Engine]]):
        self.card, self.path = inner.card, inner.path
        self.closed, self.calls = False, 0
        self._seconds, self._parts = seconds, parts

    def split(self, count: int, threads: int) -> Sequence[Engine]:
        assert count * threads == 2
        return self._parts(count)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        assert not self.closed
        self.calls += 1
        time.sleep(self._seconds)
        return (batch.mean(axis=1) > 0.5).astype(np.uint8)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, and all that takes its time in little of it."""
    monkeypatch.setattr(arrangement, "physical_cores", lambda: 2)
    monkeypatch.setattr(arrangement, "spare_memory_mib", lambda: 1 << 20)
    for name in ("START_S", "_BLOCK_S", "_LEAST_S", "_MOST_S", "_WATCH_S", "_PAUSE_S"):
        monkeypatch.setattr(arrangement, name, 0.0)


def unused(_count: int) -> Sequence[Engine]:
    raise AssertionError("must not be split")


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(("whole_s", "part_s", "engines"), [(0.05, 0.001, 2), (0.001, 0.05, 1)])
def test_the_faster_is_used_and_each_frame_comes_once_in_order(
    whole_s: float, part_s: float, engines: int, engine: Engine
) -> None:
    opened: list[Paced] = []

    def split(count: int) -> Sequence[Engine]:
        opened.extend(Paced(engine, part_s if count > 1 else whole_s, unused) for _ in range(count))
        return opened[-count:]

    given = Paced(engine, 0.0, split)
    with Stream("test:64x48", given, EVERY_FRAME) as stream:
        indices, deadline = [], time.monotonic() + ALIVE_S
        for result in stream:
            if not indices:
                assert stream.arrangement == Arrangement(2, 1)
            indices.append(result.index)
            labels = (result.frame.mean(axis=2) > 127.5).astype(np.uint8)
            assert np.mean(result.labels == labels) > 0.99
            assert time.monotonic() < deadline
            if stream.arrangement.measured:
                break
    found = stream.arrangement
    assert (found.engines, found.threads, found.measurements) == (engines, 3 - engines, 1)
    assert found.measured is not None
    assert set(found.measured) == {"1x2", "2x1"}
    assert indices == list(range(len(indices)))
    assert len(opened) >= 3
    assert all(each.closed for each in opened), "closed at the latest when the stream ends"
    assert not given.closed, "the stream did not open it"
    assert given.calls == 0, "nothing is computed with an engine that is not used"


@pytest.mark.usefixtures("brisk")
def test_short_videos_are_not_measured(make_video: Callable[..., Path], engine: Engine) -> None:
    def split(count: int) -> Sequence[Engine]:
        assert count == 2
        return [Paced(engine, 0.0, unused) for _ in range(count)]

    given = Paced(engine, 0.0, split)
    stream = Stream(make_video(30), given)
    assert len(list(stream)) == 30
    assert stream.arrangement == Arrangement(2, 1)
    assert given.calls == 0, "nothing is computed with an engine that is not used"


@pytest.mark.usefixtures("brisk")
def test_where_memory_is_short_the_engine_stays_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrangement, "spare_memory_mib", lambda: 0)
    options = StreamOptions(realtime=False, mode="throughput", max_frames=60)
    stream = Stream("test:64x48", Paced(engine, 0.0, unused), options)
    assert len(list(stream)) == 60
    assert stream.arrangement == Arrangement(1, 2)


@pytest.mark.usefixtures("brisk")
def test_engines_that_cannot_be_opened_do_not_end_the_stream(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_count: int) -> Sequence[Engine]:
        raise InferenceError("no room")

    options = StreamOptions(realtime=False, mode="throughput", max_frames=60)
    stream = Stream("test:64x48", Paced(engine, 0.001, fail), options)
    assert len(list(stream)) == 60
    assert stream.arrangement == Arrangement(1, 2)
    assert "no room" in caplog.text


@pytest.mark.usefixtures("brisk")
def test_a_number_of_threads_or_engines_is_kept_to(bright_network: Path) -> None:
    options = StreamOptions(realtime=False, mode="throughput", max_frames=60)
    with open_engine(bright_network, threads=1) as one, open_engine(bright_network) as free:
        assert not one.split(2, 1)
        forced, several = Stream("test:64x48", one, options), Stream("test:64x48", [one, free])
        assert len(list(forced)) == 60
    assert forced.arrangement == Arrangement(1)
    assert several.arrangement == Arrangement(2)


_CHILD = """
import json, os, sys
from edgeseg import load, machine
from edgeseg.stream import Stream, StreamOptions, arrangement
for name in ("START_S", "_BLOCK_S", "_LEAST_S", "_MOST_S", "_WATCH_S", "_PAUSE_S"):
    setattr(arrangement, name, 0.0)
arrangement._CHANGED = 1e9  # the rate is not asked here
arrangement.spare_memory_mib = lambda: 1 << 20
cpus = os.sched_getaffinity(0)
several = machine.physical_cores()
steps = [{min(cpus)}, cpus]
found, indices = [], []
options = StreamOptions(realtime=False, mode="throughput")
with load(sys.argv[1]) as engine, Stream("test:64x48", engine, options) as stream:
    for result in stream:
        indices.append(result.index)
        if stream.arrangement.measurements == len(found) + 1:
            found.append(stream.arrangement)
            if not steps:
                break
            os.sched_setaffinity(0, steps.pop(0))
assert indices == list(range(len(indices)))
print(json.dumps([[a.engines * a.threads, sorted(a.measured or {})] for a in found]))
"""


@pytest.mark.skipif(machine.physical_cores() < 2, reason="needs two cores")
def test_other_cores_are_measured_again(bright_network: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(bright_network)]
    found = json.loads(subprocess.check_output(command, timeout=ALIVE_S))
    cores = machine.physical_cores()
    several = min(cores, arrangement.MOST_ENGINES)
    both = sorted([f"1x{cores}", f"{several}x{cores // several}"])
    assert [names for _, names in found] == [both, [], both]
    assert found[1][0] == 1
