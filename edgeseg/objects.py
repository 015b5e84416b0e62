"""Object-level metrics: which objects were found, missed, merged or split.

Objects are the connected components of the class that is not the background. Of a picture's true
and predicted objects, two match where their intersection over union reaches a threshold of at
least one half; above it a match is unique, since objects do not overlap (Kirillov et al.,
"Panoptic Segmentation", CVPR 2019, section 4.1). Precision, recall and F1 follow Caicedo et al.,
"Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl" (Nature Methods 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import UsageError

_RIM = 2
_SPECK = 0.1


@dataclass(frozen=True)
class ObjectScores:
    """Object counts and scores; those of several pictures can be added.

    Attributes:
        matches: Number of one-to-one pairs of a true and a predicted object.
        matched_iou: Sum of the IoU of those pairs.
        merges: Number of predictions that cover more than half of each of two or more true objects.
        splits: Number of true objects that contain more than half of each of two or more
            predictions.
        miscounted: Sum over pictures of ``|predictions - truths|``.
        threshold: Minimum IoU of a matching pair.
    """

    pictures: int = 0
    truths: int = 0
    predictions: int = 0
    matches: int = 0
    matched_iou: float = 0.0
    merges: int = 0
    splits: int = 0
    miscounted: int = 0
    threshold: float = 0.5

    def __add__(self, other: ObjectScores) -> ObjectScores:
        if self.threshold != other.threshold:
            raise UsageError(
                f"scores of matching at {self.threshold} and at {other.threshold} do not add up"
            )
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return ObjectScores(**(sums | {"threshold": self.threshold}))

    @property
    def precision(self) -> float | None:
        """Fraction of predictions that match; None if there are none."""
        return _share(self.matches, self.predictions)

    @property
    def recall(self) -> float | None:
        """Fraction of true objects that match; None if there are none."""
        return _share(self.matches, self.truths)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if there are no objects at all."""
        return _share(2 * self.matches, self.truths + self.predictions)

    @property
    def mean_matched_iou(self) -> float | None:
        """Mean IoU of the matching pairs."""
        return _share(self.matched_iou, self.matches)

    @property
    def count_error(self) -> float | None:
        """Mean over pictures of ``|predictions - truths|``, in objects."""
        return _share(self.miscounted, self.pictures)

    @property
    def count_bias(self) -> float | None:
        """Mean over pictures of ``predictions - truths``, in objects."""
        return _share(self.predictions - self.truths, self.pictures)

    def to_dict(self) -> dict[str, int | float | None]:
        """Return counts and scores as JSON types."""
        names = (
            *("threshold", "truths", "predictions", "matches", "precision", "recall", "f1"),
            *("mean_matched_iou", "count_error", "count_bias", "merges", "splits"),
        )
        return {name: getattr(self, name) for name in names}


def score_objects(
    truth_ids: NDArray[np.integer], predicted_ids: NDArray[np.integer], threshold: float = 0.5
) -> ObjectScores:
    """Compare the objects of one picture.

    At exactly one half a true object can meet two predictions that are its halves, or the
    reverse; then one of the two counts as the match, which is the most that any assignment
    can reach.

    Args:
        truth_ids: Object ids, integers (H, W); 0 is the background. Objects need not be connected.
        predicted_ids: Predicted object ids, integers (H, W), e.g. from :func:`components`.
        threshold: Minimum IoU of a match, 0.5…1.

    Raises:
        UsageError: Shapes differ, an id is negative, or the threshold allows two matches.
    """
    _check(truth_ids, predicted_ids, threshold)
    overlap = _Overlap.of(truth_ids, predicted_ids)
    matched = overlap.iou[_matching(overlap, threshold)]
    # No two predictions can each hold more than half of one object, so it is covered once.
    covered = overlap.predictions[2 * overlap.pixels > overlap.truth_area]
    inside = overlap.truths[2 * overlap.pixels > overlap.predicted_area]
    return ObjectScores(
        pictures=1,
        truths=overlap.truth_count,
        predictions=overlap.predicted_count,
        matches=matched.size,
        matched_iou=float(matched.sum()),
        merges=_repeated(covered),
        splits=_repeated(inside),
        miscounted=abs(overlap.predicted_count - overlap.truth_count),
        threshold=threshold,
    )


def components(labels: NDArray[np.uint8], class_id: int = 1) -> NDArray[np.int32]:
    """Label the connected components of one class (8-connected).

    Args:
        labels: uint8 (H, W), class ids.

    Returns:
        int32 (H, W): 0 for all other classes, 1… for the components.
    """
    _, ids = cv2.connectedComponents((labels == class_id).astype(np.uint8), connectivity=8)
    return np.asarray(ids, np.int32)


def predicted_objects(labels: NDArray[np.uint8], classes: ClassMap) -> NDArray[np.int32]:
    """Label the objects in a label map: components of their class, plus their boundary pixels.

    If the third class is ``boundary``, its pixels are the rims of objects, and the components of
    the object class are their insides. A watershed of the distance to the rim (Vincent and Soille
    1991) parts insides that a bridge joins: its seeds are the pixels that are more than half as
    far from the rim as the deepest pixel of their component, and the other pixels of the component
    join the nearest. Insides of less than a tenth of the median area in the picture are specks
    and make no object. The rims join the nearest object that they are connected to; those that
    are connected to none are ignored.

    Args:
        labels: uint8 (H, W), class ids.
        classes: Classes for which :func:`has_objects` is true.

    Returns:
        int32 (H, W), 0 for background and 1… for the objects.
    """
    inside = labels == classes.object_class
    if not classes.has_boundary or not inside.any():
        return components(labels, classes.object_class)
    # First within the insides, so that objects of any size keep their rims.
    ids = _without_specks(_grown(_seeds(inside), inside))
    return _grown(ids, inside | (labels == _RIM))


