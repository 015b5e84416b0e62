"""Convert FP32 networks to FP16: weights and activations are cast, inputs and outputs are not.

Strongly typed runtimes (TensorRT-RTX, TensorRT ≥ 10.12) take precision from the graph, so the
graph itself is cast.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import (
    matching_nodes,
    producers,
    remove_unread,
    sort_nodes,
    tensors,
    typed,
    with_stored_constants,
)

LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: ModelProto, keep: Sequence[str] = ()) -> ModelProto:
    """Return a copy of ``model`` in half precision.

    Args:
        model: FP32 network, left unchanged.
        keep: Shell patterns of node names that stay FP32.

    Returns:
        The network with FP16 weights and activations; its input stays float32.

    Raises:
        UsageError: A pattern in ``keep`` matches no node.
        MismatchedArtifact: A weight that is not kept is too large for FP16 (it would become
            65504 unseen); :func:`edgeseg.precision.overflow.overflowing` finds all such nodes.
    """
    model = with_stored_constants(model)
    kept = matching_nodes(model, keep)
    _refuse_overflow(model, set(kept))
    with warnings.catch_warnings():
        # The converter warns about each value below the smallest FP16 number. Rounding those to
        # zero is an error of 3e-8 at most, less than the rounding of weights of usual size: no
        # layer is kept for that, and the gate judges the total.
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(
            typed(model, "the network"),
            keep_io_types=True,
            disable_shape_infer=True,
            node_block_list=kept,
        )
    sort_nodes(half)
    # Types were inferred before the cast; stale ones would contradict the new graph.
    del half.graph.value_info[:]
    _bridge(half)
    return typed(half, "the FP16 network")


def _bridge(model: ModelProto) -> None:
    """Let FP32 nodes read FP32 tensors directly where they exist.

    The converter casts each output of a kept node to FP16, and back for a kept reader: values
    would overflow between two kept nodes, and the picture would be rounded before the first.
    """
    made_by, known = producers(model), tensors(typed(model, "the FP16 network"))

    def source(name: str, kind: int) -> str | None:
        node = made_by.get(name)
        to = None
        if node is not None and node.op_type == "Cast":
            to = next(a.i for a in node.attribute if a.name == "to")
        return node.input[0] if node is not None and to == kind else None

    for node in model.graph.node:
        for place, name in enumerate(node.input):
            half = source(name, TensorProto.FLOAT)
            full = source(half, TensorProto.FLOAT16) if half else None
            if full and known[full].dtype == TensorProto.FLOAT:
                node.input[place] = full
    remove_unread(model)


def _refuse_overflow(model: ModelProto, kept: set[str]) -> None:
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    for weight in model.graph.initializer:
        users = [name for name in readers.get(weight.name, ()) if name not in kept]
        if weight.data_type != TensorProto.FLOAT or not users:
            continue
        largest = float(np.abs(numpy_helper.to_array(weight)).max(initial=0.0))
        if not largest <= LARGEST:
            raise MismatchedArtifact(
                f"weight {weight.name!r} of node {users[0]!r} reaches {largest:g}, "
                f"FP16 ends at {LARGEST:g}",
                hint=f"keep that node in FP32: `--keep {shlex.quote(users[0])}`",
            )
