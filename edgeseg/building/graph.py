"""A graph made for a runtime, as a value: its bytes, and the side-car that describes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime
from onnx import ModelProto

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.files import sha256_bytes, write_atomic
from edgeseg.artifacts.sidecar import PrecisionReport, SideCar
from edgeseg.building.fp32 import Fp32Network, artifact_name
from edgeseg.engines import openvino
from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import derived_card, precision_report, serialize, write_card
from edgeseg.precision.policy import GraphFormat

BuildOptions = dict[str, bool | int | float | str]
"""Options of a build as they stand in the side-car."""


@dataclass(frozen=True)
class RuntimeGraph:
    """A graph for a runtime.

    Attributes:
        model: The graph, with its card.
        data: Its serialised form.
        name: File name, e.g. ``model.int8.onnx``.
        sidecar: Its side-car, without the gate's result.
    """

    model: ModelProto = field(repr=False)
    data: bytes = field(repr=False)
    name: str
    sidecar: SideCar

    @property
    def precision(self) -> Precision:
        """Precision that the card states."""
        return self.sidecar.card.precision

    def write(self, folder: Path) -> Path:
        """Write the graph alone, without its side-car."""
        path = folder / self.name
        write_atomic(path, self.data)
        return path


def runtime_graph(
    network: Fp32Network,
    model: ModelProto,
    precision: Precision,
    graph_format: GraphFormat,
    options: BuildOptions,
    calibration_set: str | None = None,
) -> RuntimeGraph:
    """Give ``model`` its card, and describe it.

    Args:
        network: The FP32 network that it was made from.
        model: The graph; its metadata is replaced.
        precision: Precision to state in the card.
        graph_format: Runtime that it was made for.
        options: How it was made, for the side-car.
        calibration_set: Hash of the calibration set, if ranges were used.
    """
    card = derived_card(network.card, network.sha256, precision)
    write_card(model, card)
    data = serialize(model)
    in_openvino = graph_format == "openvino"
    sidecar = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
        card=card,
        runtime="openvino" if in_openvino else "onnxruntime",
        runtime_version=openvino.version() if in_openvino else onnxruntime.__version__,
        onnx_sha256=network.sha256,
        precision=precision_report(model),
        calibration_set=calibration_set,
        build_options=options,
    )
    return RuntimeGraph(model, data, graph_name(network.path, precision, graph_format), sidecar)


def graph_name(network: Path, precision: Precision, graph_format: GraphFormat) -> str:
    """File name of the graph made from a network."""
    if graph_format == "openvino":
        return artifact_name(network, precision, "openvino", "onnx")
    if precision == "int8" and graph_format == "tensorrt":
        return artifact_name(network, "int8", "tensorrt", "onnx")
    return artifact_name(network, precision, "onnx")


def require_precision(report: PrecisionReport | None, precision: Precision) -> None:
    """Raise MismatchedArtifact if no node of the graph computes in ``precision``."""
    if report is None or report.precision != precision:
        raise MismatchedArtifact(
            f"{precision} was asked for and nothing in the graph computes in it",
            hint="name fewer nodes with --keep",
        )
