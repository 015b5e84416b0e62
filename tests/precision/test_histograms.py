import numpy as np
import pytest

from edgeseg.precision.histograms import SIDE, Extremes, Histogram


def edges(histogram: Histogram) -> np.ndarray:
    return (np.arange(2 * SIDE + 1) - SIDE) * histogram.width


def batches(seed: int) -> list[np.ndarray]:
    """Values that grow from picture to picture, many of them exactly on edges of bins."""
    random = np.random.default_rng(seed)
    scales = random.permutation(2.0 ** np.arange(-6, 7, 2))
    grid = [random.integers(-2000, 2000, 300) * scale / 2048 for scale in scales]
    loose = [random.normal(0, scale, (3, 50)) for scale in scales]
    zeros = [np.zeros(7)]
    return [values.astype(np.float32) for values in (*grid, *loose, *zeros)]


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_histogram_that_knew_the_extremes(seed: int) -> None:
    histogram, given = Histogram(), batches(seed)
    for values in given:
        assert histogram.add(values)
    everything = np.concatenate([values.ravel() for values in given]).astype(np.float64)
    assert (histogram.low, histogram.high) == (everything.min(), everything.max())
    assert histogram.zeros == np.sum(everything == 0)
    expected, _ = np.histogram(everything, edges(histogram))
    assert np.array_equal(histogram.counts, expected)
    # Not by having put all of it into a few bins.
    larger = max(-histogram.low, histogram.high)
    assert SIDE / 2 <= larger / histogram.width < SIDE


def test_sides_start_at_zero() -> None:
    histogram = Histogram()
    histogram.add(np.array([-3.5, -0.5, 0, 0.5, 0.5, 3.5], np.float32))
    below, above = histogram.sides()
    place = int(0.5 / histogram.width)
    assert below.sum() == 2
    # -0.5 is the upper edge of a bin below zero, 0.5 the lower edge of one above.
    assert (below[place - 1], above[0], above[place]) == (1, 1, 2)


def test_a_chunk_ends_anywhere() -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 211, 307)).astype(np.float32)
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(values.ravel(), 9):
        parts.add(part)
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.counts.sum() == values.size


@pytest.mark.parametrize("kind", [Extremes, Histogram])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**127, -(2.0**127)])
def test_what_is_not_finite_is_refused_and_changes_nothing(
    kind: type[Extremes], value: float
) -> None:
    kept = kind()
    assert kept.add(np.array([1, -2], np.float32))
    assert not kept.add(np.array([[5, 0], [value, 7]], np.float32))
    assert (kept.low, kept.high) == (-2, 1)
    if isinstance(kept, Histogram):
        assert kept.counts.sum() == 2


@pytest.mark.parametrize("value", [1e-38, 1e-20, 1.0, 1.5e38])
def test_any_magnitude_is_counted(value: float) -> None:
    histogram = Histogram()
    assert histogram.add(np.array([value, -value / 2, 0], np.float32))
    assert histogram.counts.sum() == 3
    assert histogram.high == np.float32(value)
