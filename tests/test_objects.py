"""Scores of objects against brute force with SciPy's assignment, and components against SciPy's."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage, optimize

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.instances import class_mask, with_boundary
from edgeseg.errors import UsageError
from edgeseg.objects import ObjectScores, components, has_objects, predicted_objects, score_objects

Ids = NDArray[np.int32]
NUCLEI = ClassMap.model_validate({"names": ("background", "nucleus")})
WITH_BOUNDARY = with_boundary(NUCLEI)

# A few pixels and a few ids: overlaps of exactly one half, merges and splits are frequent.
id_maps = arrays(np.int32, (3, 4), elements=st.sampled_from([0, 1, 2, 7]))


def brute_force(truth: Ids, prediction: Ids, threshold: float) -> ObjectScores:
    """The definitions word by word, and the best of all assignments."""
    truths = [truth == i for i in np.unique(truth) if i]
    predictions = [prediction == i for i in np.unique(prediction) if i]
    iou = np.array([[(t & p).sum() / (t | p).sum() for p in predictions] for t in truths])
    iou = iou.reshape(len(truths), len(predictions))
    weights = np.where(iou >= threshold, 1 + 1e-6 * iou, 0)
    rows, columns = optimize.linear_sum_assignment(weights, maximize=True)
    matched = [iou[r, c] for r, c in zip(rows, columns, strict=True) if iou[r, c] >= threshold]
    merges = sum(sum((t & p).sum() > t.sum() / 2 for t in truths) >= 2 for p in predictions)
    splits = sum(sum((t & p).sum() > p.sum() / 2 for p in predictions) >= 2 for t in truths)
    return ObjectScores(
        pictures=1,
        truths=len(truths),
        predictions=len(predictions),
        matches=len(matched),
        matched_iou=pytest.approx(sum(matched)),
        merges=merges,
        splits=splits,
        miscounted=abs(len(predictions) - len(truths)),
        threshold=threshold,
    )


@settings(deadline=None)
@given(id_maps, id_maps, st.sampled_from([0.5, 0.6, 0.75, 1.0]))
@example(np.array([[1, 1]], np.int32), np.array([[1, 2]], np.int32), 0.5)
@example(np.array([[1, 2]], np.int32), np.array([[1, 1]], np.int32), 0.5)
def test_equals_brute_force(truth: Ids, prediction: Ids, threshold: float) -> None:
    assert brute_force(truth, prediction, threshold) == score_objects(truth, prediction, threshold)


def test_equals_brute_force_on_real_nuclei(nuclei) -> None:  # type: ignore[no-untyped-def]
    """Blurred masks merge neighbours and lose small ones, as a network does."""
    from edgeseg.data.folders import load_instances, read_split

    total = ObjectScores()
    for sample in list(read_split(nuclei, "val"))[:4]:
        truth = load_instances(sample)
        prediction = components((ndimage.gaussian_filter((truth > 0) * 1.0, 2) > 0.5).astype("u1"))
        found = score_objects(truth, prediction)
        assert brute_force(truth, prediction, 0.5) == found
        total += found
    assert total.merges
    assert total.truths > total.matches > 0.8 * total.truths


@pytest.mark.parametrize(
    ("truth", "prediction", "counts"),
    [
        # truth, prediction → matches, merges, splits
        ([1, 1, 0, 2, 2], [5, 5, 0, 9, 9], (2, 0, 0)),
        ([1, 1, 2, 2, 2], [1, 1, 1, 1, 1], (1, 1, 0)),
        ([1, 1, 1, 1, 1], [1, 1, 2, 2, 2], (1, 0, 1)),
        ([1, 1, 1, 1], [1, 1, 2, 2], (1, 0, 1)),  # halves: at exactly 0.5 one of the two matches
        ([1, 1, 2, 2], [1, 1, 1, 1], (1, 1, 0)),
        ([1, 1, 2, 2], [1, 1, 1, 0], (1, 0, 0)),  # half of 2 is not more than half
        ([0, 0, 0, 0], [1, 1, 0, 2], (0, 0, 0)),
        ([1, 0, 1, 2], [1, 0, 1, 0], (1, 0, 0)),  # an object may lie in pieces
    ],
)
def test_by_hand(truth: list[int], prediction: list[int], counts: tuple[int, int, int]) -> None:
    scores = score_objects(np.array([truth]), np.array([prediction]))
    assert (scores.matches, scores.merges, scores.splits) == counts


def test_figures_by_hand_and_added() -> None:
    first = score_objects(np.array([[1, 1, 0, 2]]), np.array([[1, 1, 0, 0]]))
    second = score_objects(np.array([[0, 0, 0, 1]]), np.array([[1, 0, 2, 3]]))
    both = sum([first, second], ObjectScores())
    assert (first.precision, first.recall, first.f1) == (1, 1 / 2, 2 / 3)
    assert (both.precision, both.recall, both.f1) == (2 / 4, 2 / 3, 4 / 7)
    assert (both.count_error, both.count_bias) == (3 / 2, 1 / 2)
    assert both.mean_matched_iou == 1
    assert set(both.to_dict()) == {
        *("threshold", "truths", "predictions", "matches", "precision", "recall", "f1"),
        *("mean_matched_iou", "count_error", "count_bias", "merges", "splits"),
    }


def test_nothing_to_find_and_nothing_found() -> None:
    empty = score_objects(np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert (empty.precision, empty.recall, empty.f1, empty.mean_matched_iou) == (None,) * 4
    assert (empty.count_error, empty.count_bias) == (0, 0)
    assert ObjectScores().count_error is None
    missed = score_objects(np.ones((2, 2), int), np.zeros((2, 2), int))
    assert (missed.precision, missed.recall, missed.f1) == (None, 0, 0)


def test_scores_at_two_thresholds_do_not_add_up() -> None:
    with pytest.raises(UsageError, match=r"0\.5 and at 0\.75"):
        _ = ObjectScores() + dataclasses.replace(ObjectScores(), threshold=0.75)


def test_ids_may_be_any_integers() -> None:
    truth = np.array([[0, 2**31 - 1, 65535]])
    assert score_objects(truth, truth).matches == 2
    # Products of two 16-bit ids would not fit 16 bits.
    stored = np.array([[65535, 65534, 1], [65535, 65534, 1]], np.uint16)
    assert score_objects(stored, stored).matches == 3


@pytest.mark.parametrize(
    ("truth", "prediction", "threshold", "reason"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), 0.5, r"truth is \(2, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), 0.5, "truth is float64"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 0.5, "prediction holds -1"),
        (np.full((2, 2), 2**31), np.zeros((2, 2), int), 0.5, "truth holds 2147483648"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), 0.49, "not uniquely"),
    ],
)
def test_refuses(truth: Ids, prediction: Ids, threshold: float, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        score_objects(truth, prediction, threshold)


@settings(deadline=None)
@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 2)), st.integers(0, 2))
def test_components_are_scipys(labels: NDArray[np.uint8], class_id: int) -> None:
    ours = components(labels, class_id)
    theirs, count = ndimage.label(labels == class_id, structure=np.ones((3, 3)))
    assert ours.dtype == np.int32
    assert_same_objects(ours, theirs)
    assert ours.max() == count


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_boundaries_give_the_objects_back(seed: int) -> None:
    """Boxes that touch: learnt as core and boundary, they come back whole and apart."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((24, 24), np.int32)
    for row in range(0, 24, 8):
        for column in range(0, 24, 8):
            height, width = rng.integers(4, 9, 2)
            truth[row : row + height, column : column + width] = truth.max() + 1
    labels = class_mask(truth, WITH_BOUNDARY)
    assert_same_objects(predicted_objects(labels, WITH_BOUNDARY), truth)
    assert score_objects(truth, components(labels)).mean_matched_iou != 1


