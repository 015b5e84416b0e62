"""Layer sensitivity: the accuracy lost by reducing the precision of one layer at a time.

For each layer a graph with only this layer reduced is compared with FP32 on a few pictures. The
share of labels that it changes is its harm, whether mean IoU falls or rises: on so few pictures
wrong labels are often right by luck, and other pictures would not have that luck. A class's Jaccard
distance from FP32's labels is a metric, so its IoU on any masks cannot fall by more. Ties are
broken by the error of the scores in front of the argmax.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgeseg.console import Item, Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.data.selection import spread
from edgeseg.engines.base import Engine
from edgeseg.engines.scores import argmax_input, scores_session
from edgeseg.errors import UsageError
from edgeseg.evaluation import Labelled, Scores, numbered_for, read, score
from edgeseg.ops.preprocess import preprocess_tile
from edgeseg.precision.graph import Work

SCORED = 4
"""Number of pictures on which the error of the scores is measured, over all pixels."""

ALONE = 24
"""Largest number of layers that are measured alone when a build is rejected."""

_STEP = 1e-4
"""Changes within a hundredth of a point are ties, which the error of the scores breaks."""

Make = Callable[[Collection[str]], ModelProto]
"""Given the names of layers to keep in FP32, returns the network with all others reduced."""

Run = Callable[[ModelProto], AbstractContextManager[Engine]]
"""Given a network, opens an engine that runs it."""

Metric = Literal["mean_iou", "pixel_agreement"]


@dataclass(frozen=True)
class LayerCost:
    """Cost of reducing one layer; shares are fractions of 1.

    Attributes:
        change: One minus mean IoU with FP32's labels as the truth, or the share of pixels that
            change, if only this layer is reduced.
        loss: Mean IoU lost, negative if it rises; without labels the same as ``change``.
        score_error: Root mean square error of the scores relative to their magnitude, with each
            pixel's mean over the classes subtracted; None if the graph has no argmax.
        macs_share: Share of the network's multiply-accumulates in this layer.
        loss_of_others: Like ``loss``, but with all layers except this one reduced.
    """

    layer: str
    change: float
    loss: float
    score_error: float | None
    macs_share: float
    loss_of_others: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return asdict(self)


class Probe:
    """A few pictures with the results of FP32, to compare graphs of reduced precision with.

    Args:
        reference: The FP32 engine, used only during construction.
        model: The graph of ``reference``.
        pictures: A labelled split, or paths of pictures.
        count: Number of pictures to use, spread over all.

    Raises:
        UsageError: There are no pictures.
        DatasetError: A picture or mask cannot be read.
    """

    def __init__(
        self, reference: Engine, model: ModelProto, pictures: Split | Sequence[Path], count: int
    ) -> None:
        if not len(pictures):
            raise UsageError("sensitivity needs at least one picture")
        self.metric: Metric = "mean_iou" if isinstance(pictures, Split) else "pixel_agreement"
        self._labelled = _few(reference, pictures, count)
        self._spec = reference.card.input
        if self.metric == "pixel_agreement":
            # Without labels, FP32's label maps at the network's own size are the truth.
            self._labelled = [(i, self._labels(reference, i)) for i, _ in self._labelled]
        self.images = len(self._labelled)
        self.reference = self._value(reference)
        self._before = [] if self.metric == "pixel_agreement" else self._fp32(reference)
        self._scores = [] if argmax_input(model) is None else self._scores_of(model)

    def value(self, engine: Engine) -> float:
        """Mean IoU of ``engine``, or the share of its pixels labelled as by FP32."""
        return self._value(engine)

    def loss(self, engine: Engine) -> float:
        """Loss of ``engine`` compared with FP32."""
        return self.change_and_loss(engine)[1]

    def change_and_loss(self, engine: Engine) -> tuple[float, float]:
        """Change of labels and loss of ``engine``; see :class:`LayerCost`."""
        if self.metric == "pixel_agreement":
            changed = self.reference - self._value(engine)
            return changed, changed
        found, same = Scores(engine.card.classes), Scores(engine.card.classes)
        for (image, mask), before in zip(self._labelled, self._before, strict=True):
            labels = engine.segment(image)
            found.add(mask, labels)
            same.add(before, labels)
        return 1 - same.evaluation().mean_iou, self.reference - found.evaluation().mean_iou

    def score_error(self, model: ModelProto) -> float | None:
        """Relative error of the scores; see :class:`LayerCost`."""
        if not self._scores:
            return None
        error = size = 0.0
        for true, found in zip(self._scores, self._scores_of(model), strict=True):
            error += float(np.square(true - found, dtype=np.float64).sum())
            size += float(np.square(true, dtype=np.float64).sum())
        return float(np.sqrt(error / size)) if size and np.isfinite(error) else float(error > 0)

    def _value(self, engine: Engine) -> float:
        if self.metric == "mean_iou":
            return score(engine, self._labelled).mean_iou
        equal = [np.mean(truth == self._labels(engine, i)) for i, truth in self._labelled]
        return float(np.mean(equal))

    def _fp32(self, reference: Engine) -> list[NDArray[np.uint8]]:
        """Labels at the masks' size, without the pixels that these ignore."""
        ignore = np.uint8(reference.card.classes.ignore)
        return [
            np.where(mask == ignore, ignore, reference.segment(image))
            for image, mask in self._labelled
        ]

    def _labels(self, engine: Engine, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        labels: NDArray[np.uint8] = engine.infer(preprocess_tile(image, self._spec)[np.newaxis])[0]
        return labels.copy()

    def _scores_of(self, model: ModelProto) -> list[NDArray[np.float32]]:
        session = scores_session(model)
        name = session.get_inputs()[0].name
        found = []
        for image, _ in self._labelled[:SCORED]:
            (scores,) = session.run(None, {name: preprocess_tile(image, self._spec)[np.newaxis]})
            scores = scores.astype(np.float32)
            # A shift that all classes share does not change the argmax.
            found.append(scores - scores.mean(axis=1, keepdims=True))
        return found


@dataclass(frozen=True)
class Ranker:
    """Ranks layers by what reducing each costs, the most harmful first.

    Its methods raise InferenceError where an engine fails.

    Attributes:
        probe: Pictures with FP32's answers.
        layers: The layers that can be reduced, with their work, in the order of the graph.
        make: Makes a graph with given layers kept.
        run: Opens an engine for a graph.
        track: Shows progress, one step per graph.
    """

    probe: Probe
    layers: Sequence[Work]
    make: Make
    run: Run
    track: Track = silent

    def every_layer(self, *, reverse: bool = False) -> tuple[LayerCost, ...]:
        """Measure each layer alone; with ``reverse`` also all layers but one."""
        costs = self._alone(self.layers)
        if reverse and len(costs) > 1:
            for place, layer in enumerate(self._tracked(self.layers, "all but one")):
                with self.run(self.make([layer.node])) as engine:
                    costs[place] = replace(costs[place], loss_of_others=self.probe.loss(engine))
        return most_harmful_first(costs)

    def suspects(self) -> tuple[LayerCost, ...]:
        """Measure only the layers that are likely to be the most harmful.

        In a network of more than :data:`ALONE` layers, groups of neighbours are measured first,
        then each layer of those that cost most, until there are :data:`ALONE`.
        """
        if len(self.layers) <= ALONE:
            return self.every_layer()
        step = math.isqrt(len(self.layers))
        groups = [self.layers[start : start + step] for start in range(0, len(self.layers), step)]
        costs = [self._cost(group) for group in self._tracked(groups, "groups of layers")]
        worst = sorted(range(len(groups)), key=lambda place: _harm(costs[place]), reverse=True)
        chosen = itertools.chain.from_iterable(groups[place] for place in worst)
        return most_harmful_first(self._alone(list(itertools.islice(chosen, ALONE))))

    def _alone(self, layers: Sequence[Work]) -> list[LayerCost]:
        return [self._cost([layer]) for layer in self._tracked(layers, "layers alone")]

    def _cost(self, reduced: Sequence[Work]) -> LayerCost:
        """Cost of reducing these layers and no others, under the name of the first."""
        names = {layer.node for layer in reduced}
        model = self.make([layer.node for layer in self.layers if layer.node not in names])
        with self.run(model) as engine:
            change, loss = self.probe.change_and_loss(engine)
        total = sum(layer.macs for layer in self.layers) or 1
        share = sum(layer.macs for layer in reduced) / total
        return LayerCost(reduced[0].node, change, loss, self.probe.score_error(model), share)

    def _tracked(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        return self.track(items, description, len(items))


def most_harmful_first(costs: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    """Sort by the change of labels, to 0.01 points, then by the error of the scores."""
    return tuple(sorted(costs, key=_harm, reverse=True))


def _harm(cost: LayerCost) -> tuple[int, float]:
    return round(cost.change / _STEP), cost.score_error or 0.0


def _few(reference: Engine, pictures: Split | Sequence[Path], count: int) -> list[Labelled]:
    chosen = spread(len(pictures), count, seed=0)
    if isinstance(pictures, Split):
        pictures = numbered_for(reference, pictures)
        return [read(pictures.samples[index], reference) for index in chosen]
    empty = np.zeros((0, 0), np.uint8)
    return [(load_image(pictures[index]), empty) for index in chosen]
