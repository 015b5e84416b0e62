"""Compare the wrapped graph with the original one in ONNX Runtime, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import CorruptArtifact, InferenceError, MismatchedArtifact, NonFiniteOutput
from edgeseg.importing.deciding import require_ids
from edgeseg.importing.heads import Head, labels_of
from edgeseg.importing.inputs import PictureInput
from edgeseg.importing.outputs import UNSURE
from edgeseg.importing.reading import Original
from edgeseg.ops.preprocess import preprocess

NEAR_TIE = 1e-3
"""Scores closer than this share of the largest may swap ranks between two graphs in float32."""

_NEAR_TIE_HALVED = 2e-2  # float16 has 11 bits, and layers add their errors up.
_MOST_TIES = 0.01  # share of pixels; rounding alone swaps far fewer
_MOST_TIES_HALVED = 0.05
_STRAY_LABELS = 1e-4  # share of pixels; an output of labels hides how near its ties are


@dataclass(frozen=True)
class Proof:
    """Comparison of the wrapped network with the original.

    ``mismatched`` pixels have another label; ``near_ties`` of them have two best scores that lie
    closer together than rounding explains.
    """

    images: int
    pixels: int
    mismatched: int
    near_ties: int


class Runs(Protocol):
    """What the wrapped network is compared with."""

    def raw(self, tensor: NDArray[np.float32], name: str) -> NDArray[Any]:
        """The output ``name`` of one picture for a tensor (1, C, H, W)."""


class OriginalRun:
    """The original network in ONNX Runtime.

    Args:
        original: The network.
        picture: Its input.
        tensor: Name of what is compared, an output or a tensor within the graph.
    """

    def __init__(self, original: Original, picture: PictureInput, tensor: str) -> None:
        self.original, self.picture = original, picture
        network: Path | bytes = original.path
        if tensor not in original.ports:
            model = onnx.load(original.path)
            model.graph.output.append(onnx.ValueInfoProto(name=tensor))
            network = model.SerializeToString()
        self._session = open_session(network, original.path)

    def raw(self, tensor: NDArray[np.float32], name: str) -> NDArray[Any]:
        """The output ``name`` of one picture for a tensor (1, C, H, W)."""
        try:
            (result,) = self._session.run([name], {self.picture.name: self.picture.feed(tensor)})
        except Exception as error:
            raise _cannot_run(self.original.path, error) from error
        fixed: NDArray[Any] = np.asarray(result)
        return fixed[:1] if (self.picture.batch or 1) > 1 else fixed


def open_session(network: Path | bytes, path: Path) -> Any:
    """Open the network of the file at ``path``, or a graph made of it, in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's classes share no base but Exception.
        raise CorruptArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({_reason(error)})",
            hint="export it again in float32 with opset_version=18, or update ONNX Runtime",
        ) from error


def _cannot_run(path: Path, error: Exception) -> MismatchedArtifact:
    return MismatchedArtifact(
        f"{path}: the original network cannot run at this size ({_reason(error)})",
        hint="name a size that it takes, e.g. --size 512x512",
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).split(" : ", 3)[-1][:300].rstrip(".")


def prove(
    run: Runs,
    original: Original,
    wrapped: bytes,
    head: Head,
    spec: InputSpec,
    images: Sequence[NDArray[np.uint8]],
) -> Proof:
    """Compare labels on pictures.

    Args:
        run: The original network, running.
        original: The original network, for messages.
        wrapped: The wrapped graph, serialised.
        head: How the output becomes labels.
        spec: The card's input.
        images: Pictures uint8 (H, W, 3) BGR.

    Raises:
        InferenceError: Labels differ where no near tie explains it.
        NonFiniteOutput: The original gives NaN or infinity.
        MismatchedArtifact: The original gives ids that are no class.
    """
    session = open_session(wrapped, original.path)
    mismatched = near = 0
    tie = _NEAR_TIE_HALVED if original.halved else NEAR_TIE
    for image in images:
        tensor = preprocess(image, spec)[np.newaxis]
        raw = run.raw(tensor, head.output.name)
        _check(raw, head, original)
        labels, margin = labels_of(raw, head)
        (found,) = session.run(None, {session.get_inputs()[0].name: tensor})
        differs = found[0] != labels
        mismatched += int(differs.sum())
        near += int((differs & (margin <= tie * max(1.0, float(np.abs(raw).max())))).sum())
    pixels = len(images) * head.size[0] * head.size[1]
    most = pixels * (_MOST_TIES_HALVED if original.halved else _MOST_TIES)
    allowed = _STRAY_LABELS * pixels if head.output.kind == "labels" else min(near, most)
    if mismatched > allowed:
        raise InferenceError(
            f"{original.path}: the wrapped network differs from the original in "
            f"{mismatched} of {pixels} pixels, of which {near} are near ties; nothing was written",
            hint="export it again with opset_version=18; if that does not help, report it with the "
            "network",
        )
    return Proof(len(images), pixels, mismatched, near)


def _check(raw: NDArray[Any], head: Head, original: Original) -> None:
    path, name = original.path, head.output.name
    if raw.size != np.prod(head.output.shape):
        raise MismatchedArtifact(
            f"{path}: expected {name!r} of shape {head.output.shape}, found {raw.shape}",
            hint="export it again with fixed sizes",
        )
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise NonFiniteOutput(
            f"{path}: its output {name!r} holds NaN or infinity on a picture",
            hint="state the normalisation that it was trained with, e.g. --normalise imagenet",
        )
    if head.output.kind == "labels":
        ids = raw[~np.isin(raw, UNSURE)] if head.cleaned else raw
        if ids.size:
            require_ids(ids.min(), ids.max(), head.classes, path)
