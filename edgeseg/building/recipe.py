"""A repeatable recipe that turns an FP32 network into one of reduced precision.

The gate, the sensitivity of layers and the search for the fewest kept layers all make the same
network with different layers kept.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime
from onnx import ModelProto

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.files import sha256_bytes, write_atomic
from edgeseg.artifacts.sidecar import PrecisionReport, SideCar, sidecar_path
from edgeseg.building.evidence import Evidence, extremes
from edgeseg.building.source import Source, named
from edgeseg.console import Track
from edgeseg.engines import openvino
from edgeseg.engines.cpu import int8_saturates
from edgeseg.errors import MismatchedArtifact
from edgeseg.options.building import BuildConfig
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import (
    Work,
    copy_of,
    derived_card,
    precision_report,
    read_card,
    serialize,
    work,
    write_card,
)
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.overflow import overflowing
from edgeseg.precision.ranges import Ranges

logger = logging.getLogger(__name__)

Form = Literal["onnxruntime", "openvino", "tensorrt"]
"""The runtime a graph is made for. OpenVINO reads INT8 in the same form as ONNX Runtime;
TensorRT's graphs are judged in ONNX Runtime.
"""

Options = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Candidate:
    """A graph with its card, before the gate."""

    model: ModelProto
    precision: Precision
    name: str
    options: Options
    form: Form
    calibration_set: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Settings with which a network is reduced.

    Attributes:
        source: The FP32 network.
        precision: ``fp16`` or ``int8``, or ``fp32``, which leaves it as it is.
        form: Runtime that the graph is made for.
        keep: Shell patterns of nodes to leave unchanged.
        quantise: Shell patterns of nodes to quantise although the policy keeps them.
        ranges: Activation ranges, for INT8.
        reduce_range: Use 7-bit weights for INT8.
        overflowing: Names of the nodes that would overflow in FP16.
    """

    source: Source
    precision: Precision
    form: Form
    keep: tuple[str, ...] = ()
    quantise: tuple[str, ...] = ()
    ranges: Ranges | None = None
    reduce_range: bool = False
    overflowing: tuple[str, ...] = ()

    def make(self, also_kept: Collection[str] = ()) -> ModelProto:
        """Make the reduced network with its card.

        ``also_kept`` holds node names, not patterns.

        Raises:
            UsageError: A pattern matches no node.
            MismatchedArtifact: Nothing is left to reduce, or a tensor has no range.
        """
        keep = (*self.keep, *exactly((*self.overflowing, *also_kept)))
        if self.precision == "fp32":
            model = copy_of(self.source.model)
        elif self.ranges is None:
            model = to_fp16(self.source.model, keep)
        else:
            model = to_int8(
                self.source.model,
                self.ranges.ranges,
                flavour="tensorrt" if self.form == "tensorrt" else "onnxruntime",
                keep=keep,
                quantise=self.quantise,
                reduce_range=self.reduce_range,
            )
        card = derived_card(self.source.card, self.source.sha256, self.precision)
        write_card(model, card)
        return model

    def candidate(self, also_kept: Sequence[str] = ()) -> Candidate:
        """Like :meth:`make`, with the data for its side-car; also raises if no layer is reduced."""
        model = self.make(also_kept)
        require_precision(precision_report(model), self.precision)
        options: Options = {}
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
            if self.form != "tensorrt":
                options["reduce_range"] = self.reduce_range
        set_sha256 = self.ranges.set_sha256 if self.ranges else None
        return Candidate(model, self.precision, self.name, options, self.form, set_sha256)

    @property
    def name(self) -> str:
        """File name: ``model.fp16.onnx``, ``model.int8.openvino.onnx``, and so on."""
        return graph_name(self.source.path, self.precision, self.form)

    def layers(self) -> tuple[Work, ...]:
        """The layers reduced if no others are kept, in the order of the graph."""
        return tuple(n for n in work(self.make()) if n.precision == self.precision)


def read_recipe(
    source: Source, config: BuildConfig, form: Form, evidence: Evidence, track: Track
) -> Recipe:
    """Make the recipe for ``config``; for FP16 this checks for overflow.

    Raises:
        NonFiniteOutput: An activation of the FP32 network holds NaN or infinity.
    """
    if config.precision == "fp32":
        return Recipe(source, "fp32", form)
    if config.precision == "int8":
        narrow = int8_saturates() if config.reduce_range is None else config.reduce_range
        return Recipe(
            source,
            "int8",
            form,
            keep=config.keep,
            quantise=config.quantise,
            ranges=evidence.ranges,
            reduce_range=narrow and form != "tensorrt",
        )
    found = _overflow(source, config, evidence, track)
    return Recipe(source, config.precision, form, keep=config.keep, overflowing=found)


def graph_name(network: Path, precision: Precision, form: Form) -> str:
    """File name of the graph made from a network."""
    if form == "openvino":
        return named(network, precision, "openvino", "onnx")
    if precision == "int8" and form == "tensorrt":
        return named(network, "int8", "tensorrt", "onnx")
    return named(network, precision, "onnx")


def exactly(names: Collection[str]) -> list[str]:
    """Shell patterns that match exactly these names."""
    return [glob.escape(name) for name in names]


def write_candidate(candidate: Candidate, source: Source, folder: Path) -> Path:
    """Write the graph and its side-car, which tells engines how to run it."""
    data = serialize(candidate.model)
    path = folder / candidate.name
    write_atomic(path, data)
    in_openvino = candidate.form == "openvino"
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
        card=read_card(candidate.model, candidate.name),
        runtime="openvino" if in_openvino else "onnxruntime",
        runtime_version=openvino.version() if in_openvino else onnxruntime.__version__,
        onnx_sha256=source.sha256,
        precision=precision_report(candidate.model),
        calibration_set=candidate.calibration_set,
        build_options=candidate.options,
    )
    made.save(sidecar_path(path))
    return path


def require_precision(report: PrecisionReport, precision: Precision) -> None:
    """Raise MismatchedArtifact if no node of the graph computes in ``precision``."""
    if report.precision != precision:
        raise MismatchedArtifact(
            f"{precision} was asked for and nothing in the graph computes in it",
            hint="name fewer nodes with --keep",
        )


def _overflow(
    source: Source, config: BuildConfig, evidence: Evidence, track: Track
) -> tuple[str, ...]:
    reached = extremes(source, config, evidence, track)
    if reached is None:
        logger.warning(
            "activations beyond FP16 were NOT looked for: no pictures; give some with --data, "
            "or calibrate first"
        )
    found = overflowing(source.model, reached or {})
    for one in found:
        logger.warning(
            "%s stays in FP32: %r reaches %.4g, and FP16 ends at 65504",
            *(one.node, one.tensor, one.magnitude),
        )
    return tuple(one.node for one in found)
