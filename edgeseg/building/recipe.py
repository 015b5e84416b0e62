"""A repeatable recipe that turns an FP32 network into one of reduced precision.

The gate, the sensitivity of layers and the search for the fewest kept layers all make the same
network with different layers kept.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from edgeseg.artifacts.card import Precision
from edgeseg.building.evidence import Evidence, extremes
from edgeseg.building.fp32 import Fp32Network
from edgeseg.building.graph import (
    BuildOptions,
    RuntimeGraph,
    graph_name,
    require_precision,
    runtime_graph,
)
from edgeseg.console import Track
from edgeseg.engines.cpu import int8_saturates
from edgeseg.options.building import BuildConfig
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import Work, copy_of, work
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.overflow import overflowing
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.ranges import Ranges
from edgeseg.precision.runtime_limits import wrong_in_openvino

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrecisionRecipe:
    """Settings with which a network is reduced.

    Attributes:
        network: The FP32 network.
        precision: ``fp16`` or ``int8``, or ``fp32``, which leaves it as it is.
        graph_format: Runtime that the graph is made for.
        keep: Shell patterns of nodes to leave unchanged.
        quantise: Shell patterns of nodes to quantise although the policy keeps them.
        ranges: Activation ranges, for INT8.
        reduce_range: Use 7-bit weights for INT8.
        overflowing: Names of the nodes that would overflow in FP16.
    """

    network: Fp32Network
    precision: Precision
    graph_format: GraphFormat
    keep: tuple[str, ...] = ()
    quantise: tuple[str, ...] = ()
    ranges: Ranges | None = None
    reduce_range: bool = False
    overflowing: tuple[str, ...] = ()

    def make(self, also_kept: Collection[str] = ()) -> ModelProto:
        """Make the reduced network, without its card.

        ``also_kept`` holds node names, not patterns.

        Raises:
            UsageError: A pattern matches no node.
            MismatchedArtifact: Nothing is left to reduce, or a tensor has no range.
        """
        keep = (*self.keep, *exactly((*self.overflowing, *also_kept)))
        if self.precision == "fp32":
            return copy_of(self.network.model)
        if self.ranges is None:
            return to_fp16(self.network.model, keep)
        if self.graph_format == "openvino":
            keep += tuple(exactly(wrong_in_openvino(self.network.model)))
        return to_int8(
            self.network.model,
            self.ranges.ranges,
            graph_format=self.graph_format,
            keep=keep,
            quantise=self.quantise,
            reduce_range=self.reduce_range,
        )

    def graph(self, also_kept: Sequence[str] = ()) -> RuntimeGraph:
        """Like :meth:`make`, with its side-car; also raises if no layer is reduced."""
        options: BuildOptions = {}
        for key, names in (
            ("keep", self.keep),
            ("quantise", self.quantise),
            ("overflow", self.overflowing),
            ("auto_mixed", also_kept),
        ):
            if names:
                options[key] = " ".join(names)
        if self.ranges is not None:
            options["method"] = self.ranges.method
            if self.graph_format != "tensorrt":
                options["reduce_range"] = self.reduce_range
        set_sha256 = self.ranges.set_sha256 if self.ranges else None
        model = self.make(also_kept)
        made = runtime_graph(
            self.network, model, self.precision, self.graph_format, options, set_sha256
        )
        require_precision(made.sidecar.precision, self.precision)
        return made

    @property
    def name(self) -> str:
        """File name: ``model.fp16.onnx``, ``model.int8.openvino.onnx``, and so on."""
        return graph_name(self.network.path, self.precision, self.graph_format)

    def layers(self) -> tuple[Work, ...]:
        """The layers reduced if no others are kept, in the order of the graph."""
        return tuple(n for n in work(self.make()) if n.precision == self.precision)


def read_recipe(
    network: Fp32Network,
    config: BuildConfig,
    graph_format: GraphFormat,
    evidence: Evidence,
    track: Track,
) -> PrecisionRecipe:
    """Make the recipe for ``config``; for FP16 this checks for overflow.

    Raises:
        NonFiniteOutput: An activation of the FP32 network holds NaN or infinity.
    """
    if config.precision == "fp32":
        return PrecisionRecipe(network, "fp32", graph_format)
    if config.precision == "int8":
        narrow = int8_saturates() if config.reduce_range is None else config.reduce_range
        return PrecisionRecipe(
            network,
            "int8",
            graph_format,
            keep=config.keep,
            quantise=config.quantise,
            ranges=evidence.ranges,
            reduce_range=narrow and graph_format != "tensorrt",
        )
    found = _overflow(network, config, evidence, track)
    return PrecisionRecipe(
        network, config.precision, graph_format, keep=config.keep, overflowing=found
    )


def exactly(names: Collection[str]) -> list[str]:
    """Shell patterns that match exactly these names."""
    return [glob.escape(name) for name in names]


def _overflow(
    network: Fp32Network, config: BuildConfig, evidence: Evidence, track: Track
) -> tuple[str, ...]:
    reached = extremes(network, config, evidence, track)
    if reached is None:
        logger.warning(
            "activations beyond FP16 were NOT looked for: no pictures; give some with --data, "
            "or calibrate first"
        )
    found = overflowing(network.model, reached or {})
    for one in found:
        logger.warning(
            "%s stays in FP32: %r reaches %.4g, and FP16 ends at 65504",
            *(one.node, one.tensor, one.magnitude),
        )
    return tuple(one.node for one in found)
