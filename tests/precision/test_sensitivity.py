import itertools
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from cards import model_card
from graphs import onnx_network
from onnx import ModelProto, numpy_helper

from edgeseg.artifacts.files import write_atomic
from edgeseg.artifacts.sidecar import GateResult, WorstClass
from edgeseg.data.folders import read_split
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.precision.gate import enough_kept
from edgeseg.precision.graph import Work, serialize
from edgeseg.precision.sensitivity import LayerCost, Probe, Ranker, most_harmful_first


def cost(layer: str, change: float, error: float | None = None, loss: float = 0) -> LayerCost:
    return LayerCost(layer, change, loss, score_error=error, macs_share=0.1)


def refused(drop: float) -> GateResult:
    return GateResult(
        metric="mean_iou",
        reference=0.8,
        value=0.8 - drop,
        drop=drop,
        limit=0.01,
        passed=False,
        images=14,
        judged_on="onnxruntime",
    )


def test_changed_labels_count_first_and_the_error_of_the_scores_among_equals() -> None:
    expected = [
        cost("changes most, and gains", 0.03, 0.001, loss=-0.01),
        cost("changes less, and loses", 0.02, 0.9, loss=0.01),
        cost("equal, larger error", 0.001, 0.3),
        cost("equal, smaller error", 0.001004, 0.2),  # more by less than the step
        cost("equal, no scores", 0.001),
    ]
    for costs in itertools.permutations(expected):
        assert most_harmful_first(costs) == tuple(expected)


@pytest.mark.parametrize(
    ("drop", "changes", "count"),
    [
        (0.4, [0.4, *[0.001] * 60], 1),
        (0.1, [0.2, 0.2, 0.2, 0.01, 0.01], 3),
        (0.011, [0.2, 0.2, 0.2, 0.2], 1),
        (0.02, [0.2, 0.2, 0.2, 0.2], 3),  # half the loss is a quarter of the power
        (0.4, [0.2, 0.2], 1),  # one must be left to reduce
        (0.4, [0.2], 1),
    ],
)
def test_the_power_of_what_is_left_is_within_the_limit(
    drop: float, changes: list[float], count: int
) -> None:
    layers = [cost(str(place), change) for place, change in enumerate(changes)]
    assert enough_kept(refused(drop), layers) == [str(place) for place in range(count)]


@pytest.mark.parametrize(
    ("drop", "of_class", "count"),
    [(0.001, 0.2, 4), (0.001, 0.11, 1), (0.02, 0.11, 4), (0.011, 0.2, 4)],
)
def test_the_class_that_was_refused_counts_too(drop: float, of_class: float, count: int) -> None:
    """Half its loss is a quarter of the power, as with the mean; the stricter decides."""
    worst = WorstClass(
        name="pole", reference=0.8, value=0.8 - of_class, drop=of_class, limit=0.1,
        interval=(0.05, 0.3), pictures=14,
    )  # fmt: skip
    layers = [cost(str(place), 0.2) for place in range(5)]
    result = refused(drop).model_copy(update={"worst_class": worst})
    assert len(enough_kept(result, layers)) == count
    chance = worst.model_copy(update={"interval": (-0.1, 0.5)})
    by_chance = refused(0.011).model_copy(update={"worst_class": chance})
    assert len(enough_kept(by_chance, layers)) == 1


CARD = model_card(("background", "nucleus"), 64, 64, name="shade", arch="shade")
SHIFTS = {"lucky": np.float32(0.3), "unlucky": np.float32(-0.01)}
"""What reducing a layer adds to the shade; the threshold is too high, so more is better."""


@pytest.fixture
def shade() -> ModelProto:
    """Bright pixels are nuclei, those above -1 of the mean colour, which misses many."""
    return onnx_network(
        "float[1,3,64,64] image",
        "uint8[1,64,64] labels",
        """
        lucky = Conv (image, mean, offset_lucky)
        unlucky = Conv (lucky, one, offset_unlucky)
        scores = Conv (unlucky, head, threshold)
        argmax = ArgMax <axis=1, keepdims=0> (scores)
        labels = Cast <to=2> (argmax)
        """,
        card=CARD,
        mean=np.full((1, 3, 1, 1), 1 / 3, np.float32),
        one=np.ones((1, 1, 1, 1), np.float32),
        head=np.array([[0], [1]], np.float32).reshape(2, 1, 1, 1),
        offset_lucky=np.zeros(1, np.float32),
        offset_unlucky=np.zeros(1, np.float32),
        threshold=np.array([0, 1.0], np.float32),
    )


def test_a_layer_that_gains_by_luck_is_the_most_harmful(
    shade: ModelProto, nuclei: Path, tmp_path: Path
) -> None:
    """Its labels and scores change much; on other pictures that may be a loss."""

    def saved(model: ModelProto) -> OnnxRuntimeEngine:
        path = tmp_path / "model.onnx"
        write_atomic(path, serialize(model))
        return OnnxRuntimeEngine(path)

    def make(kept: Collection[str]) -> ModelProto:
        made = ModelProto()
        made.CopyFrom(shade)
        for weight in made.graph.initializer:
            layer = weight.name.removeprefix("offset_")
            if layer in SHIFTS and layer not in kept:
                offset = numpy_helper.to_array(weight) + SHIFTS[layer]
                weight.CopyFrom(numpy_helper.from_array(offset, weight.name))
        return made

    layers = [Work(name, 1, 1, "int8") for name in SHIFTS]
    with saved(shade) as reference:
        probe = Probe(reference, shade, read_split(nuclei, "val"), 8)
    lucky, unlucky = Ranker(probe, layers, make, saved).every_layer()
    assert (lucky.layer, unlucky.layer) == ("lucky", "unlucky")
    assert lucky.loss < -0.01 < 0.0001 < unlucky.loss
    assert lucky.score_error is not None
    assert unlucky.score_error is not None
    assert lucky.score_error > 10 * unlucky.score_error > 0
    for layer in (lucky, unlucky):  # The Jaccard distance is a metric.
        assert abs(layer.loss) <= layer.change
    assert enough_kept(refused(0.1), [lucky, unlucky]) == ["lucky"]
