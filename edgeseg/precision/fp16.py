"""FP32 → FP16: weights and activations cast, inputs and outputs left as they are declared.

Strongly typed runtimes (TensorRT-RTX, TensorRT ≥ 10.12) build what the graph says, so the
graph itself is cast.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import copy_of, matching_nodes, sort_nodes, typed

LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: ModelProto, keep: Sequence[str] = ()) -> ModelProto:
    """A copy of ``model`` in half precision.

    Args:
        model: FP32 network; unchanged.
        keep: Shell patterns of node names that stay FP32.

    Returns:
        The network with FP16 weights and activations; its input stays float32.

    Raises:
        UsageError: A pattern of ``keep`` selects no node.
        MismatchedArtifact: A weight is too large for FP16 (it would become 65504 unseen).
    """
    kept = matching_nodes(model, keep)
    _refuse_overflow(model, set(kept))
    with warnings.catch_warnings():
        # The converter warns of each value below the smallest half-precision number; rounding
        # those to nearest is what FP16 means, and the gate judges the sum.
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(
            copy_of(typed(model, "the network")),
            keep_io_types=True,
            disable_shape_infer=True,
            node_block_list=kept,
        )
    sort_nodes(half)
    # Types were inferred before the cast; stale ones would contradict the new graph.
    del half.graph.value_info[:]
    return typed(half, "the FP16 network")


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
                mend=f"keep that node in FP32: `--keep '{users[0]}'`",
            )
