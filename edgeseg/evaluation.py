"""Evaluate an engine on labelled pictures, and compare two engines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import plural
from edgeseg.console import Track, silent
from edgeseg.data.folders import Sample, Split, load_instances, load_sample, warn_of_levels
from edgeseg.data.instances import with_boundary
from edgeseg.engines.base import Engine
from edgeseg.errors import DatasetError, UsageError
from edgeseg.metrics import ConfusionMatrix, Counts
from edgeseg.objects import ObjectScores, has_objects, predicted_objects, score_objects
from edgeseg.ops.preprocess import preprocess_tile

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A picture uint8 (H, W, 3) BGR and its mask uint8 (H, W)."""


MEANS = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
"""Metrics over all classes, of :class:`Evaluation` and :class:`edgeseg.metrics.ConfusionMatrix`."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics over a split, from 0 to 1; see :mod:`edgeseg.metrics`.

    ``per_class`` pairs each class name with its intersection over union, None where the class
    occurs in neither truth nor prediction. ``objects`` is None where the split has no map of
    objects or the network's classes show none. ``counts`` holds the pixel counts of each picture
    of a split, from which intervals over pictures are computed.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    per_class: tuple[tuple[str, float | None], ...]
    images: int
    confusion: ConfusionMatrix = field(repr=False, compare=False)
    objects: ObjectScores | None = None
    counts: Counts | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """Return the metrics as JSON types, without the confusion matrix.

        ``per_class`` becomes a list of ``{"name", "iou"}``, ``objects`` a dictionary.
        """
        return {
            **{name: getattr(self, name) for name in MEANS},
            "per_class": [{"name": name, "iou": iou} for name, iou in self.per_class],
            "images": self.images,
            "objects": self.objects.to_dict() if self.objects else None,
        }


def evaluate(engine: Engine, split: Split, track: Track = silent) -> Evaluation:
    """Segment each picture of a split and compare it with its mask, at the mask's size.

    If the split has object maps and the network has one class besides background (and possibly
    its boundary), single objects are scored too; see :mod:`edgeseg.objects`.

    Raises:
        DatasetError: The data set names other classes than the network has, a file is bad
            (see :func:`edgeseg.data.sample.load_sample`), or no pixel carries a label.
        InferenceError: The engine failed.
    """
    split = numbered_for(engine, split)
    classes = engine.card.classes
    scores, pictures, ids = Scores(classes), [], np.zeros(256, np.int64)
    for sample in track(split, "evaluate", len(split)):
        image, mask = read(sample, engine)
        ids += np.bincount(mask.ravel(), minlength=256)
        labels = engine.segment(image)
        pictures.append(scores.add(mask, labels))
        if sample.instances and has_objects(classes):
            scores.add_objects(load_instances(sample), labels)
    warn_of_levels(split, ids)
    return replace(scores.evaluation(), counts=Counts.of(pictures))


def score(engine: Engine, pictures: Iterable[Labelled]) -> Evaluation:
    """Evaluate pictures that are in memory, without object metrics."""
    scores = Scores(engine.card.classes)
    for image, mask in pictures:
        scores.add(mask, engine.segment(image))
    return scores.evaluation()


class Scores:
    """Accumulator of metrics over pictures.

    Args:
        classes: Classes of the network.
    """

    def __init__(self, classes: ClassMap) -> None:
        self.classes = classes
        self.confusion = ConfusionMatrix(len(classes), classes.ignore)
        self.images = 0
        self.objects: ObjectScores | None = None

    def add(self, mask: NDArray[np.uint8], labels: NDArray[np.uint8]) -> ConfusionMatrix:
        """Add a picture: truth and prediction, both uint8 (H, W); return its own counts."""
        alone = ConfusionMatrix(len(self.classes), self.classes.ignore)
        alone.update(mask, labels)
        self.confusion.matrix += alone.matrix
        self.images += 1
        return alone

    def add_objects(self, instances: NDArray[np.int32], labels: NDArray[np.uint8]) -> None:
        """Add a picture's objects: ids int32 (H, W), 0 for background, and the prediction."""
        found = score_objects(instances, predicted_objects(labels, self.classes))
        self.objects = found if self.objects is None else self.objects + found

    def evaluation(self) -> Evaluation:
        """Return the metrics so far; raises DatasetError if no pixel is labelled."""
        confusion = self.confusion
        if not confusion.matrix.any():
            raise DatasetError(
                f"no pixel of the masks of {plural(self.images, 'picture')} carries a label",
                hint=f"label some pixels with a class instead of {self.classes.ignore} (ignore)",
            )
        ious = [None if math.isnan(iou) else float(iou) for iou in confusion.per_class_iou]
        return Evaluation(
            **{name: getattr(confusion, name) for name in MEANS},
            per_class=tuple(zip(self.classes.names, ious, strict=True)),
            images=self.images,
            confusion=confusion,
            objects=self.objects,
        )


def read(sample: Sample, engine: Engine) -> Labelled:
    """Read a picture and its mask, in the classes of the network."""
    return load_sample(sample, engine.card.classes)


def numbered_for(engine: Engine, split: Split) -> Split:
    """Return the split with the network's class ids, where it numbers the same classes otherwise.

    Made-up names are not compared. A network with an additional boundary class is accepted if the
    data set has object maps.

    Raises:
        DatasetError: The data set's classes differ from the network's.
    """
    split = split.numbered_as(engine.card.classes)
    expected = split.classes
    drawn = any(sample.mask for sample in split)  # a mask of classes has no boundaries
    if engine.card.classes.has_boundary and len(expected) == 2 and not drawn:
        expected = with_boundary(expected)
    if split.declared and expected.names != engine.card.classes.names:
        raise DatasetError(
            f"{split.root / 'classes.json'}: expected the classes of {engine.path.name} "
            f"({', '.join(engine.card.classes.names)}), found {', '.join(split.classes.names)}",
            hint="evaluate on the data set that the network was trained for",
        )
    return split


def agreement(reference: Engine, candidate: Engine, images: Iterable[NDArray[np.uint8]]) -> float:
    """Compute the fraction of pixels, at the network's size, on which two engines agree.

    Args:
        candidate: Engine to compare, with the same ``InputSpec``.
        images: uint8 (H, W, 3) BGR or (H, W).

    Raises:
        UsageError: The engines take different inputs, or there is no picture.
    """
    spec = reference.card.input
    if candidate.card.input != spec:
        raise UsageError(
            f"{reference.path.name} and {candidate.path.name} take different inputs, "
            "so their label maps cannot be compared pixel by pixel"
        )
    equal = total = 0
    for image in images:
        tensor = preprocess_tile(image, spec)[np.newaxis]
        labels = reference.infer(tensor).copy()
        equal += int(np.count_nonzero(labels == candidate.infer(tensor)))
        total += labels.size
    if not total:
        raise UsageError("no picture to compare the engines on")
    return equal / total
