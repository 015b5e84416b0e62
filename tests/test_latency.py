"""Percentiles against their definition and NumPy, and clocks that stay small."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.stream.latency import StageClock, percentiles
from edgeseg.stream.result import StreamResult

milliseconds = st.floats(0, 1e6, allow_nan=False)


def test_percentiles_of_an_even_ramp_are_what_the_definition_says() -> None:
    assert percentiles([1, 2, 3, 4]) == {
        "p50": 2.5,
        "p90": pytest.approx(3.7),
        "p95": pytest.approx(3.85),
        "p99": pytest.approx(3.97),
    }


@settings(deadline=None)
@given(st.lists(milliseconds, min_size=1, max_size=50), st.integers(0, 100))
def test_percentile_lies_at_its_position_between_the_two_nearest_samples(
    samples: list[float], point: int
) -> None:
    ordered = sorted(samples)
    position = (len(ordered) - 1) * point / 100
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    expected = low + (high - low) * (position - math.floor(position))
    assert percentiles(samples, [point]) == {f"p{point}": pytest.approx(expected, abs=1e-6)}


@settings(deadline=None)
@given(st.lists(milliseconds, min_size=1, max_size=50))
def test_median_is_that_of_the_standard_library(samples: list[float]) -> None:
    assert percentiles(samples, [50])["p50"] == pytest.approx(statistics.median(samples))


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_and_not_a_number_have_no_percentiles(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="sample"):
        percentiles(samples)


def test_a_frame_has_the_times_of_blocks_that_end_well() -> None:
    frame = StreamResult(0, "camera", np.zeros((1, 1, 3), np.uint8), 0.0, stages_ms={"capture": 1})
    given = frame.stages_ms
    with frame.timed("infer"):
        pass
    with pytest.raises(ZeroDivisionError), frame.timed("sink"):
        _ = 1 / 0
    assert list(frame.stages_ms) == ["capture", "infer"]
    assert frame.stages_ms["infer"] >= 0
    assert given == {"capture": 1}  # a sink in another thread may be reading it


def test_clock_measures_milliseconds() -> None:
    clock = StageClock()
    clock.add("sink", 2.0)
    clock.add("sink", 4.0)
    assert clock.percentiles("sink", (50,)) == {"p50": 3.0}


def test_a_long_run_keeps_a_fair_sample_in_bounded_memory() -> None:
    clock = StageClock(limit=1000)
    for value in range(50_000):
        clock.add("infer", value)
    kept = clock.samples("infer")
    assert clock.count("infer") == 50_000
    assert kept.size == 1000
    # 1000 uniform draws: the median strays by about 1.6 % of the range a standard deviation,
    # while the newest or the oldest thousand would be off by 49 %.
    assert np.median(kept) == pytest.approx(25_000, abs=0.08 * 50_000)