def _grown(ids: NDArray[np.int32], area: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Let objects grow over the pixels of ``area`` that are connected to them, each to the nearest.

    A pixel whose nearest object is not connected to it waits until one that is has come closer.
    """
    _, regions = cv2.connectedComponents((area | (ids > 0)).astype(np.uint8), connectivity=8)
    while True:
        objects = ids > 0
        rest = area & ~objects
        _, nearest = cv2.distanceTransformWithLabels(
            (~objects).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        # Each object pixel has a label of its own, which all pixels nearest to it share.
        source = np.zeros(int(nearest.max()) + 1, np.intp)
        source[nearest[objects]] = np.flatnonzero(objects)
        origin = source[nearest[rest]]
        joined = regions[rest] == regions.ravel()[origin]
        if not joined.any():
            return ids
        ids[rest] = np.where(joined, ids.ravel()[origin], 0)


def _seeds(inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the pixels more than half as far from the rim as the deepest of their component."""
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squared = np.rint(np.square(depth))  # a whole number, the same on every machine
    ids = components(inside.astype(np.uint8))
    deepest = np.zeros(int(ids.max()) + 1)
    np.maximum.at(deepest, ids[inside], squared[inside])
    return components((4 * squared > deepest[ids]).astype(np.uint8))


def _without_specks(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Remove objects of less than a tenth of the median area, and number the others again."""
    areas = np.bincount(ids.ravel())
    kept = areas >= _SPECK * np.median(areas[1:])
    kept[0] = False
    return np.asarray(np.where(kept, np.cumsum(kept), 0)[ids], np.int32)


def has_objects(classes: ClassMap) -> bool:
    """Whether the classes are background and one object class, possibly with its boundary."""
    return classes.background in (0, 1, None) and (len(classes) == 2 or classes.has_boundary)


@dataclass(frozen=True)
class _Overlap:
    """Each pair of a true and a predicted object that share pixels, and the sizes of both.

    The arrays run over the pairs.
    """

    truths: NDArray[np.int64]
    predictions: NDArray[np.int64]
    pixels: NDArray[np.int64]
    truth_area: NDArray[np.int64]
    predicted_area: NDArray[np.int64]
    truth_count: int
    predicted_count: int

    @classmethod
    def of(cls, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> _Overlap:
        anything = (truth > 0) | (prediction > 0)
        base = int(prediction.max(initial=0)) + 1
        joint = truth[anything].astype(np.int64) * base + prediction[anything]
        pairs, pixels = np.unique(joint, return_counts=True)
        truths, predictions = np.divmod(pairs, base)
        both = (truths > 0) & (predictions > 0)
        return cls(
            truths=truths[both],
            predictions=predictions[both],
            pixels=pixels[both],
            truth_area=_sums(truths, pixels)[both],
            predicted_area=_sums(predictions, pixels)[both],
            truth_count=np.unique(truths[truths > 0]).size,
            predicted_count=np.unique(predictions[predictions > 0]).size,
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each pair."""
        return self.pixels / (self.truth_area + self.predicted_area - self.pixels)


def _matching(overlap: _Overlap, threshold: float) -> NDArray[np.intp]:
    """Indices of the pairs that match, each object in one pair at most.

    At one half several pairs can share an object, but the objects on their other side are
    parts of it that meet nothing else: taking one pair of each such star is a maximum matching.
    """
    pairs = np.flatnonzero(overlap.iou >= threshold)
    pairs = pairs[np.unique(overlap.truths[pairs], return_index=True)[1]]
    return pairs[np.unique(overlap.predictions[pairs], return_index=True)[1]]


def _check(truth: NDArray[np.integer], prediction: NDArray[np.integer], threshold: float) -> None:
    if truth.shape != prediction.shape:
        raise UsageError(f"truth is {truth.shape}, prediction {prediction.shape}")
    for ids, what in ((truth, "truth"), (prediction, "prediction")):
        if not np.issubdtype(ids.dtype, np.integer):
            raise UsageError(f"object ids are integers, {what} is {ids.dtype}")
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= 2**31:
            raise UsageError(f"object ids are 0…2³¹-1, {what} holds {ids.min()}…{ids.max()}")
    if not 0.5 <= threshold <= 1:
        raise UsageError(f"objects match at an IoU of 0.5…1, not {threshold}: below, not uniquely")


def _sums(ids: NDArray[np.int64], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry, sum the pixels of all entries with the same id."""
    _, place = np.unique(ids, return_inverse=True)
    sums: NDArray[np.int64] = np.zeros(place.max(initial=0) + 1, np.int64)
    np.add.at(sums, place, pixels)
    return sums[place]


def _repeated(ids: NDArray[np.int64]) -> int:
    """Count the ids that occur more than once."""
    return int(np.count_nonzero(np.unique(ids, return_counts=True)[1] > 1))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