def test_a_bridge_is_parted_and_a_speck_is_no_object() -> None:
    truth = np.zeros((40, 70), np.int32)
    cv2.circle(truth, (18, 20), 12, 1, -1)
    cv2.circle(truth, (48, 20), 14, 2, -1)
    labels = class_mask(truth, WITH_BOUNDARY)
    assert_same_objects(predicted_objects(labels, WITH_BOUNDARY), truth)
    labels[19:22, 25:40] = 1  # a bridge through the rims
    labels[20, 6] = labels[34, 48] = 1  # and specks on them
    assert components(labels).max() == 3
    found = score_objects(truth, predicted_objects(labels, WITH_BOUNDARY), 0.98)
    assert (found.matches, found.predictions) == (2, 2)


def test_boundary_without_an_object_is_none() -> None:
    labels = np.zeros((9, 20), np.uint8)
    labels[2:7, 2:7], labels[3:6, 3:6] = 2, 1
    labels[2:7, 9:14] = 2
    expected = np.zeros_like(labels)
    expected[2:7, 2:7] = 1
    assert_same_objects(predicted_objects(labels, WITH_BOUNDARY), expected)
    labels[labels == 1] = 2
    assert not predicted_objects(labels, WITH_BOUNDARY).any()


def test_a_third_class_of_another_name_keeps_to_itself() -> None:
    labels = np.array([[1, 2, 0]], np.uint8)
    other = ClassMap.model_validate({"names": ("background", "nucleus", "dirt")})
    assert predicted_objects(labels, other).tolist() == [[1, 0, 0]]
    assert [has_objects(classes) for classes in (NUCLEI, WITH_BOUNDARY, other)] == [1, 1, 0]


def assert_same_objects(one: Ids, other: Ids) -> None:
    """The same areas, whatever their numbers."""
    pairs = {*zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert all((a == 0) == (b == 0) for a, b in pairs)
