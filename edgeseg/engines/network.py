"""Checks of ONNX networks common to all runtimes: the file, its card, its inputs and outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.documents import parse
from edgeseg.artifacts.files import require_file
from edgeseg.artifacts.sidecar import SideCar, verify
from edgeseg.engines.external_data import require_local_weights
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError

MAX_BYTES = 2 * 1024**3
"""Size limit of protobuf, and so of ONNX files."""


PortShape = tuple[int | None, ...]
"""Shape of a tensor; dynamic dimensions are None."""


@dataclass(frozen=True)
class GraphPort:
    """An input or output of a graph; ``dtype`` is NumPy's name of the type."""

    name: str
    dtype: str
    shape: PortShape


logger = logging.getLogger(__name__)


def require_network(path: Path) -> None:
    """Check a network file before it is passed to a runtime.

    Raises:
        UsageError: The file does not exist, or runtimes cannot handle its name.
        CorruptArtifact: The file is empty, too large, not a protobuf message, or refers to
            weights outside its own folder.
    """
    size = require_file(path).stat().st_size
    if size > MAX_BYTES:
        raise CorruptArtifact(f"{path}: expected at most {MAX_BYTES} bytes, found {size}")
    require_local_weights(path)


def require_threads(threads: int | None) -> None:
    """Raise UsageError if a number of CPU threads is below 1."""
    if threads is not None and threads < 1:
        raise UsageError(f"an engine runs on at least 1 thread, not {threads}")


def vouched(path: Path) -> SideCar | None:
    """Verify a network by its side-car; None, and a line in the log, if it has none.

    Raises:
        ArtifactError: The network is damaged, altered, or its side-car is invalid.
    """
    sidecar = verify(path, required=False)
    if sidecar is None:
        logger.info("%s has no side-car: nothing vouches for its bytes", path)
    return sidecar


def card_from_metadata(metadata: Mapping[str, str], origin: str) -> ModelCard:
    """Parse the card in the ``metadata_props`` of an ONNX file.

    Raises:
        MismatchedArtifact: The card is missing, or has another schema version.
        CorruptArtifact: The card is invalid.
    """
    if CARD_KEY not in metadata:
        raise MismatchedArtifact(
            f"{origin}: its metadata_props have no key {CARD_KEY!r}, so its classes and its "
            "preprocessing are unknown",
            hint="import it with `edgeseg import NETWORK.onnx --classes NAME,NAME,…`",
        )
    return parse(ModelCard, metadata[CARD_KEY], f"{origin} ({CARD_KEY})")


def check_ports(
    inputs: Sequence[GraphPort], outputs: Sequence[GraphPort], card: ModelCard, origin: str
) -> int | None:
    """Check a graph against its card; returns the fixed batch size, or None if it is dynamic.

    Raises:
        MismatchedArtifact: Number, type or shape of the ports does not match the card.
    """
    if len(inputs) != 1 or len(outputs) != 1:
        raise MismatchedArtifact(
            f"{origin}: expected one input and one output, found "
            f"{[port.name for port in inputs]} and {[port.name for port in outputs]}"
        )
    spec = card.input
    size: PortShape = (None, None) if spec.open_size else (spec.height, spec.width)
    _check_port(origin, "input", inputs[0], "float32", (spec.channels, *size))
    if card.output == "logits":
        _check_port(origin, "output", outputs[0], "float32", (len(card.classes), *size))
    else:
        _check_port(origin, "output", outputs[0], "uint8", size)
    return inputs[0].shape[0]


def seven_bit_weights(sidecar: SideCar | None) -> bool:
    """Whether the side-car states 7-bit weights, on which no int8 kernel saturates."""
    return sidecar is not None and sidecar.build_options.get("reduce_range") is True


def _check_port(origin: str, role: str, port: GraphPort, dtype: str, picture: PortShape) -> None:
    if port.dtype != dtype or port.shape[1:] != picture:
        wanted = ", ".join("any" if size is None else str(size) for size in picture)
        raise MismatchedArtifact(
            f"{origin}: its card says {role} {dtype} (N, {wanted}), "
            f"its graph says {port.name!r} {port.dtype} {port.shape}",
            hint="export it again with `edgeseg export --overwrite`",
        )
