"""The methods against brute force, an independent divergence, and figures of the literature."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from edgeseg.precision.histograms import Histogram
from edgeseg.precision.thresholds import (
    METHODS,
    bounds,
    entropy,
    kl_divergences,
    minmax,
    mse,
    percentile,
)

Grid = Callable[[np.ndarray, float, float], np.ndarray]


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    assert histogram.add(values.astype(np.float32))
    return histogram


def sample(name: str) -> np.ndarray:
    """Two hundred thousand values as activations have them."""
    random = np.random.default_rng(11)
    size = 200_000
    made: dict[str, Callable[[], np.ndarray]] = {
        "gaussian": lambda: random.normal(size=size),
        "behind a ReLU": lambda: np.maximum(random.normal(size=size), 0),
        "laplacian": lambda: random.laplace(size=size),
        "heavy tails": lambda: random.standard_t(3, size=size),
        "heavy tail behind a ReLU": lambda: np.maximum(random.standard_t(3, size=size), 0),
        "leaky": lambda: np.where((x := random.laplace(size=size)) < 0, x / 10, x),
        "two humps": lambda: random.normal(random.choice([-3, 8], size), 0.5),
        "one far outlier": lambda: np.append(random.normal(size=size), 40.0),
        "outlier below": lambda: np.append(random.uniform(-1, 10, size), -9.0),
        "uniform": lambda: random.uniform(-2, 5, size),
    }
    return made[name]()


ALL = (
    "gaussian", "behind a ReLU", "laplacian", "heavy tails", "heavy tail behind a ReLU", "leaky",
    "two humps", "one far outlier", "outlier below", "uniform",
)  # fmt: skip


def unsigned(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What uint8 makes of values: 255 steps over a range that includes 0, on which one lies."""
    low, high = min(low, 0), max(high, 0)
    step = (high - low) / 255
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step


