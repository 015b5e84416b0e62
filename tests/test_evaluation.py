"""Evaluation with an engine whose answers are known."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.data.folders import Split, load_sample, read_split
from edgeseg.engines.base import Engine
from edgeseg.errors import DatasetError, UsageError
from edgeseg.evaluation import agreement, evaluate
from edgeseg.metrics import ConfusionMatrix
from edgeseg.objects import ObjectScores

SPEC = InputSpec(height=8, width=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Threshold(Engine):
    """Class 1 where the first channel is above a level: a network of one multiplication."""

    runtime = "test"

    def __init__(self, level: float, spec: InputSpec = SPEC, names: tuple[str, ...] = ("a", "b")):
        classes = ClassMap.model_validate({"names": names})
        self.card = ModelCard(name="t", arch="unet-lite", classes=classes, input=spec)
        self.path, self.level = Path("threshold.onnx"), level

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        return (batch[:, 0] > self.level).astype(np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Pictures of 16×24 with a bright right half; the truth leaves the last row out."""
    for name in ("a", "b"):
        image, mask = np.zeros((16, 24, 3), np.uint8), np.zeros((16, 24), np.uint8)
        image[:, 12:], mask[:, 12:] = 200, 1
        mask[-1] = 255
        for part, array in (("images", image), ("masks", mask)):
            (tmp_path / "val" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "val" / part / f"{name}.png"), array)
    return read_split(tmp_path, "val")


def test_a_perfect_and_a_blind_engine(split: Split) -> None:
    perfect = evaluate(Threshold(0.4), split)
    assert (perfect.mean_iou, perfect.pixel_accuracy, perfect.images) == (1, 1, 2)
    blind = evaluate(Threshold(2.0), split)
    assert blind.per_class == (("a", 0.5), ("b", 0.0))
    assert blind.mean_iou == 0.25


@pytest.mark.parametrize("level", [255, 1])
def test_masks_of_0_and_255_are_warned_of(
    split: Split, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    for sample in split:
        mask = np.zeros((16, 24), np.uint8)
        mask[:, 12:], mask[0] = level, 255
        cv2.imwrite(str(sample.mask), mask)
    evaluate(Threshold(0.4), split)
    assert ("only 0 and 255" in caplog.text) == (level == 255)


def test_is_measured_at_the_size_of_the_mask(split: Split) -> None:
    """The truth gets a line that is lost at the network's size of 8×8."""
    sample = split.samples[0]
    mask = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
    mask[:, 3] = 1
    cv2.imwrite(str(sample.mask), mask)
    found, expected = evaluate(Threshold(0.4), split), ConfusionMatrix(2)
    for one in split:
        image, truth = load_sample(one, split.classes)
        expected.update(truth, (image[..., 0] > 100).astype(np.uint8))
    assert found.mean_iou == expected.mean_iou < 1


def test_to_dict_is_json(split: Split) -> None:
    document = evaluate(Threshold(2.0, names=("a", "b", "absent")), split).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["per_class"][2] == {"name": "absent", "iou": None}  # type: ignore[index]
    assert set(document) == {
        *("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"),
        *("per_class", "images", "objects"),
    }


def test_other_classes_are_refused_if_declared(split: Split) -> None:
    other = ClassMap.model_validate({"names": ("sky", "road")})
    declared = dataclasses.replace(split, classes=other, declared=True)
    with pytest.raises(DatasetError, match=r"expected the classes .* \(a, b\), found sky, road"):
        evaluate(Threshold(0.4), declared)
    evaluate(Threshold(0.4), dataclasses.replace(declared, declared=False))


class Dark(Threshold):
    """Names the first class where another names the second."""

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        return 1 - super()._infer(batch)


def test_the_same_classes_in_another_order_are_matched_by_name(split: Split) -> None:
    classes = ClassMap.model_validate({"names": ("a", "b"), "ignore": 255})
    declared = dataclasses.replace(split, classes=classes, declared=True)
    assert evaluate(Dark(0.4, names=("b", "a")), declared).mean_iou == 1
    assert evaluate(Threshold(0.4, names=("b", "a")), declared).mean_iou == 0
    twice = declared.numbered_as(Dark(0.4, names=("b", "a")).card.classes)
    assert evaluate(Threshold(0.4), twice).mean_iou == 1


def test_no_labelled_pixel(split: Split) -> None:
    for sample in split:
        cv2.imwrite(str(sample.mask), np.full((16, 24), 255, np.uint8))
    for some, expected in ((split, f"{len(split)} pictures"), (split.samples[:1], "1 picture")):
        some = dataclasses.replace(split, samples=tuple(some))
        with pytest.raises(DatasetError, match=f"no pixel of the masks of {expected} carries"):
            evaluate(Threshold(0.4), some)


@pytest.fixture
def objects(tmp_path: Path) -> Split:
    """One picture 8×8 with two bright boxes that touch, one id each, and a dark object."""
    root = tmp_path / "objects"
    image, ids = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint16)
    ids[0:3, 0:4], ids[0:3, 4:8], ids[5:8, 5:8] = 300, 7, 8
    image[0:3] = 200
    for part, array in (("images", image), ("instances", ids)):
        (root / "val" / part).mkdir(parents=True)
        cv2.imwrite(str(root / "val" / part / "a.png"), array)
    (root / "classes.json").write_text('{"names": ["a", "b"]}')
    return read_split(root, "val")


