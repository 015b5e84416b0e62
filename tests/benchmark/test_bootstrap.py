"""The block bootstrap against brute force, SciPy, and data whose truth is known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edgeseg.benchmark.significance import latency_intervals
from edgeseg.metrics import Bootstrap, student_t_quantile

POINTS = (50, 90, 95, 99)
PLAN = Bootstrap(resamples=300, confidence=0.95, seed=3)


def correlated(seed: int, blocks: int = 12, calls: int = 20) -> list[NDArray[np.float64]]:
    """Calls around 10 ms whose blocks lie around means of their own, as far apart as calls do."""
    noise = np.random.default_rng(seed)
    return [noise.normal(10 + noise.normal(), 1, calls) for _ in range(blocks)]


def test_intervals_are_those_of_resamples_laid_side_by_side() -> None:
    noise = np.random.default_rng(0)
    blocks = [noise.exponential(5, calls) for calls in (3, 40, 7, 7, 1)]
    blocks[2][:4] = blocks[1][0]  # ties
    laid = [
        np.concatenate([np.tile(block, times) for block, times in zip(blocks, row, strict=True)])
        for row in PLAN.draw(5)
    ]
    found = latency_intervals(blocks, POINTS, PLAN)
    assert set(found) == {"p50", "p90", "p95", "p99", "mean"}
    for point in POINTS:
        brute = np.array([np.percentile(calls, point) for calls in laid])
        assert found[f"p{point}"] == pytest.approx(PLAN.interval(brute, 5), rel=1e-12)
    brute = np.array([calls.mean() for calls in laid])
    assert found["mean"] == pytest.approx(PLAN.interval(brute, 5), rel=1e-12)


def test_single_calls_are_resampled_as_scipy_does_it() -> None:
    calls = np.random.default_rng(5).gamma(4, 2, 60)
    plan = Bootstrap(resamples=4000, confidence=0.95, seed=1)
    ours = latency_intervals([np.array([call]) for call in calls], (50,), plan)
    # Widened to Student's t by us: SciPy is asked for the confidence that this comes to.
    tail = stats.norm.cdf(-math.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    theirs = stats.bootstrap(
        (calls,), np.mean, confidence_level=1 - 2 * tail, n_resamples=4000,
        method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert ours["mean"] == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)


def coverage(of: int, *, by_block: bool) -> float:
    """How often the interval of the median holds the true one, 10 ms."""
    plan = Bootstrap(resamples=200, confidence=0.95, seed=0)
    held = 0
    for seed in range(of):
        blocks = correlated(seed)
        units = blocks if by_block else list(np.concatenate(blocks)[:, np.newaxis])
        low, high = latency_intervals(units, (50,), plan)["p50"]
        held += low <= 10 <= high
    return held / of


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # 120 trials of 95 %: below 0.88 in one of a thousand.
    assert coverage(120, by_block=True) >= 0.88


def test_calls_taken_for_independent_would_promise_too_much() -> None:
    assert coverage(60, by_block=False) < 0.75


@pytest.mark.parametrize("units", [2, 4, 12, 100])
def test_few_units_widen_the_interval_as_students_t_does(units: int) -> None:
    values = np.linspace(0, 1, 10_001)  # so that a quantile is its own probability
    low, high = PLAN.interval(values, units)
    # Hesterberg 2015, section 5.3: alpha' / 2 = Phi(-sqrt(n / (n - 1)) t(alpha / 2, n - 1)).
    tail = stats.norm.cdf(-math.sqrt(units / (units - 1)) * stats.t.ppf(0.975, units - 1))
    assert (low, high) == pytest.approx((tail, 1 - tail), abs=1e-6)
    assert low < 0.025


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 11, 12, 100, 733])
def test_student_t(freedom: int) -> None:
    for probability in (0.5001, 0.9, 0.975, 0.9995):
        expected = stats.t.ppf(probability, freedom)
        assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-6)


def test_the_seed_fixes_the_intervals() -> None:
    blocks = correlated(0)
    again = Bootstrap(PLAN.resamples, PLAN.confidence, seed=4)
    assert latency_intervals(blocks, POINTS, PLAN) == latency_intervals(blocks, POINTS, PLAN)
    assert latency_intervals(blocks, POINTS, PLAN) != latency_intervals(blocks, POINTS, again)


def test_one_block_says_nothing_of_others() -> None:
    assert latency_intervals(correlated(0, blocks=1), POINTS, PLAN) == {}
    assert latency_intervals(correlated(0), POINTS, Bootstrap(0, 0.95, 0)) == {}
