"""Find the preprocessing of a network on labelled pictures.

Most losses of mean IoU after a conversion come from pictures that are fed otherwise than in
training. Here orders of channels, normalisations, resize rules and orders of classes are tried,
and ranked by mean IoU. Two combinations differ where the interval of their difference, by a
paired bootstrap over pictures, leaves zero out; where it does not, the pictures cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, Color, Resize
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_sample, warn_of_levels
from edgeseg.errors import DatasetError
from edgeseg.importing.inputs import PictureInput
from edgeseg.importing.options import IMAGENET, NONE, UNIT, Normalise, input_spec
from edgeseg.metrics import Bootstrap, ConfusionMatrix
from edgeseg.ops.preprocess import preprocess, restore_labels

Part = Literal["color", "normalise", "resize", "order"]
PARTS: tuple[Part, ...] = ("color", "normalise", "resize", "order")

PICTURES = 24
"""Largest number of pictures that are tried."""

_FIRST = 6  # pictures on which all combinations are tried, before the best on all
_KEPT = 8
_PLAN = Bootstrap()
# (-1…1), (-½…½), and Caffe's means in grey levels. ImageNet's and Caffe's are tried in both orders
# on both orders of channels: code that reads pictures with OpenCV often crosses them, and grey
# pictures tell the order of the means, not that of the channels.
_HALF = Normalise("0.5/0.5", 1 / 255, (0.5,), (0.5,))
_CENTRED = Normalise("0.5/1", 1 / 255, (0.5,), (1.0,))
_CAFFE = Normalise("123.68,116.779,103.939/1,1,1", 1.0, (123.68, 116.779, 103.939), (1.0,) * 3)
_CAFFE_BGR = Normalise("103.939,116.779,123.68/1,1,1", 1.0, _CAFFE.mean[::-1], _CAFFE.std)
_CROSSED = Normalise(
    "0.406,0.456,0.485/0.225,0.224,0.229", 1 / 255, IMAGENET.mean[::-1], IMAGENET.std[::-1]
)
_CROSSED_BGR = replace(IMAGENET, name="0.485,0.456,0.406/0.229,0.224,0.225")


@dataclass(frozen=True)
class Combination:
    """One way to feed a network; ``order`` is the class of each label, None as they are."""

    color: Color
    normalise: Normalise
    resize: Resize
    order: tuple[int, ...] | None = None

    def differs(self, other: Combination) -> tuple[Part, ...]:
        """Parts in which two combinations differ."""
        return tuple(part for part in PARTS if getattr(self, part) != getattr(other, part))


@dataclass(frozen=True)
class Ranking:
    """Combinations that were tried.

    Attributes:
        scores: Mean IoU of each, the best first.
        samples: Mean IoU of each on every resample of the pictures; empty for one picture.
        pictures: Number of pictures.
        tried: Number of combinations before the best were tried on all pictures.
    """

    scores: dict[Combination, float]
    samples: dict[Combination, NDArray[np.float64]]
    pictures: int
    tried: int

    @property
    def best(self) -> Combination:
        """The combination of the highest mean IoU."""
        return next(iter(self.scores))

    def ahead(self, one: Combination, other: Combination) -> tuple[float, float]:
        """Interval of what ``one`` is better by, in mean IoU."""
        if self.pictures < 2:
            return -1.0, 1.0
        return _PLAN.interval(self.samples[one] - self.samples[other], self.pictures)

    def clearly_better(self, one: Combination, other: Combination) -> bool:
        """Whether ``one`` is better by more than chance."""
        return self.ahead(one, other)[0] > 0


def combinations(picture: PictureInput, likely: Combination) -> list[Combination]:
    """All combinations that are worth a trial; ``likely`` comes first."""
    colors: tuple[Color, ...] = ("gray",) if picture.channels == 1 else ("rgb", "bgr")
    rules: tuple[Resize, ...] = ("stretch", "letterbox")
    made = [
        Combination(color, normalise, rule)
        for color in colors
        for normalise in (*_normalises(picture, color), likely.normalise)
        for rule in rules
    ]
    different: list[Combination] = [likely]
    for each in made:
        if not any(_same(each, other) for other in different):
            different.append(each)
    return different


def _normalises(picture: PictureInput, color: Color) -> tuple[Normalise, ...]:
    if picture.dtype == "uint8":
        return (NONE,)
    common = (UNIT, NONE, _HALF, _CENTRED)
    if color == "gray":
        return common
    crossed = _CROSSED if color == "rgb" else _CROSSED_BGR
    return (IMAGENET, *common, _CAFFE, _CAFFE_BGR, crossed)


def _same(one: Combination, other: Combination) -> bool:
    """Whether two combinations feed the same numbers, however their normalisation is written."""
    if one.color != other.color or one.resize != other.resize:
        return False
    ours, theirs = one.normalise.affine(one.color), other.normalise.affine(other.color)
    return np.allclose(ours, theirs, rtol=5e-3, atol=1e-6)


def find(
    session: Any,
    choices: Sequence[Combination],
    size: tuple[int, int],
    classes: ClassMap,
    split: Split,
    track: Track = silent,
) -> Ranking:
    """Try combinations on labelled pictures.

    Args:
        session: The wrapped graph in ONNX Runtime: float32 pictures to uint8 labels.
        choices: Combinations; the first is always kept.
        size: (height, width) of the network.
        classes: Classes of the network.
        split: Labelled pictures.
        track: Progress.

    Raises:
        DatasetError: The data set has other classes, or a file is damaged.
    """
    split = _numbered(split, classes)
    trying = _Trying(session, size, classes)
    samples = [split.samples[i] for i in _spread(len(split), PICTURES)]
    pairs = [load_sample(sample, classes) for sample in samples]
    ids = [np.bincount(mask.ravel(), minlength=256) for _, mask in pairs]
    warn_of_levels(split, np.sum(ids, axis=0))
    first = [pairs[i] for i in _spread(len(pairs), _FIRST)]
    counts = {c: trying.count(c, first) for c in track(choices, "try combinations", len(choices))}
    if len(pairs) > len(first):
        ranked = sorted(choices, key=lambda c: -_best_order(counts[c])[0])[:_KEPT]
        kept = list(dict.fromkeys([choices[0], *ranked]))
        counts = {c: trying.count(c, pairs) for c in track(kept, "try the best", len(kept))}
    return _findings(counts, len(choices))


def _numbered(split: Split, classes: ClassMap) -> Split:
    """The split with the ids of the network."""
    split = split.numbered_as(classes)
    if split.declared and split.classes.names != classes.names:
        raise DatasetError(
            f"{split.root / 'classes.json'}: expected the classes of the network "
            f"({', '.join(classes.names)}), found {', '.join(split.classes.names)}",
            hint="name the same classes with --classes, or omit --data",
        )
    return split


def _spread(total: int, most: int) -> list[int]:
    """Evenly spread indices, at most ``most`` of ``total``."""
    count = min(total, most)
    return [place * total // count for place in range(count)] if count else []


class _Trying:
    """Confusion matrices of combinations."""

    def __init__(self, session: Any, size: tuple[int, int], classes: ClassMap) -> None:
        self._session = session
        self._size, self._classes = size, classes

    def count(
        self, choice: Combination, pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    ) -> NDArray[np.int64]:
        """(pictures, classes, classes): true by predicted class."""
        spec = input_spec(self._size, choice.color, choice.normalise, choice.resize)
        found = []
        for image, mask in pairs:
            (labels,) = self._session.run(None, {"image": preprocess(image, spec)[np.newaxis]})
            matrix = ConfusionMatrix(len(self._classes), self._classes.ignore)
            matrix.update(mask, restore_labels(labels[0], image.shape[:2], spec))
            found.append(matrix.matrix)
        return np.stack(found)


def mean_ious(matrices: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU of confusion matrices (…, K, K), over the classes that occur in each."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)
    union = matrices.sum(-1) + matrices.sum(-2) - hits
    ious = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    return np.asarray(ious.sum(-1) / np.maximum((union > 0).sum(-1), 1), np.float64)


def _best_order(counts: NDArray[np.int64]) -> tuple[float, tuple[int, ...] | None]:
    """Mean IoU with the order of classes that fits best, and that order; None as they are."""
    total = counts.sum(0)
    plain = float(mean_ious(total))
    order = _matched(total)
    permuted = float(mean_ious(total[:, np.argsort(order)]))
    return (permuted, order) if permuted > plain + 1e-9 else (plain, None)


def _matched(total: NDArray[np.int64]) -> tuple[int, ...]:
    """The class for each label, greedily by IoU."""
    hits = total.astype(np.float64)
    union = total.sum(1)[:, None] + total.sum(0)[None, :] - hits
    ious = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    order = [-1] * len(total)
    free = set(range(len(total)))
    for place in np.argsort(-ious, axis=None, kind="stable"):
        true, label = divmod(int(place), len(total))
        if order[label] < 0 and true in free and ious[true, label] > 0:
            order[label] = true
            free.remove(true)
    for label, true in enumerate(order):  # labels that fit nothing keep their class if it is free
        if true < 0:
            order[label] = label if label in free else min(free)
            free.remove(order[label])
    return tuple(order)


def _ways(counts: dict[Combination, NDArray[np.int64]]) -> dict[Combination, NDArray[np.int64]]:
    """Confusion matrices of all combinations, and of their best orders of classes."""
    ways: dict[Combination, NDArray[np.int64]] = {}
    for choice, matrices in counts.items():
        ways[choice] = matrices
        order = _best_order(matrices)[1]
        if order is not None:
            ways[replace(choice, order=order)] = matrices[:, :, np.argsort(order)]
    return ways


def _findings(counts: dict[Combination, NDArray[np.int64]], tried: int) -> Ranking:
    ways = _ways(counts)
    plain = {choice: float(mean_ious(matrices.sum(0))) for choice, matrices in ways.items()}
    # Of equal ones, the likely one comes first, and one that leaves the classes as they are.
    ranked = sorted(ways, key=lambda each: (-plain[each], each.order is not None))
    scores = {choice: plain[choice] for choice in ranked}
    pictures = len(next(iter(ways.values())))
    if pictures < 2:
        return Ranking(scores, {}, pictures, tried)
    draws = _PLAN.draw(pictures)
    samples = {c: mean_ious(np.einsum("rn,nij->rij", draws, m)) for c, m in ways.items()}
    return Ranking(scores, samples, pictures, tried)
