"""The statistics of comparisons, each against SciPy or a count by hand."""

import itertools
import math

import numpy as np
import pytest

from edgeseg.benchmark import significance as subject
from edgeseg.metrics import Bootstrap, Counts

stats = pytest.importorskip("scipy.stats", reason="SciPy is the oracle of these tests")


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (3, 3), (5, 12), (12, 12), (24, 24), (50, 50)])
def test_exact_p_values_are_scipys(sizes: tuple[int, int]) -> None:
    noise = np.random.default_rng(sizes[0])
    for shift in (0.0, 0.4, 2.0):
        one, two = noise.normal(size=sizes[0]), noise.normal(shift, size=sizes[1])
        expected = stats.mannwhitneyu(one, two, method="exact").pvalue
        assert subject.mann_whitney(one, two) == pytest.approx(expected, rel=1e-9)
        assert subject.mann_whitney(two, one) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(4, 9), (12, 12), (60, 55)])
def test_approximate_p_values_are_scipys(sizes: tuple[int, int]) -> None:
    noise = np.random.default_rng(7)
    for shift in (0, 1):
        one, two = noise.integers(0, 5, sizes[0]), noise.integers(0, 5, sizes[1]) + shift
        expected = stats.mannwhitneyu(one, two, method="asymptotic").pvalue
        assert subject.mann_whitney(one, two) == pytest.approx(expected, rel=1e-9)


def test_equal_values_tell_nothing_apart() -> None:
    assert subject.mann_whitney([3.0] * 5, [3.0] * 9) == 1.0


def test_orders_are_those_counted_one_by_one() -> None:
    m, n = 4, 3
    counted = [0] * (m * n + 1)
    for ours in itertools.combinations(range(m + n), m):
        counted[sum(place - rank for rank, place in enumerate(ours))] += 1
    assert list(subject.orders_of_u(m, n)) == counted
    assert sum(subject.orders_of_u(50, 50)) == math.comb(100, 50)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        # By hand: 3 × 0.01, 2 × 0.02, then 0.04 = 1 × 0.04 and no less than the one before.
        ([0.04, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.6, 0.5], [1.0, 1.0]),
    ],
)
def test_holm_multiplies_by_the_rows_that_are_left(
    given: list[float], adjusted: list[float]
) -> None:
    assert subject.holm(given) == pytest.approx(adjusted)


def widened(confidence: float, units: int) -> float:
    """The confidence to ask SciPy for: ours is widened to Student's t."""
    quantile = stats.t.ppf((1 + confidence) / 2, units - 1)
    return float(1 - 2 * stats.norm.cdf(-((units / (units - 1)) ** 0.5) * quantile))


def test_ratio_intervals_are_those_of_scipys_bootstrap() -> None:
    noise = np.random.default_rng(3)
    one, two = noise.lognormal(0, 0.05, 24), noise.lognormal(0.1, 0.05, 24)
    ours = subject.ratio_of_medians(one, two, Bootstrap(20_000, 0.95))
    theirs = stats.bootstrap(
        (one, two),
        lambda a, b, axis: np.median(b, axis) / np.median(a, axis),
        method="percentile",
        confidence_level=widened(0.95, 24),
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert ours.value == np.median(two) / np.median(one)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    wider = subject.ratio_of_medians(one, two, Bootstrap(20_000, 0.999))
    assert wider.low < ours.low < ours.high < wider.high


def counts(noise: np.random.Generator, hits: np.ndarray, unions: np.ndarray) -> Counts:
    return Counts(np.minimum(hits + noise.integers(0, 3, hits.shape), unions), unions)


def mean_iou(of: Counts, places: np.ndarray) -> float:
    """Written as the definition reads, for one draw of pictures."""
    ious = []
    for kind in range(of.hits.shape[1]):
        union = of.unions[places, kind].sum()
        if union:
            ious.append(of.hits[places, kind].sum() / union)
    return float(np.mean(ious))


def test_gains_in_mean_iou_are_those_of_scipys_paired_bootstrap() -> None:
    noise = np.random.default_rng(5)
    unions = noise.integers(40, 100, (25, 3))
    unions[3:, 2] = 0  # a class that many draws do not hold
    hits = np.rint(0.7 * unions).astype(np.int64)
    before, after = counts(noise, hits, unions), counts(noise, hits + (unions > 0), unions)
    found, p = subject.gain_in_mean_iou(before, after, Bootstrap(4000, 0.9))
    everything = np.arange(25)
    assert found.value == pytest.approx(mean_iou(after, everything) - mean_iou(before, everything))
    theirs = stats.bootstrap(
        (everything,),
        lambda places: mean_iou(after, places) - mean_iou(before, places),
        method="percentile",
        vectorized=False,
        n_resamples=4000,
        confidence_level=widened(0.9, 25),
        rng=np.random.default_rng(6),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1.5e-3)
    assert p == pytest.approx(2 / 4001)
    # The other way round the gain is a loss, as sure as before.
    back, p_back = subject.gain_in_mean_iou(after, before, Bootstrap(4000, 0.9))
    assert back.value == -found.value
    assert p_back == p


def test_engines_that_label_alike_gain_nothing() -> None:
    same = Counts(np.array([[3, 4], [5, 6]]), np.array([[6, 6], [6, 6]]))
    found, p = subject.gain_in_mean_iou(same, same, Bootstrap(100))
    assert found == subject.Estimate(0.0, 0.0, 0.0)
    assert p == 1.0
