"""The class that loses most: found, named, and refused only where it is no chance."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.artifacts.sidecar import WorstClass
from edgeseg.metrics import ConfusionMatrix, Counts
from edgeseg.precision.worst_class import FEWEST, exceeds, worst_class

NAMES = ("road", "car", "pole")


def counts(hits: NDArray[np.int64], unions: NDArray[np.int64]) -> Counts:
    return Counts(np.minimum(hits, unions), unions)


def losing(pictures: int, share: float, *, spread: float = 0.01, seed: int = 0) -> WorstClass:
    """FP32 against an engine that loses ``share`` of the pole's pixels on ``pictures`` of 40."""
    noise = np.random.default_rng(seed)
    unions = noise.integers(2000, 4000, (40, 3))
    unions[pictures:, 2] = 0
    hits = np.rint(0.8 * unions).astype(np.int64)
    lost = np.rint(unions[:, 2] * (share + spread * noise.standard_normal(40))).astype(np.int64)
    after = hits.copy()
    after[:, 2] -= lost
    found = worst_class(NAMES, counts(hits, unions), counts(after, unions), 0.05)
    assert found is not None
    return found


def test_a_collapse_that_the_mean_hides_is_refused_and_named() -> None:
    found = losing(30, 0.12)
    assert found.name == "pole"
    assert found.drop == pytest.approx(0.12, abs=0.01)
    assert found.interval is not None
    low, high = found.interval
    assert 0.1 < low < found.drop < high < 0.14
    assert found.pictures == 30
    assert exceeds(found)
    assert not exceeds(found.model_copy(update={"limit": None}))
    assert not exceeds(losing(30, 0.03))


@pytest.mark.parametrize("pictures", [1, FEWEST - 1])
def test_a_class_that_few_pictures_show_refuses_nothing(pictures: int) -> None:
    found = losing(pictures, 0.5)
    assert (found.name, found.interval, found.pictures) == ("pole", None, pictures)
    assert not exceeds(found)
    assert "too few to tell" in found.describe()
    assert exceeds(losing(FEWEST, 0.5))


def test_a_loss_of_one_picture_among_many_is_chance() -> None:
    """All of the loss is in one picture: other draws would not have it."""
    unions = np.full((20, 3), 100)
    unions[0, 2] = 2000
    hits = np.rint(0.8 * unions).astype(np.int64)
    after = hits.copy()
    after[0, 2] -= 900
    found = worst_class(NAMES, counts(hits, unions), counts(after, unions), 0.05)
    assert found is not None
    assert found.drop > 0.2
    assert found.interval is not None
    assert found.interval[0] <= 0
    assert not exceeds(found)


def test_a_class_that_gained_is_not_said_to_fall() -> None:
    found = losing(30, -0.05).model_copy(update={"drop": -0.001})
    assert "falls" not in found.describe()
    assert "falls" in losing(30, 0.05).describe()


def test_equal_engines_are_seldom_refused() -> None:
    """Both engines err at random, on few pixels: no class may be refused but rarely."""
    refused = 0
    for seed in range(100):
        noise = np.random.default_rng(seed)
        unions = noise.integers(1, 30, (8, 3))
        one, other = (Counts(noise.binomial(unions, 0.6), unions) for _ in range(2))
        found = worst_class(NAMES, one, other, 0.0)
        assert found is not None
        refused += exceeds(found)
    assert refused <= 6


def test_a_refused_class_precedes_one_that_lost_more_by_chance() -> None:
    unions = np.full((20, 3), 1000)
    unions[1:, 0] = 0  # one picture alone shows the road
    hits = unions * 8 // 10
    after = hits - np.array([400, 0, 100])
    found = worst_class(NAMES, counts(hits, unions), counts(np.maximum(after, 0), unions), 0.05)
    assert found is not None
    assert (found.name, exceeds(found)) == ("pole", True)


def test_a_class_found_by_the_engine_alone_lost_nothing() -> None:
    truth = np.zeros((4, 4), np.uint8)
    other = np.full((4, 4), 2, np.uint8)
    matrices = []
    for labels in (truth, other):
        matrix = ConfusionMatrix(3)
        matrix.update(truth, labels)
        matrices.append(Counts.of([matrix]))
    found = worst_class(NAMES, matrices[0], matrices[1], 0.05)
    assert found is not None
    assert (found.name, found.reference, found.value) == ("road", 1.0, 0.0)
