"""The FP32 network that an engine is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import PrecisionReport, SideCar, verify
from edgeseg.errors import UsageError
from edgeseg.precision.graph import load_model, precision_report, read_card


@dataclass(frozen=True)
class Fp32Network:
    """An FP32 network to build from.

    ``sidecar`` is the one beside it, None if it has none; ``report`` was counted in the graph.
    """

    path: Path
    model: ModelProto = field(repr=False)
    card: ModelCard
    sha256: str
    report: PrecisionReport
    sidecar: SideCar | None


def artifact_name(network: Path, *parts: str) -> str:
    """File name of an artefact made from a network, e.g. ``model.int8.onnx`` for ``model.onnx``."""
    return ".".join((network.stem, *parts))


def read_fp32(path: Path) -> Fp32Network:
    """Read and check the network at ``path``.

    Raises:
        UsageError: The file does not exist, or its precision is already reduced.
        ArtifactError: The file is damaged, or has no card.
    """
    sidecar = verify(path, required=False)
    model = load_model(path)
    card = read_card(model, str(path))
    report = precision_report(model, str(path))
    # A graph that others quantised carries the card of the network that it was made from.
    precision = report.precision if card.precision == "fp32" else card.precision
    if precision != "fp32":
        raise UsageError(
            f"{path} is a network in {precision}; engines are built from the FP32 one",
            hint="name the FP32 network, e.g. model.onnx; a graph that was made elsewhere goes "
            f"beside it: `edgeseg build model.onnx --onnx {path}`",
        )
    return Fp32Network(path, model, card, sha256_file(path), report, sidecar)