def test_objects_are_scored_where_there_are_maps_of_them(objects: Split, split: Split) -> None:
    found = evaluate(Threshold(0.4), objects)
    assert found.objects is not None
    # One component covers the two boxes, and is the union of two halves: it matches one.
    expected = ObjectScores(1, truths=3, predictions=1, matches=1, matched_iou=0.5, merges=1)
    assert found.objects == dataclasses.replace(expected, miscounted=2)
    assert json.loads(json.dumps(found.to_dict()))["objects"]["f1"] == 0.5
    assert evaluate(Threshold(0.4), split).objects is None


def test_objects_may_be_the_first_class(objects: Split) -> None:
    classes = ClassMap.model_validate({"names": ("thing", "background")})
    found = evaluate(Dark(0.4, names=classes.names), dataclasses.replace(objects, classes=classes))
    same = evaluate(Threshold(0.4), objects)
    assert found.objects == same.objects
    assert found.mean_iou == same.mean_iou


def test_objects_are_not_scored_among_many_classes(objects: Split) -> None:
    many = dataclasses.replace(objects, declared=False)
    assert evaluate(Threshold(0.4, names=("a", "b", "c")), many).objects is None


class Boundaries(Threshold):
    """Names the fourth and fifth column boundary, as a network does that parts the boxes."""

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        labels = super()._infer(batch)
        labels[:, 0:3, 3:5] = 2
        return labels


def test_a_network_of_boundaries_is_measured_on_objects(objects: Split) -> None:
    engine = Boundaries(0.4, names=("a", "b", "boundary"))
    found = evaluate(engine, objects)
    assert found.objects is not None
    assert (found.objects.matches, found.objects.merges, found.objects.matched_iou) == (2, 0, 2.0)
    assert found.per_class[2][1] > 0  # type: ignore[operator]
    # Masks of classes do not say where the boundaries are.
    masked = [dataclasses.replace(sample, mask=sample.instances) for sample in objects]
    with pytest.raises(DatasetError, match="expected the classes"):
        evaluate(engine, dataclasses.replace(objects, samples=tuple(masked)))


def test_agreement() -> None:
    ramp = np.repeat(np.linspace(0, 255, 8).astype(np.uint8)[None], 8, axis=0)
    assert agreement(Threshold(0.5), Threshold(0.5), [ramp]) == 1
    # One of eight columns lies between the levels.
    assert agreement(Threshold(0.5), Threshold(0.6), [ramp]) == 7 / 8
    with pytest.raises(UsageError, match="no picture"):
        agreement(Threshold(0.5), Threshold(0.5), [])
    other = SPEC.model_copy(update={"height": 16})
    with pytest.raises(UsageError, match="different inputs"):
        agreement(Threshold(0.5), Threshold(0.5, other), [ramp])
