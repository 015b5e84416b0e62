"""Figures of a trained network on held-out pictures, all from one pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.folders import Split, load_instances, load_sample
from edgeseg.metrics import ConfusionMatrix, boundary_band
from edgeseg.objects import ObjectScores, predicted_objects, score_objects

if TYPE_CHECKING:
    from edgeseg.engines.base import Engine

RADII = (1, 2, 4, 8, 16)
"""Half widths of the bands around borders, pixels of the mask."""
NARROW = 4
"""The band of ``border_accuracy`` and ``border_mean_iou``."""


def measure(engine: Engine, split: Split, radii: Sequence[int] = RADII) -> dict[str, Any]:
    """Segment each picture and compare, as ``edgeseg eval`` does, and along borders too.

    Returns:
        ``mean_iou pixel_accuracy mean_accuracy`` over all pixels, ``per_class`` (name → IoU),
        ``border_accuracy border_mean_iou`` within ``NARROW`` pixels of a border, and ``bands``
        (radius → pixel accuracy); where the split has instances also ``f1 precision recall``,
        ``merges splits count_error truths``.
    """
    classes = engine.card.classes
    whole = ConfusionMatrix(len(classes), classes.ignore)
    bands = {r: ConfusionMatrix(len(classes), classes.ignore) for r in {*radii, NARROW}}
    objects = ObjectScores()
    with_objects = all(sample.instances is not None for sample in split)
    for sample in split:
        image, mask = load_sample(sample, classes)
        labels = engine.segment(image)
        whole.update(mask, labels)
        for radius, band in bands.items():
            band.update(boundary_band(mask, radius, classes.ignore), labels)
        if with_objects:
            objects += score_objects(load_instances(sample), predicted_objects(labels, classes))
    figures: dict[str, Any] = {
        "mean_iou": whole.mean_iou,
        "pixel_accuracy": whole.pixel_accuracy,
        "mean_accuracy": whole.mean_accuracy,
        "per_class": _by_name(classes, whole.per_class_iou),
        "border_accuracy": bands[NARROW].pixel_accuracy,
        "border_mean_iou": bands[NARROW].mean_iou,
        "bands": {str(radius): band.pixel_accuracy for radius, band in sorted(bands.items())},
    }
    return figures | (_of_objects(objects) if with_objects else {})


def _of_objects(scores: ObjectScores) -> dict[str, Any]:
    found = scores.to_dict()
    names = ("f1", "precision", "recall", "merges", "splits", "count_error", "truths")
    return {name: found[name] for name in names}


def _by_name(classes: ClassMap, ious: NDArray[np.float64]) -> dict[str, float | None]:
    values = (None if np.isnan(iou) else float(iou) for iou in ious)
    return dict(zip(classes.names, values, strict=True))
