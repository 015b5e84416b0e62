"""Activation ranges: the lowest and highest value of each tensor on a calibration set.

The FP32 network runs once per picture and a histogram of each tensor is updated, so memory does
not grow with the number of pictures. ONNX Runtime's own calibrators keep the outputs of all
pictures, and their minimum skips NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from pydantic import Field

from edgeseg.artifacts.card import InputSpec, ModelCard, Sha256
from edgeseg.artifacts.documents import Document
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import verify
from edgeseg.console import Track, silent
from edgeseg.data.folders import load_image
from edgeseg.errors import MismatchedArtifact, NonFiniteOutput, UsageError
from edgeseg.ops.preprocess import preprocess_tile
from edgeseg.options.building import Method
from edgeseg.precision.calibration_set import load_set
from edgeseg.precision.graph import read_card, tensors
from edgeseg.precision.histograms import Extremes, Histogram
from edgeseg.precision.probing import OpenNetwork, opened, run
from edgeseg.precision.thresholds import bounds

GROUP_ELEMENTS = 80 * 1024 * 1024
"""Activations held at once: 320 MiB of float32. A network with more needs several runs."""


class Ranges(Document):
    """Lowest and highest value of each activation, and what they were measured on.

    ``manifest`` is the absolute path that the calibration set had when it was measured.
    """

    schema_version: Literal[1] = 1
    onnx_sha256: Sha256
    set_sha256: Sha256
    method: Method
    pictures: Annotated[int, Field(ge=1)]
    manifest: str
    ranges: dict[
        str,
        tuple[
            Annotated[float, Field(allow_inf_nan=False)],
            Annotated[float, Field(allow_inf_nan=False)],
        ],
    ]


def measure_ranges(
    onnx_path: Path, manifest: Path, *, method: Method = "minmax", track: Track = silent
) -> Ranges:
    """Run every picture of a calibration set through the FP32 network.

    Args:
        onnx_path: ``model.onnx`` with a card, which defines the preprocessing.
        manifest: Manifest of the calibration set.
        method: Method that derives the range; see :mod:`edgeseg.precision.thresholds`.
        track: Shows progress, one step per picture.

    Raises:
        ArtifactError: Network or manifest is damaged, or a picture has changed.
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    return measure_methods(onnx_path, manifest, (method,), track=track)[method]


def measure_methods(
    onnx_path: Path, manifest: Path, methods: Sequence[Method], *, track: Track = silent
) -> dict[Method, Ranges]:
    """Like :func:`measure_ranges` for several methods, from one pass of the network."""
    made, paths = load_set(manifest)
    with opened(onnx_path) as network:
        card = require_measurable(network.graph, onnx_path)
        held = _measure(
            network,
            _Pictures(paths, card.input),
            Extremes if set(methods) == {"minmax"} else Histogram,
            track,
        )
    return {
        method: Ranges(
            onnx_sha256=sha256_file(onnx_path),
            set_sha256=made.set_sha256,
            method=method,
            pictures=len(paths),
            manifest=str(manifest.resolve()),
            ranges={name: bounds(method, values) for name, values in held.items()},
        )
        for method in methods
    }


def check_measurable(onnx_path: Path) -> None:
    """Raise early, before pictures are collected, if :func:`measure_ranges` would fail.

    Raises:
        ArtifactError: The network is damaged, was changed, or does not match its card.
        UsageError: The file does not exist, or is not in FP32.
    """
    verify(onnx_path, required=False)
    with opened(onnx_path) as network:
        require_measurable(network.graph, onnx_path)


def require_measurable(graph: ModelProto, origin: Path) -> ModelCard:
    """Return the card of a typed graph, after checking that it is FP32 and matches the card."""
    card = read_card(graph, str(origin))
    if card.precision != "fp32":
        raise UsageError(
            f"{origin} is a {card.precision} network; ranges are measured on the FP32 one",
            hint="name the FP32 network, e.g. model.onnx",
        )
    found = tensors(graph)[graph.graph.input[0].name].shape
    if found[1:] != card.input.shape:
        raise MismatchedArtifact(
            f"{origin}: its card says input (N, {', '.join(map(str, card.input.shape))}), its "
            f"graph says {found}",
            hint="export it again with `edgeseg export --overwrite`",
        )
    return card


