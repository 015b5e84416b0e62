"""The picture of a confusion matrix: its figures against scikit-learn, and what it says."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn import metrics as sk

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.folders import load_instances, read_split
from edgeseg.metrics import ConfusionMatrix
from edgeseg.report.confusion import draw_confusion, row_shares


def confused(count: int) -> tuple[ConfusionMatrix, np.ndarray, np.ndarray]:
    """Class 1 does not occur in the truth; one prediction in three is made at random."""
    rng = np.random.default_rng(count)
    truth = rng.choice(np.delete(np.arange(count), 1), 500).astype(np.uint8)
    random = rng.integers(0, count, truth.size)
    prediction = np.where(rng.random(truth.size) < 1 / 3, random, truth).astype(np.uint8)
    confusion = ConfusionMatrix(count)
    confusion.update(truth, prediction)
    return confusion, truth, prediction


def classes(count: int) -> ClassMap:
    return ClassMap.model_validate({"names": [f"class_{number}" for number in range(count)]})


@pytest.mark.parametrize("count", [2, 19])
def test_rows_are_scikit_learns(count: int) -> None:
    confusion, truth, prediction = confused(count)
    theirs = sk.confusion_matrix(truth, prediction, labels=range(count), normalize="true")
    ours = row_shares(confusion)
    assert np.isnan(ours[1]).all()
    assert np.allclose(np.nan_to_num(ours), theirs)


@pytest.mark.parametrize("count", [2, 19])
def test_draws_names_shares_and_iou(count: int) -> None:
    confusion, truth, prediction = confused(count)
    (axes,) = draw_confusion(confusion, classes(count)).axes
    names = list(classes(count).names)
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == names
    texts = [text.get_text() for text in axes.texts]
    recall = 100 * np.mean(prediction[truth == 0] == 0)
    assert f"{recall:.0f}" in texts
    for iou in sk.jaccard_score(truth, prediction, labels=range(count), average=None):
        assert f"{iou:.3f}" in texts


def test_eval_draws_it_and_counts_nuclei(
    edgeseg: Any, trained: Path, small_data: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "confusion.png"
    common = ("eval", trained / "model.onnx", "--data", small_data)
    outcome = edgeseg(*common, "--confusion", picture, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["confusion"] == str(picture)
    assert cv2.imread(str(picture)) is not None
    nuclei = sum(
        np.unique(load_instances(sample)).size - 1 for sample in read_split(small_data, "val")
    )
    assert outcome.document["objects"]["truths"] == nuclei > 0
    spoken = edgeseg(*common)
    assert "objects: threshold 0.5, truths" in spoken.out
    assert "confusion" not in spoken.out
    refused = edgeseg(*common, "--confusion", tmp_path / "confusion.txt", "--json")
    assert refused.code == 2
