"""How well an engine segments labelled pictures, and how far two engines agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.console import Track, silent
from edgeseg.data.folders import Sample, Split, load_sample
from edgeseg.engines.base import Engine
from edgeseg.errors import DatasetError, UsageError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.ops.preprocess import preprocess

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A picture uint8 (H, W, 3) BGR and its mask uint8 (H, W)."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics over a split, fractions of 1; see :mod:`edgeseg.metrics`.

    ``per_class`` pairs each class name with its intersection over union, None where the class
    occurs in neither truth nor prediction.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    per_class: tuple[tuple[str, float | None], ...]
    images: int

    def to_dict(self) -> dict[str, object]:
        """The same as JSON types; ``per_class`` becomes a list of ``{"name", "iou"}``."""
        classes = [{"name": name, "iou": iou} for name, iou in self.per_class]
        return asdict(self) | {"per_class": classes}


def evaluate(engine: Engine, split: Split, track: Track = silent) -> Evaluation:
    """Segment each picture of a split and compare with its mask, at the mask's own size.

    Raises:
        DatasetError: The data set names other classes than the network has, a file is bad
            (see :func:`edgeseg.data.folders.load_sample`), or no pixel carries a label.
        InferenceError: The engine failed.
    """
    check_classes(engine, split)
    return score(engine, (read(sample, engine) for sample in track(split, "evaluate", len(split))))


def score(engine: Engine, pictures: Iterable[Labelled]) -> Evaluation:
    """:func:`evaluate` for pictures that are in memory."""
    classes = engine.card.classes
    confusion = ConfusionMatrix(len(classes), classes.ignore)
    images = 0
    for image, mask in pictures:
        confusion.update(mask, engine.segment(image))
        images += 1
    if not confusion.matrix.any():
        raise DatasetError(
            f"{images} pictures were compared and no pixel of their masks carries a label",
            mend=f"label some pixels with a class instead of {classes.ignore} (ignore)",
        )
    ious = [None if math.isnan(iou) else float(iou) for iou in confusion.per_class_iou]
    return Evaluation(
        mean_iou=confusion.mean_iou,
        pixel_accuracy=confusion.pixel_accuracy,
        mean_accuracy=confusion.mean_accuracy,
        frequency_weighted_iou=confusion.frequency_weighted_iou,
        per_class=tuple(zip(classes.names, ious, strict=True)),
        images=images,
    )


def read(sample: Sample, engine: Engine) -> Labelled:
    """A picture and its mask in the classes of the network."""
    return load_sample(sample, engine.card.classes)


def check_classes(engine: Engine, split: Split) -> None:
    """Refuse a data set whose ids mean something else than the network's.

    Names that were made up from mask values are no evidence and are not compared.
    """
    if split.declared and split.classes.names != engine.card.classes.names:
        raise DatasetError(
            f"{split.root / 'classes.json'}: expected the classes of {engine.path.name} "
            f"({', '.join(engine.card.classes.names)}), found {', '.join(split.classes.names)}",
            mend="evaluate on the data set that the network was trained for",
        )


def agreement(reference: Engine, candidate: Engine, images: Iterable[NDArray[np.uint8]]) -> float:
    """Share of pixels, at the network's size, to which both engines give the same class.

    Args:
        reference: The engine to be matched.
        candidate: Its twin in another runtime or precision, with the same ``InputSpec``.
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
        tensor = preprocess(image, spec)[np.newaxis]
        labels = reference.infer(tensor).copy()
        equal += int(np.count_nonzero(labels == candidate.infer(tensor)))
        total += labels.size
    if not total:
        raise UsageError("no picture to compare the engines on")
    return equal / total
