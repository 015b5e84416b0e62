"""Scores of an ONNX network of edgeseg: what its argmax reads, in ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import MismatchedArtifact

_CERTAIN = 1e-6


class OnnxScores:
    """Logits of a network whose output may be labels.

    Args:
        path: ``model.onnx``, also of a reduced precision, with a card inside.

    Attributes:
        size: Height and width that the graph takes; None where both are open.

    Raises:
        UsageError: The file does not exist.
        CorruptArtifact: The file is empty, truncated, altered, or not an ONNX network.
        MismatchedArtifact: It has no card, or no scores of its classes before its labels.
    """

    def __init__(self, path: Path, threads: int) -> None:
        with OnnxRuntimeEngine(path) as engine:
            self.card = engine.card
            self._batch, _, *size = engine.ports[0].shape
        self.size = None if None in size else tuple(size)
        self.path = path
        model = onnx.load(path)
        if self.card.output == "labels_u8" and argmax_input(model) is None:
            raise self._without_scores("its graph")
        self._session = scores_session(model, threads)

    def __call__(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits float32 (N, classes, h, w) of pictures float32 (N, C, H, W).

        Their softmax is the network's probability of each class. A network that ends in softmax
        gives the logarithm of its probabilities, one that ends in sigmoids their log-odds. Where
        labels are enlarged behind the argmax, ``h`` and ``w`` are smaller than ``H`` and ``W``.
        """
        name = self._session.get_inputs()[0].name
        step = self._batch or len(pictures)
        parts = [pictures[start : start + step] for start in range(0, len(pictures), step)]
        scores = np.concatenate([self._session.run(None, {name: part})[0] for part in parts])
        if scores.ndim != 4 or scores.shape[1] != len(self.card.classes):
            raise self._without_scores(f"the argmax of its graph, which reads {scores.shape},")
        return _logits(scores.astype(np.float32))

    def _without_scores(self, where: str) -> MismatchedArtifact:
        return MismatchedArtifact(
            f"{self.path}: {where} has no scores of {len(self.card.classes)} classes",
            hint="export the network with its scores as output, and import it again",
        )


def argmax_input(model: ModelProto) -> str | None:
    """Name of the scores tensor that the final argmax reads; None if there is no argmax."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    name = model.graph.output[0].name
    while name in made_by:
        node = made_by[name]
        if node.op_type == "ArgMax":
            return str(node.input[0])
        if node.op_type not in {"Cast", "Identity", "Squeeze"}:
            return None
        name = node.input[0]
    return None


def scores_session(model: ModelProto, threads: int = 0) -> Any:
    """Create a session that runs a graph up to what its argmax reads, or to its output.

    Args:
        threads: CPU threads; 0 leaves their number to ONNX Runtime.
    """
    cut = ModelProto()
    cut.CopyFrom(model)
    name = argmax_input(model) or model.graph.output[0].name
    del cut.graph.output[:]
    # ONNX Runtime infers its type and shape, and drops the nodes behind it.
    cut.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Exact products of an INT8 graph on any CPU, 7-bit weights or not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(
        cut.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _logits(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if scores.min() < 0 or scores.max() > 1:
        return scores
    probability = scores.clip(_CERTAIN, 1 - _CERTAIN)
    logits: NDArray[np.float32] = np.log(probability)
    if not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        logits -= np.log1p(-probability)
    return logits
