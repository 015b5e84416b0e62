"""Limits of runtimes in INT8: what OpenVINO computes wrongly, and what TensorRT misreads.

TensorRT's parser rejects a zero point other than 0, and reads uint8 with zero point 0 (what
follows a ReLU) as int8 with half of the range clipped, after no more than a warning.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import producers


def wrong_in_openvino(model: ModelProto) -> tuple[str, ...]:
    """Names of the convolutions that OpenVINO 2026.4 computes wrongly in INT8 on CPUs with AMX.

    Even kernels of 4 and more over fewer than 64 channels, such as SegFormer's reduction of the
    keys: some strides and paddings give errors as large as the result.
    """
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in shapes
        for _, channels, *kernel in [shapes[node.input[1]]]
        if channels < 64 and any(side >= 4 and side % 2 == 0 for side in kernel)
    )


def require_tensorrt_form(model: ModelProto, origin: str) -> None:
    """Check that TensorRT reads the Q/DQ pairs as intended.

    Raises:
        MismatchedArtifact: A zero point is not 0, or is unsigned (as ONNX defines a missing one).
    """
    constants = {weight.name: weight for weight in model.graph.initializer}
    made_by = producers(model)
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        found = _zero_point_fault(node, constants, made_by)
        if found:
            raise MismatchedArtifact(
                f"{origin}: {node.op_type} {node.name!r} has {found}; TensorRT reads int8 with "
                "zero point 0 and nothing else",
                hint="quantise for TensorRT: `edgeseg build --int8 --runtime tensorrt-rtx`",
            )


def _zero_point_fault(
    node: NodeProto, constants: Mapping[str, TensorProto], made_by: Mapping[str, NodeProto]
) -> str | None:
    if len(node.input) < 3 or not node.input[2]:
        return _missing_fault(node, constants, made_by)
    zero_point = constants.get(node.input[2])
    if zero_point is None:
        return "a zero point that is not constant"
    if zero_point.data_type != TensorProto.INT8:
        kind = TensorProto.DataType.Name(zero_point.data_type).lower()
        bias = " (a quantised bias)" if kind == "int32" else ""
        return f"a zero point of type {kind}{bias}"
    if np.any(numpy_helper.to_array(zero_point)):
        return "a zero point other than 0"
    return None


def _missing_fault(
    node: NodeProto, constants: Mapping[str, TensorProto], made_by: Mapping[str, NodeProto]
) -> str | None:
    """Fault of a missing zero point: a Q without one is uint8, a DQ has the type of its data."""
    if node.op_type == "QuantizeLinear":
        signed = any(a.name == "output_dtype" and a.i == TensorProto.INT8 for a in node.attribute)
        return None if signed else "no zero point, which means uint8,"
    data = constants.get(node.input[0])
    if data is None or data.data_type == TensorProto.INT8:
        return None if data is not None or node.input[0] in made_by else "data that is not int8"
    bias = " (a quantised bias)" if data.data_type == TensorProto.INT32 else ""
    return f"data of type {TensorProto.DataType.Name(data.data_type).lower()}{bias}"
