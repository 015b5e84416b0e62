"""The confusion matrix and its figures against scikit-learn, the band around borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgeseg.errors import UsageError
from edgeseg.metrics import ConfusionMatrix, boundary_band


def maps(seed: int, classes: int, *, present: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, present, (11, 13), dtype=np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    return truth, rng.integers(0, classes, truth.shape, dtype=np.uint8)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_equals_scikit_learn(seed: int, classes: int) -> None:
    truth, prediction = maps(seed, classes, present=classes)
    ours = ConfusionMatrix(classes)
    ours.update(truth, prediction)
    counted = truth != 255
    t, p = truth[counted], prediction[counted]
    labels = list(range(classes))
    assert np.array_equal(ours.matrix, sk.confusion_matrix(t, p, labels=labels))
    occurring = sorted({*t.tolist(), *p.tolist()})
    each = sk.jaccard_score(t, p, labels=occurring, average=None, zero_division=0)
    assert np.allclose(ours.per_class_iou[occurring], each)
    assert ours.mean_iou == pytest.approx(each.mean())
    assert ours.pixel_accuracy == pytest.approx(sk.accuracy_score(t, p))
    true_classes = sorted(set(t.tolist()))
    recall = sk.recall_score(t, p, labels=true_classes, average="macro", zero_division=0)
    assert ours.mean_accuracy == pytest.approx(recall)
    weighted = sk.jaccard_score(t, p, average="weighted", zero_division=0)
    assert ours.frequency_weighted_iou == pytest.approx(weighted)


def test_by_hand() -> None:
    ours = ConfusionMatrix(3)
    ours.update(np.array([0, 0, 1, 1, 255], np.uint8), np.array([0, 1, 1, 1, 0], np.uint8))
    assert ours.matrix.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert ours.per_class_iou[:2].tolist() == [1 / 2, 2 / 3]
    assert np.isnan(ours.per_class_iou[2])
    assert ours.mean_iou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert ours.pixel_accuracy == 3 / 4
    assert ours.mean_accuracy == 3 / 4
    assert ours.frequency_weighted_iou == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_updates_add_up() -> None:
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    truth, prediction = maps(0, 4, present=3)
    whole.update(truth, prediction)
    for row, predicted in zip(truth, prediction, strict=True):
        parts.update(row, predicted)
    assert np.array_equal(whole.matrix, parts.matrix)


def test_255_classes_do_not_wrap() -> None:
    ours = ConfusionMatrix(255)
    ours.update(np.array([254, 255], np.uint8), np.array([253, 0], np.uint8))
    assert ours.matrix[254, 253] == 1
    assert ours.matrix.sum() == 1


def test_nothing_counted_is_nan() -> None:
    ours = ConfusionMatrix(2)
    ours.update(np.full(5, 255, np.uint8), np.zeros(5, np.uint8))
    figures = (ours.pixel_accuracy, ours.mean_accuracy, ours.mean_iou, ours.frequency_weighted_iou)
    assert np.isnan(figures).all()


@pytest.mark.parametrize(
    ("truth", "prediction", "reason"),
    [
        (np.zeros(3, np.int64), np.zeros(3, np.uint8), "uint8"),
        (np.zeros(3, np.uint8), np.zeros(4, np.uint8), r"truth is \(3,\)"),
        (np.full(3, 2, np.uint8), np.zeros(3, np.uint8), "truth holds 2"),
        (np.zeros(3, np.uint8), np.full(3, 255, np.uint8), "prediction holds 255"),
    ],
)
def test_refuses(truth: np.ndarray, prediction: np.ndarray, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ConfusionMatrix(2).update(truth, prediction)


@pytest.mark.parametrize("count", [1, 256])
def test_refuses_a_class_count(count: int) -> None:
    with pytest.raises(UsageError, match="classes"):
        ConfusionMatrix(count)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_boundary_band_is_what_lies_near_another_value(seed: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.full((14, 17), 1, np.uint8)
    truth[rng.integers(14), rng.integers(17)] = 0
    truth[rng.integers(14) :, rng.integers(17) :] = 255
    rows, columns = np.indices(truth.shape).reshape(2, -1)
    squares = np.subtract.outer(rows, rows) ** 2 + np.subtract.outer(columns, columns) ** 2
    other = np.not_equal.outer(truth.ravel(), truth.ravel())
    near = (other & (squares <= radius**2)).any(axis=1).reshape(truth.shape)
    band = boundary_band(truth, radius)
    assert np.array_equal(band, np.where(near, truth, 255))
    assert band is not truth


def test_errors_weigh_more_in_the_band() -> None:
    """A border that is off by one pixel: wrong by a column of 20, in the band by one of 4."""
    truth, prediction = np.zeros((2, 9, 20), np.uint8)
    truth[:, 10:], prediction[:, 11:] = 1, 1
    whole, band = ConfusionMatrix(2), ConfusionMatrix(2)
    whole.update(truth, prediction)
    band.update(boundary_band(truth, 2), prediction)
    assert whole.pixel_accuracy == 19 / 20
    assert band.pixel_accuracy == 3 / 4


def test_a_picture_of_one_value_has_no_band() -> None:
    assert (boundary_band(np.zeros((5, 5), np.uint8), 3) == 255).all()
    assert (boundary_band(np.zeros((5, 5), np.uint8), 3, ignore=9) == 9).all()
