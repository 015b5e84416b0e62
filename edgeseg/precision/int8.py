"""Ranges → Q/DQ: the same measured ranges in the form that each runtime wants.

``onnxruntime``: uint8 activations with a zero point, int8 weights, a scale a channel, Q/DQ
behind each operator as well so that it runs as one integer kernel.

``tensorrt``: int8 with zero point 0 throughout, Q/DQ pairs before Convs only. Its parser
rejects other zero points, and reads uint8 with zero point 0 (what follows a ReLU) as int8
with half of the range clipped, after no more than a warning.

In both these stay in floating point: the first convolution (three channels fill no integer
kernel, few weights a channel average no error out; with 7-bit weights it alone cost a
UNetLite 1.7 points of mean IoU for 1 % of the arithmetic), transposed convolutions (NVIDIA's
own tools disagree on the weight axis), resizes, and the scores, whose 256 steps would make
ties at the argmax. Since sums of scores are the only Adds in an FCN, ``tensorrt`` has no Q/DQ
at any Add.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import consumers, matching_nodes, producers, sort_nodes, typed

Flavour = Literal["onnxruntime", "tensorrt"]

_WEIGHTED = ("Conv", "MatMul", "Gemm")
_ONNXRUNTIME_OPERATORS = (*_WEIGHTED, "Relu", "Clip", "MaxPool", "AveragePool", "Add", "Concat")


def to_int8(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    *,
    flavour: Flavour,
    keep: Sequence[str] = (),
    reduce_range: bool = False,
) -> ModelProto:
    """A copy of ``model`` with Q/DQ pairs.

    Args:
        model: FP32 network; unchanged.
        ranges: Lowest and highest value of each activation, as measured.
        flavour: The runtime that will read it.
        keep: Shell patterns of nodes that stay in floating point, besides the policy's.
        reduce_range: Weights of 7 bits, for ``onnxruntime`` on CPUs without VNNI.

    Raises:
        UsageError: A pattern of ``keep`` selects no node.
        MismatchedArtifact: A tensor has no range, or nothing is left to quantise.
    """
    model = typed(model, "the network")
    floating = {*matching_nodes(model, keep), *policy(model)}
    operators = _WEIGHTED if flavour == "tensorrt" else _ONNXRUNTIME_OPERATORS
    chosen = [n.name for n in model.graph.node if n.op_type in operators and n.name not in floating]
    if not any(n.op_type in _WEIGHTED for n in model.graph.node if n.name in chosen):
        raise MismatchedArtifact(
            "nothing is left to quantise: every convolution is kept in floating point",
            mend="name fewer nodes with --keep, or build with --fp16",
        )
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range and flavour == "onnxruntime",
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if flavour == "tensorrt" else QuantType.QUInt8,
        tensors_range=_tensors_range(ranges),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=list(operators),
        extra_options=_options(flavour),
    )
    try:
        quantised: ModelProto = quantizer.quantize_model()
    except ValueError as error:
        raise MismatchedArtifact(
            f"the ranges do not cover the network: {error}", mend="run `edgeseg calibrate` again"
        ) from error
    if flavour == "tensorrt":
        _detach(quantised, set(chosen))
    sort_nodes(quantised)
    # Types were inferred before Q/DQ renamed tensors.
    del quantised.graph.value_info[:]
    quantised = typed(quantised, "the INT8 network")
    if flavour == "tensorrt":
        require_tensorrt_form(quantised, "the INT8 network")
    return quantised


def policy(model: ModelProto) -> tuple[str, ...]:
    """Names of the nodes that stay in floating point without being asked.

    The first convolution, and the scores: the last convolutions with all that follows them.
    """
    return tuple(dict.fromkeys((*_stems(model), *_heads(model))))


def require_tensorrt_form(model: ModelProto, origin: str) -> None:
    """Refuse Q/DQ that TensorRT would misread.

    Raises:
        MismatchedArtifact: A zero point is unsigned (also where it is left out, which ONNX
            defines as uint8) or not 0.
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
                mend="quantise for TensorRT: `edgeseg build --int8 --runtime tensorrt-rtx`",
            )


def _zero_point_fault(
    node: NodeProto, constants: Mapping[str, TensorProto], made_by: Mapping[str, NodeProto]
) -> str | None:
    if len(node.input) < 3 or not node.input[2]:
        data = constants.get(node.input[0])
        source = made_by.get(node.input[0])
        # Only a Q without zero point is uint8 by itself; a DQ takes the type of its data.
        if node.op_type == "DequantizeLinear":
            signed = data is not None and data.data_type == TensorProto.INT8
            return None if signed or source is not None else "data that is not int8"
        signed = any(a.name == "output_dtype" and a.i == TensorProto.INT8 for a in node.attribute)
        return None if signed else "no zero point, which means uint8,"
    zero_point = constants.get(node.input[2])
    if zero_point is None:
        return "a zero point that is no constant"
    if zero_point.data_type != TensorProto.INT8:
        return f"a zero point of type {TensorProto.DataType.Name(zero_point.data_type).lower()}"
    if np.any(numpy_helper.to_array(zero_point)):
        return "a zero point other than 0"
    return None


def _options(flavour: Flavour) -> dict[str, Any]:
    if flavour == "onnxruntime":
        return {"WeightSymmetric": True, "ActivationSymmetric": False}
    return {
        "WeightSymmetric": True,
        "ActivationSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "DedicatedQDQPair": True,
        # Q/DQ behind a Conv would split it from its ReLU and round twice.
        "OpTypesToExcludeOutputQuantization": list(_WEIGHTED),
    }


def _tensors_range(ranges: Mapping[str, tuple[float, float]]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        },
    )


def _detach(model: ModelProto, quantised: set[str]) -> None:
    """Let nodes outside of ``quantised`` read what they read before, not what Q/DQ rounded.

    The quantiser puts a pair in front of all readers of a tensor: a skip or a Resize that
    shares its input with a quantised convolution would be rounded along with it.
    """
    made_by = producers(model)
    for node in model.graph.node:
        if node.name in quantised or node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        for place, name in enumerate(node.input):
            dequantise = made_by.get(name)
            if dequantise is not None and dequantise.op_type == "DequantizeLinear":
                node.input[place] = made_by[dequantise.input[0]].input[0]


def _heads(model: ModelProto) -> Iterator[str]:
    """Convolutions from which only floating operators lead to the output."""
    made_by = producers(model)
    waiting = [output.name for output in model.graph.output]
    seen: set[str] = set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        yield node.name
        if node.op_type not in _WEIGHTED:
            waiting.extend(node.input)


def _stems(model: ModelProto) -> Iterator[str]:
    """Convolutions that read the picture, through nothing that computes."""
    readers = consumers(model)
    waiting = [value.name for value in model.graph.input]
    while waiting:
        for node in readers.get(waiting.pop(), ()):
            if node.op_type in _WEIGHTED or node.op_type == "ConvTranspose":
                yield node.name
            else:
                waiting.extend(node.output)