def signed(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What int8 with zero point 0 makes of them."""
    step = max(-low, high) / 127
    return np.clip(np.round(values / step), -127, 127) * step


def error(grid: Grid, values: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((grid(values, low, high) - values) ** 2))


def both(values: np.ndarray, low: float, high: float) -> float:
    return (error(unsigned, values, low, high) + error(signed, values, low, high)) / 2


def brute_force(values: np.ndarray) -> float:
    """Least error over all pairs of bounds that are 7 % apart on each side of 0."""
    parts = 0.93 ** np.arange(60)
    lows = parts * values.min() if values.min() < 0 else [0.0]
    return min(both(values, *pair) for pair in itertools.product(lows, parts * values.max()))


@pytest.mark.parametrize("name", ALL)
def test_mse_finds_what_brute_force_finds(name: str) -> None:
    values = sample(name).astype(np.float32)[-1500:]  # Outliers come last.
    best = brute_force(values)
    assert both(values, *mse(histogram_of(values))) <= 1.03 * best


@pytest.mark.parametrize("name", ["heavy tails", "heavy tail behind a ReLU", "one far outlier"])
def test_the_extremes_are_what_mse_improves_on(name: str) -> None:
    values = sample(name).astype(np.float32)
    histogram = histogram_of(values)
    assert both(values, *minmax(histogram)) > 1.1 * both(values, *mse(histogram))


@pytest.mark.parametrize("name", ["gaussian", "behind a ReLU", "laplacian", "heavy tails"])
@pytest.mark.parametrize("grid", [unsigned, signed])
def test_one_range_serves_both_grids(name: str, grid: Grid) -> None:
    values = sample(name).astype(np.float32)[:50_000]
    alone = min(error(grid, values, *pair) for pair in _symmetric(values))
    assert error(grid, values, *mse(histogram_of(values))) <= 1.25 * alone


def _symmetric(values: np.ndarray) -> list[tuple[float, float]]:
    tops = np.geomspace(0.02, 1, 80) * np.abs(values).max()
    return [(max(-top, float(values.min())), top) for top in tops]


@pytest.mark.parametrize(("name", "clipping"), [("gaussian", 3.92), ("laplacian", 9.89)], ids=str)
def test_mse_clips_where_theory_does(name: str, clipping: float) -> None:
    """Optimal clipping at 8 bits: Banner, Nahshan and Soudry, "Post training 4-bit quantization
    of convolutional networks for rapid-deployment", NeurIPS 2019, in σ and in b."""
    low, high = mse(histogram_of(sample(name)))
    assert high == pytest.approx(clipping, rel=0.06)
    assert -low == pytest.approx(clipping, rel=0.06)


def divergences_as_told(counts: np.ndarray, levels: int) -> list[float]:
    """Migacz's slides step by step, with SciPy's relative entropy."""
    found = []
    for bins in range(levels, len(counts) + 1):
        reference = counts[:bins].astype(float)
        reference[-1] += counts[bins:].sum()
        owner = [int(bin_ * levels / bins) for bin_ in range(bins)]
        quantised = np.zeros(bins)
        for level in range(levels):
            inside = [b for b in range(bins) if owner[b] == level and counts[b] > 0]
            for b in inside:
                quantised[b] = sum(counts[i] for i in inside) / len(inside)
        found.append(float(stats.entropy(reference, quantised)) if quantised.any() else np.inf)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_divergences_are_those_of_the_slides(seed: int) -> None:
    random = np.random.default_rng(seed)
    levels = (4, 8)[seed % 2]
    counts = random.poisson(40 * np.exp(-np.arange(60) / 8) + 0.3).astype(np.float64)
    counts[0] = 1
    counts[-1] = 1
    ours, theirs = kl_divergences(counts, levels), divergences_as_told(counts, levels)
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert np.isinf(ours).any(), "an empty last bin with outliers behind it must occur"
    assert np.isfinite(ours).any()


def test_divergences_notice_a_wrong_level() -> None:
    counts = np.arange(1.0, 40)
    assert kl_divergences(counts, 8) != pytest.approx(divergences_as_told(counts, 7)[1:])


@pytest.mark.parametrize("share", [90, 99, 99.9])
@pytest.mark.parametrize("name", ALL)
def test_percentile_is_numpys(name: str, share: float) -> None:
    values = sample(name).astype(np.float32)
    histogram = histogram_of(values)
    cut = (100 - share) / 2
    expected = np.percentile(values, [cut, 100 - cut], method="inverted_cdf")
    found = percentile(histogram, share)
    assert found == pytest.approx(tuple(expected), abs=1.01 * histogram.width)
    inside = np.mean((values >= found[0]) & (values <= found[1]))
    assert inside >= share / 100


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_uniform_values_are_hardly_cut(method: str) -> None:
    low, high = bounds(method, histogram_of(sample("uniform")))
    assert (low, high) == pytest.approx((-2, 5), rel=0.01)


@pytest.mark.parametrize("name", ["heavy tails", "heavy tail behind a ReLU"])
@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_heavy_tails_are_cut(method: str, name: str) -> None:
    histogram = histogram_of(sample(name))
    low, high = bounds(method, histogram)
    assert high < 0.9 * histogram.high
    assert low == 0 if "ReLU" in name else low > 0.9 * histogram.low


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_zeros_do_not_move_a_threshold(method: str) -> None:
    positive = np.abs(sample("laplacian"))
    with_zeros = np.concatenate([positive, np.zeros(20 * len(positive))])
    alone, among = (bounds(method, histogram_of(v)) for v in (positive, with_zeros))
    assert among[1] == pytest.approx(alone[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values", [[0.0], [3.0], [-2.0], [5.0, 10.0], [-8.0, -1.0], [1e-38], [0.0, 1e30], [-1.0, 1.0]]
)
def test_bounds_lie_within_the_extremes(method: str, values: list[float]) -> None:
    found = np.array(values, np.float32)
    low, high = bounds(method, histogram_of(found))
    assert float(found.min()) <= low <= high <= float(found.max())


def test_methods_differ_on_what_networks_have() -> None:
    histogram = histogram_of(sample("heavy tail behind a ReLU"))
    tops = {function.__name__: function(histogram)[1] for function in (minmax, percentile)}
    tops |= {function.__name__: function(histogram)[1] for function in (entropy, mse)}
    assert len({round(top, 3) for top in tops.values()}) == 4, tops
