"""Layer sensitivity: the accuracy lost by reducing the precision of one layer at a time.

For each layer a graph with only this layer reduced is compared with FP32 on a few pictures. Mean
IoU is coarse on so few; ties are broken by the error of the scores in front of the argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.data.selection import spread
from edgeseg.engines.base import Engine
from edgeseg.engines.scores import argmax_input, scores_session
from edgeseg.errors import UsageError
from edgeseg.evaluation import Labelled, numbered_for, read, score
from edgeseg.ops.preprocess import preprocess_tile
from edgeseg.precision.graph import Work

SCORED = 4
"""Number of pictures on which the error of the scores is measured, over all pixels."""

_STEP = 1e-4
"""Losses within a hundredth of a point are ties, which the error of the scores breaks."""

Make = Callable[[Collection[str]], ModelProto]
"""Given the names of layers to keep in FP32, returns the network with all others reduced."""

Run = Callable[[ModelProto], AbstractContextManager[Engine]]
"""Given a network, opens an engine that runs it."""

Metric = Literal["mean_iou", "pixel_agreement"]


@dataclass(frozen=True)
class LayerCost:
    """Cost of reducing one layer; shares are fractions of 1.

    Attributes:
        loss: Mean IoU lost, or share of pixels that change, if only this layer is reduced.
        score_error: Root mean square error of the scores relative to their magnitude, with each
            pixel's mean over the classes subtracted; None if the graph has no argmax.
        macs_share: Share of the network's multiply-accumulates in this layer.
        loss_of_others: Like ``loss``, but with all layers except this one reduced.
    """

    layer: str
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
        self._scores = [] if argmax_input(model) is None else self._scores_of(model)

    def value(self, engine: Engine) -> float:
        """Mean IoU of ``engine``, or the share of its pixels labelled as by FP32."""
        return self._value(engine)

    def loss(self, engine: Engine) -> float:
        """Loss of ``engine`` compared with FP32; NaN counts as a mean IoU of 0."""
        lost = self.reference - self._value(engine)
        return lost if np.isfinite(lost) else self.reference

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


def rank_layers(
    probe: Probe,
    layers: Sequence[Work],
    make: Make,
    run: Run,
    *,
    reverse: bool = False,
    track: Track = silent,
) -> tuple[LayerCost, ...]:
    """Measure each layer; return the most harmful first, ties in the order of the graph.

    Args:
        probe: Pictures with FP32's answers.
        layers: The layers that can be reduced, with their work.
        make: Makes a graph with given layers kept.
        run: Opens an engine for a graph.
        reverse: Also measure the loss with all layers but one reduced.
        track: Shows progress, one step per layer.

    Raises:
        InferenceError: An engine failed.
    """
    names = [layer.node for layer in layers]
    total = sum(layer.macs for layer in layers) or 1
    costs = []
    for layer in track(layers, "layers alone", len(layers)):
        model = make([name for name in names if name != layer.node])
        with run(model) as engine:
            loss = probe.loss(engine)
        error = probe.score_error(model)
        costs.append(LayerCost(layer.node, loss, error, layer.macs / total))
    if reverse:
        for place, layer in enumerate(track(layers, "all but one", len(layers))):
            if len(layers) > 1:
                with run(make([layer.node])) as engine:
                    costs[place] = replace(costs[place], loss_of_others=probe.loss(engine))
    return most_harmful_first(costs)


def most_harmful_first(costs: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    """Sort by loss, to 0.01 points, then by the error of the scores."""
    return tuple(
        sorted(
            costs,
            key=lambda cost: (round(cost.loss / _STEP), cost.score_error or 0.0),
            reverse=True,
        )
    )


def _few(reference: Engine, pictures: Split | Sequence[Path], count: int) -> list[Labelled]:
    chosen = spread(len(pictures), count, seed=0)
    if isinstance(pictures, Split):
        pictures = numbered_for(reference, pictures)
        return [read(pictures.samples[index], reference) for index in chosen]
    empty = np.zeros((0, 0), np.uint8)
    return [(load_image(pictures[index]), empty) for index in chosen]
