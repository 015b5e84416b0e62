"""Sources that hang are left in time; their thread closes what it has when it gets control."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import Undeclared

from edgeseg.errors import OpenFailed
from edgeseg.sources.deadline import open_in_time
from edgeseg.sources.spec import SourceLimits, SourceSpec

ALIVE_S = 30.0
HUNG = OpenFailed("hung")


class Gated(Undeclared):
    """Frames whose reads wait for an event; remembers which thread did what."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.closed = threading.Event()
        self.threads = {threading.current_thread()}

    def read(self) -> NDArray[np.uint8] | None:
        self.threads.add(threading.current_thread())
        self.gate.wait(ALIVE_S)
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        self.threads.add(threading.current_thread())
        self.closed.set()


def spec(open_s: float = ALIVE_S, read_s: float = ALIVE_S) -> SourceSpec:
    limits = SourceLimits(open_s=open_s, read_s=read_s)
    return SourceSpec("gst", f"pipeline {id(limits)}", "gst:x", live=True, limits=limits)


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def test_one_thread_opens_reads_and_closes(gate: threading.Event) -> None:
    gate.set()
    inner: list[Gated] = []

    def open_it() -> Gated:
        inner.append(Gated(gate))
        return inner[0]

    frames = open_in_time(spec(), open_it, HUNG)
    assert frames.fps == 25.0
    assert frames.read() is not None
    frames.close()
    assert inner[0].closed.wait(ALIVE_S)
    (thread,) = inner[0].threads
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_an_open_that_hangs_is_an_error_and_closed_when_it_is_over(gate: threading.Event) -> None:
    late = Gated(gate)

    def open_late() -> Gated:
        gate.wait(ALIVE_S)
        return late

    hanging = spec(open_s=0.05)
    for _ in range(3):
        with pytest.raises(OpenFailed, match="hung"):
            open_in_time(hanging, open_late, HUNG)
    named = [t for t in threading.enumerate() if t.name == "edgeseg capture of gst:x"]
    assert len(named) == 1, "attempts leave one thread behind, not one each"
    assert not late.closed.is_set()
    gate.set()
    assert late.closed.wait(ALIVE_S)
    named[0].join(ALIVE_S)
    open_in_time(replace(hanging, limits=SourceLimits()), lambda: Gated(gate), HUNG).close()


def test_a_read_that_hangs_is_the_end_and_not_released_meanwhile(gate: threading.Event) -> None:
    inner = Gated(gate)
    frames = open_in_time(spec(read_s=0.05), lambda: inner, HUNG)
    assert frames.read() is None
    assert frames.read() is None
    frames.close()
    assert not inner.closed.is_set(), "to release a capture during its read crashes"
    gate.set()
    assert inner.closed.wait(ALIVE_S)


@pytest.mark.parametrize("error", [OpenFailed("refused"), ValueError("odd")])
def test_errors_pass(error: Exception) -> None:
    def fail() -> Gated:
        raise error

    with pytest.raises(type(error), match=str(error)):
        open_in_time(spec(), fail, HUNG)
