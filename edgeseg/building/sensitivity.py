"""Measure the loss of each layer in reduced precision, by the same recipe as ``build``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.evidence import gate_pictures, read_evidence
from edgeseg.building.fp32 import read_fp32
from edgeseg.building.recipe import read_recipe
from edgeseg.building.trials import Trials
from edgeseg.console import Track, silent
from edgeseg.errors import UsageError
from edgeseg.options.building import BuildConfig
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.sensitivity import LayerCost, Metric


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of a network's layers, the most harmful first; shares are fractions of 1.

    Attributes:
        network: The FP32 network.
        precision: Precision that the layers are reduced to.
        form: Runtime of the graph: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        judged_on: The runtime that computed the labels.
        metric: ``mean_iou`` on labelled pictures, else ``pixel_agreement``.
        reference: The metric of FP32.
        all_reduced: The metric with all of these layers reduced.
    """

    network: str
    precision: Precision
    form: GraphFormat
    judged_on: str
    metric: Metric
    images: int
    reference: float
    all_reduced: float
    layers: tuple[LayerCost, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return asdict(self) | {"layers": [layer.to_dict() for layer in self.layers]}


def measure_sensitivity(
    config: BuildConfig, *, pictures: int = 32, reverse: bool = False, track: Track = silent
) -> Sensitivity:
    """Reduce each layer alone and compare with FP32; writes nothing.

    Args:
        config: Network, precision, runtime, kept nodes and labelled pictures, as for ``build``.
        pictures: Number of pictures to use from ``--data``, or else from the calibration set.
        reverse: Also measure the loss with all layers but one reduced.

    Raises:
        UsageError: The precision is FP32, or there are no pictures or ranges.
        ArtifactError: Network, ranges or pictures are damaged or do not match.
        InferenceError: An engine failed.
    """
    if config.precision == "fp32":
        raise UsageError("FP32 costs nothing; expected --precision int8 or fp16")
    network = read_fp32(config.onnx)
    evidence = read_evidence(network, config)
    chosen = gate_pictures(config, evidence)
    if not len(chosen):
        raise UsageError(
            "the sensitivity of layers is measured on pictures, and there are none",
            hint="give labelled ones with --data, or calibrate first",
        )
    form: GraphFormat = "onnxruntime"
    if config.runtime in ("tensorrt", "tensorrt-rtx"):
        form = "tensorrt"
    elif config.runtime == "openvino":
        form = "openvino"
    recipe = read_recipe(network, config, form, evidence, track)
    with (
        workshop(network.path.parent) as temporary,
        Trials(network, config, chosen, temporary, track) as trials,
    ):
        probe = trials.probe(pictures)
        with trials.running(recipe, recipe.make()) as engine:
            judged_on, reduced = engine.runtime, probe.value(engine)
        layers = trials.ranker(recipe, probe).every_layer(reverse=reverse)
    return Sensitivity(
        network=str(network.path),
        precision=recipe.precision,
        form=form,
        judged_on=judged_on,
        metric=probe.metric,
        images=probe.images,
        reference=probe.reference,
        all_reduced=reduced,
        layers=layers,
    )
