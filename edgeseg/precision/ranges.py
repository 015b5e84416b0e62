"""Activation ranges: what every tensor of a network reaches on a calibration set.

The network is run as it is, in FP32, once for a picture, and of each tensor a histogram is kept:
memory does not grow with the number of pictures. ONNX Runtime's own calibrators keep the outputs
of all pictures, and their minimum skips NaN.
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

from edgeseg.artifacts import sha256_file
from edgeseg.card import InputSpec, ModelCard, Sha256
from edgeseg.console import Track, silent
from edgeseg.data.folders import load_image
from edgeseg.documents import Document
from edgeseg.errors import MismatchedArtifact, NonFiniteOutput, UsageError
from edgeseg.ops.preprocess import preprocess
from edgeseg.precision.calibration import load_set
from edgeseg.precision.graph import read_card, tensors
from edgeseg.precision.histograms import Extremes, Histogram
from edgeseg.precision.probing import OpenNetwork, opened, run
from edgeseg.precision.thresholds import Method, bounds
from edgeseg.sidecar import verify

GROUP_ELEMENTS = 80 * 1024 * 1024
"""Activations held at once: 320 MiB of float32. A network with more is run again for the rest."""


class Ranges(Document):
    """Lowest and highest value of each activation, and what they were measured on.

    ``manifest`` is the absolute path of the calibration set at that time.
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
        onnx_path: ``model.onnx`` with a card; pictures are preprocessed as it says.
        manifest: The calibration set.
        method: How the range follows from the values; see :mod:`edgeseg.precision.thresholds`.
        track: Shows progress, a step a picture.

    Raises:
        ArtifactError: Network or manifest are damaged, or a picture changed.
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    return measure_methods(onnx_path, manifest, (method,), track=track)[method]


def measure_methods(
    onnx_path: Path, manifest: Path, methods: Sequence[Method], *, track: Track = silent
) -> dict[Method, Ranges]:
    """:func:`measure_ranges` by several methods, from the same values: the network runs once."""
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
    """Refuse a network that :func:`measure_ranges` would refuse, before pictures are collected.

    Raises:
        ArtifactError: It is damaged, changed since it was made, or its card is not its graph's.
        UsageError: There is no such file, or it is not in FP32.
    """
    verify(onnx_path, required=False)
    with opened(onnx_path) as network:
        require_measurable(network.graph, onnx_path)


def require_measurable(graph: ModelProto, origin: Path) -> ModelCard:
    """The card of a typed graph in FP32 that takes the pictures its card speaks of."""
    card = read_card(graph, str(origin))
    if card.precision != "fp32":
        raise UsageError(
            f"{origin} is a {card.precision} network; ranges are measured on the FP32 one",
            mend="name the FP32 network, e.g. model.onnx",
        )
    found = tensors(graph)[graph.graph.input[0].name].shape
    if found[1:] != card.input.shape:
        raise MismatchedArtifact(
            f"{origin}: its card says input (N, {', '.join(map(str, card.input.shape))}), its "
            f"graph says {found}",
            mend="export it again with `edgeseg export --overwrite`",
        )
    return card


def measure_extremes(
    onnx_path: Path, paths: Sequence[Path], track: Track = silent
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each activation on pictures that make up no calibration set.

    Raises:
        ArtifactError: The network is damaged, or its card is not its graph's.
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    with opened(onnx_path) as network:
        spec = require_measurable(network.graph, onnx_path).input
        held = _measure(network, _Pictures(paths, spec), Extremes, track)
    return {name: bounds("minmax", values) for name, values in held.items()}


def check_ranges(ranges: Ranges, ranges_path: Path, onnx_path: Path) -> list[Path]:
    """Refuse ranges that were measured on another network, or whose pictures have changed.

    Returns:
        The pictures of the set; none where the manifest is not on this machine.

    Raises:
        MismatchedArtifact: They are another network's, another set's, or a picture changed.
    """
    again = f"edgeseg calibrate {onnx_path} --from DIR"
    found = sha256_file(onnx_path)
    if ranges.onnx_sha256 != found:
        raise MismatchedArtifact(
            f"{ranges_path} was measured on another network (sha256 "
            f"{ranges.onnx_sha256[:12]}…) than {onnx_path} ({found[:12]}…)",
            mend=f"measure again: `{again}`",
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
            mend=f"measure again: `{again}`",
        )
    return paths


def activations(network: ModelProto) -> tuple[str, ...]:
    """Every float32 tensor of a typed graph that is no weight, in the order of computation."""
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
    """What calibration feeds of a picture: float32 (C, height, width), as every other step."""
    return preprocess(load_image(path), spec)


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
    """What is kept of each activation, after all pictures."""
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
                        mend="train again with a lower learning rate, or look at the weights "
                        "before it",
                    )
    return held


def _groups(network: ModelProto, names: Sequence[str]) -> Iterator[list[str]]:
    """Cut ``names`` into runs whose tensors fit into memory together."""
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
