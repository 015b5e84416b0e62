"""Activation ranges: what every tensor of a network reaches on a calibration set.

The network is run as it is, in FP32, with reductions added behind each tensor: memory does
not grow with the number of pictures. ONNX Runtime's own calibrators keep the outputs of all
pictures, and their minimum skips NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from pydantic import Field

from edgeseg.artifacts import sha256_file
from edgeseg.card import InputSpec, Sha256
from edgeseg.console import Track, silent
from edgeseg.data.folders import load_image
from edgeseg.documents import Document
from edgeseg.errors import MismatchedArtifact, NonFiniteOutput, UsageError
from edgeseg.ops.preprocess import preprocess
from edgeseg.precision.calibration import load_set
from edgeseg.precision.graph import (
    at_card_size,
    copy_of,
    load_model,
    read_card,
    serialize,
    tensors,
    typed,
)

Method = Literal["minmax", "percentile"]

PERCENTILE = 99.999
"""Share of the values, in per cent, that the ``percentile`` method keeps within the range."""

_BINS = 4096
_GROUP_ELEMENTS = 32 * 1024 * 1024
"""Activations held at once while histograms are taken: 128 MiB of float32."""


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

    ``minmax`` keeps the extremes. ``percentile`` cuts what lies outside of the central
    99.999 % of a tensor's values, from a histogram of 4096 bins between the extremes.

    Args:
        onnx_path: ``model.onnx`` with a card; pictures are preprocessed as it says.
        manifest: The calibration set.
        method: ``minmax`` or ``percentile``.
        track: Shows progress, a step a picture.

    Raises:
        ArtifactError: Network or manifest are damaged, or a picture changed.
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    network = load_model(onnx_path)
    card = read_card(network, str(onnx_path))
    if card.precision != "fp32":
        raise UsageError(
            f"{onnx_path} is a {card.precision} network; ranges are measured on the FP32 one",
            mend="name the FP32 network, e.g. model.onnx",
        )
    made, paths = load_set(manifest)
    pictures = _Pictures(paths, card.input)
    network = typed(at_card_size(network), str(onnx_path))
    names = activations(network)
    found = _extremes(network, names, pictures, track)
    if method == "percentile":
        found = _percentiles(network, names, found, pictures, track)
    return Ranges(
        onnx_sha256=sha256_file(onnx_path),
        set_sha256=made.set_sha256,
        method=method,
        pictures=len(paths),
        manifest=str(manifest.resolve()),
        ranges=found,
    )


def measure_extremes(
    onnx_path: Path, paths: Sequence[Path], track: Track = silent
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each activation on pictures that make up no calibration set.

    Raises:
        NonFiniteOutput: A tensor holds NaN or infinity; the message names the first.
    """
    network = load_model(onnx_path)
    spec = read_card(network, str(onnx_path)).input
    network = typed(network, str(onnx_path))
    return _extremes(network, activations(network), _Pictures(paths, spec), track)


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


def _extremes(
    network: ModelProto, names: Sequence[str], pictures: _Pictures, track: Track
) -> dict[str, tuple[float, float]]:
    probes = _with_reductions(network, names)
    session = _session(probes)
    low = np.full(len(names), math.inf)
    high = np.full(len(names), -math.inf)
    for path, tensor in track(pictures, "measuring ranges", len(pictures)):
        # Row by row: minimum, maximum, mean.
        values = np.array(_run(session, tensor), np.float64).reshape(len(names), 3)
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise NonFiniteOutput(
                f"tensor {names[int(np.argmax(broken))]!r} holds NaN or infinity (or its sum "
                f"overflows float32) on {path}",
                mend="train again with a lower learning rate, or look at the weights before it",
            )
        low, high = np.minimum(low, values[:, 0]), np.maximum(high, values[:, 1])
    return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}


def _percentiles(
    network: ModelProto,
    names: Sequence[str],
    extremes: Mapping[str, tuple[float, float]],
    pictures: _Pictures,
    track: Track,
) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    groups = list(_groups(network, names))
    for place, group in enumerate(groups, 1):
        session = _session(_with_outputs(network, group))
        counts = {name: np.zeros(_BINS, np.int64) for name in group}
        label = f"histograms {place}/{len(groups)}"
        for _, tensor in track(pictures, label, len(pictures)):
            for name, values in zip(group, _run(session, tensor), strict=True):
                counts[name] += histogram(values, *extremes[name])
        found |= {name: central_range(counts[name], *extremes[name], PERCENTILE) for name in group}
    return found


def histogram(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    """Counts in 4096 equal bins from ``low`` to ``high``, both inclusive.

    OpenCV counts twice as fast as NumPy, and its upper end is exclusive.
    """
    above = float(np.nextafter(np.float32(high), np.float32(np.inf)))
    counts = cv2.calcHist([values.reshape(1, -1)], [0], None, [_BINS], [low, above])
    return counts.ravel().astype(np.int64)


def central_range(
    counts: NDArray[np.int64], low: float, high: float, percentile: float
) -> tuple[float, float]:
    """The range that holds the central ``percentile`` % of a histogram's values.

    Half of the rest is cut from each end; the bounds are outer edges of bins, so no more
    than that is cut.

    Args:
        counts: int64 (bins,), equal bins from ``low`` to ``high``.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    cut = counts.sum() * (1 - percentile / 100) / 2
    total = np.cumsum(counts)
    first = int(np.searchsorted(total, cut, side="right"))
    last = int(np.searchsorted(total, total[-1] - cut, side="left"))
    return float(edges[first]), float(edges[last + 1])


def _groups(network: ModelProto, names: Sequence[str]) -> Iterator[list[str]]:
    """Cut ``names`` into runs whose tensors fit into memory together."""
    known = tensors(network)
    group: list[str] = []
    held = 0
    for name in names:
        size = math.prod(dimension or 1 for dimension in known[name].shape)
        if group and held + size > _GROUP_ELEMENTS:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _with_reductions(network: ModelProto, names: Sequence[str]) -> ModelProto:
    """``network`` with minimum, maximum and mean of each tensor as its only outputs.

    Any NaN or infinity shows in the mean, whatever minimum and maximum do with it.
    """
    copy = copy_of(network)
    del copy.graph.output[:]
    for index, name in enumerate(names):
        for kind in ("ReduceMin", "ReduceMax", "ReduceMean"):
            probe = f"edgeseg_{kind}_{index}"
            copy.graph.node.append(helper.make_node(kind, [name], [probe], probe, keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(probe, TensorProto.FLOAT, []))
    return copy


def _with_outputs(network: ModelProto, names: Sequence[str]) -> ModelProto:
    copy = copy_of(network)
    del copy.graph.output[:]
    known = tensors(network)
    for name in names:
        copy.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name].shape)
        )
    return copy


def _session(network: ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        serialize(network), options, providers=["CPUExecutionProvider"]
    )


def _run(session: Any, tensor: NDArray[np.float32]) -> Any:
    """All outputs for one picture, repeated where the graph has a larger fixed batch."""
    (source,) = session.get_inputs()
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    return session.run(None, {source.name: np.repeat(tensor, batch, axis=0)})