def measure_extremes(
    onnx_path: Path, paths: Sequence[Path], track: Track = silent
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each activation on any pictures.

    Raises:
        ArtifactError: The network is damaged, or does not match its card.
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    with opened(onnx_path) as network:
        spec = require_measurable(network.graph, onnx_path).input
        held = _measure(network, _Pictures(paths, spec), Extremes, track)
    return {name: bounds("minmax", values) for name, values in held.items()}


def check_ranges(ranges: Ranges, ranges_path: Path, onnx_path: Path) -> list[Path]:
    """Check that ranges belong to this network and that their pictures are unchanged.

    Returns:
        The pictures of the set; empty if the manifest is not on this machine.

    Raises:
        MismatchedArtifact: The ranges belong to another network or set, or a picture has changed.
    """
    again = f"edgeseg calibrate {onnx_path} --from DIR"
    found = sha256_file(onnx_path)
    if ranges.onnx_sha256 != found:
        raise MismatchedArtifact(
            f"{ranges_path} was measured on another network (sha256 "
            f"{ranges.onnx_sha256[:12]}…) than {onnx_path} ({found[:12]}…)",
            hint=f"measure again: `{again}`",
        )
    recorded = Path(ranges.manifest)
    manifest = next(
        (p for p in (recorded, ranges_path.parent / recorded.name) if p.is_file()), None
    )
    if manifest is None:
        return []
    made, paths = load_set(manifest)
    if made.set_sha256 != ranges.set_sha256:
        raise MismatchedArtifact(
            f"{ranges_path} was measured on another calibration set (sha256 "
            f"{ranges.set_sha256[:12]}…) than {manifest} now is ({made.set_sha256[:12]}…)",
            hint=f"measure again: `{again}`",
        )
    return paths


def activations(network: ModelProto) -> tuple[str, ...]:
    """Names of the float32 activations of a typed graph, in order of computation."""
    known = tensors(network)
    weights = {weight.name for weight in network.graph.initializer}
    names = [value.name for value in network.graph.input]
    names += [name for node in network.graph.node for name in node.output]
    constants = {n.output[0] for n in network.graph.node if n.op_type == "Constant"}
    return tuple(
        name
        for name in names
        if name in known
        and known[name].dtype == TensorProto.FLOAT
        and name not in weights
        and name not in constants
    )


def calibration_tensor(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    """Read and preprocess a picture for calibration: float32 (C, height, width)."""
    return preprocess_tile(load_image(path), spec)


@dataclass(frozen=True)
class _Pictures:
    """Input tensors (1, C, height, width) of a set, made one at a time."""

    paths: Sequence[Path]
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[Path, NDArray[np.float32]]]:
        for path in self.paths:
            yield path, calibration_tensor(path, self.spec)[np.newaxis]


def _measure(
    network: OpenNetwork, pictures: _Pictures, kind: type[Extremes], track: Track
) -> dict[str, Extremes]:
    """Statistics of each activation over all pictures."""
    names = activations(network.graph)
    held = {name: kind() for name in names}
    groups = list(_groups(network.graph, names))
    for place, group in enumerate(groups, 1):
        session = network.session(group)
        label = f"measuring ranges {place}/{len(groups)}"
        for path, tensor in track(pictures, label, len(pictures)):
            for name, values in zip(group, run(session, tensor), strict=True):
                if not held[name].add(values):
                    raise NonFiniteOutput(
                        f"tensor {name!r} holds NaN or infinity (or values of 2¹²⁷ and more) on "
                        f"{path}",
                        hint="train again with a lower learning rate, or look at the weights "
                        "before it",
                    )
    return held


def _groups(network: ModelProto, names: Sequence[str]) -> Iterator[list[str]]:
    """Split ``names`` into groups whose tensors fit into memory together."""
    known = tensors(network)
    group: list[str] = []
    held = 0
    for name in names:
        size = math.prod(dimension or 1 for dimension in known[name].shape)
        if group and held + size > GROUP_ELEMENTS:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
