"""Quantise networks to INT8: turn measured ranges into the Q/DQ pairs that each runtime expects.

``onnxruntime``: uint8 activations with a zero point, int8 weights, a scale per channel, Q/DQ
behind each operator as well so that it runs as one integer kernel.

``openvino``: the same types, Q/DQ pairs before integer operators only. All tensors of a Concat
share one scale, and so do those of a MaxPool: OpenVINO moves a pair behind a Concat in front of
it, and a pair that changes the scale, or repeats it, is a kernel that reads and writes the tensor
once more. NNCF places pairs like this for OpenVINO.

``tensorrt``: int8 with zero point 0 throughout, Q/DQ pairs before Convs only. Its parser
rejects other zero points, and reads uint8 with zero point 0 (what follows a ReLU) as int8
with half of the range clipped, after no more than a warning.

The policy, by operator; ``quantise`` and ``keep`` change it node by node, ``keep`` winning:

====================  ===============================  =======================================
operator              default                          with ``quantise``
====================  ===============================  =======================================
first convolution     floating: three channels fill    as any other
                      no integer kernel, few weights
                      average no error out (7-bit
                      weights there alone cost a
                      UNetLite 1.7 points for 1 % of
                      the arithmetic)
scores, and what      floating: 256 steps make ties    as any other
leads from them out   at the argmax
ConvTranspose         floating: NVIDIA's own tools     one scale for all weights, on which no
                      disagree on the weight axis      axis can be wrong
Resize                floating                         but for ``tensorrt``: Q/DQ on both sides
Add                   on both sides;                   ``tensorrt``: the skip input only, so
                      ``tensorrt``: floating           that the other's Conv still fuses
products of two       floating: most weights of      as any other
activations, as in    a softmax lie below one of
attention             its 255 steps
Concat, pooling       ``onnxruntime``: on both sides;  ``tensorrt``: no such pattern; Q/DQ
                      ``openvino``: Concat and         there would only round twice
                      MaxPool before them only;
                      ``tensorrt``: none
====================  ===============================  =======================================

An activation is rounded where an integer operator makes it or reads it. So a layer that is
kept still reads rounded values from an integer layer before it: an outlier in the activation
between two layers goes away when both are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.precision.graph import (
    COMPUTE,
    constants,
    consumers,
    matching_nodes,
    producers,
    remove_unread,
    sort_nodes,
    typed,
    with_stored_constants,
)

Flavour = Literal["onnxruntime", "openvino", "tensorrt"]

_WEIGHTED = ("Conv", "MatMul", "Gemm")
_FUSED = ("Relu", "Clip")
_PASSING = ("MaxPool", "AveragePool", "Add", "Concat")
_SHARING = ("Concat", "MaxPool")
_DEFAULT: Mapping[Flavour, tuple[str, ...]] = {
    "onnxruntime": (*_WEIGHTED, *_FUSED, *_PASSING),
    "openvino": (*_WEIGHTED, *_FUSED, *_PASSING),
    "tensorrt": _WEIGHTED,
}
_ON_REQUEST: Mapping[Flavour, tuple[str, ...]] = {
    "onnxruntime": (*_DEFAULT["onnxruntime"], "ConvTranspose", "Resize"),
    "openvino": (*_DEFAULT["openvino"], "ConvTranspose", "Resize"),
    "tensorrt": (*_WEIGHTED, "ConvTranspose", "Add"),
}


def to_int8(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    *,
    flavour: Flavour,
    keep: Sequence[str] = (),
    quantise: Sequence[str] = (),
    reduce_range: bool = False,
) -> ModelProto:
    """Return a copy of ``model`` with Q/DQ pairs.

    Args:
        model: FP32 network, left unchanged.
        ranges: Measured lowest and highest value of each activation.
        flavour: Runtime that will read the result.
        keep: Shell patterns of further nodes to keep in floating point.
        quantise: Shell patterns of nodes to quantise although the policy keeps them.
        reduce_range: Use 7-bit weights on CPUs without VNNI; not for ``tensorrt``.

    Raises:
        UsageError: A pattern matches no node, or one of ``quantise`` no node that can be quantised.
        MismatchedArtifact: A tensor has no range, or nothing is left to quantise.
    """
    model = typed(with_stored_constants(model), "the network")
    chosen = _choose(model, flavour, keep, quantise)
    if not any(n.op_type in COMPUTE for n in model.graph.node if n.name in chosen):
        raise MismatchedArtifact(
            "nothing is left to quantise: every convolution is kept in floating point",
            hint="name fewer nodes with --keep, quantise the first and the last convolution with "
            "--quantise, or build with --fp16",
        )
    if flavour == "openvino":
        ranges = _shared(model, chosen, ranges)
    made_before, read_before = producers(model), consumers(model)
    skips = _skip_inputs(model, chosen) if flavour == "tensorrt" else {}
    # Types are known: the quantiser need not write the network to disk to infer them.
    add_infer_metadata(model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range and flavour != "tensorrt",
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if flavour == "tensorrt" else QuantType.QUInt8,
        tensors_range=_tensors_range(ranges),
        nodes_to_quantize=list(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=list(_ON_REQUEST[flavour]),
        extra_options=_options(flavour) | {"TensorQuantOverrides": _single_scales(model, chosen)},
    )
    try:
        quantised: ModelProto = quantizer.quantize_model()
    except ValueError as error:
        raise MismatchedArtifact(
            f"the ranges do not cover the network: {error}",
            hint="measure them again: `edgeseg calibrate NETWORK --from DIR --overwrite`",
        ) from error

    def unrounded(reader: NodeProto, tensor: str) -> bool:
        if reader.name in skips:
            return tensor not in skips[reader.name]
        maker = made_before.get(tensor)
        made_rounded = maker is not None and maker.name in chosen
        if flavour == "openvino" and maker is not None and made_rounded:
            if maker.op_type in _SHARING or reader.op_type in _FUSED:
                return True
            # A convolution gives floats as well, but OpenVINO 2026.4 ends in a segmentation fault
            # while it compiles some other readers of them.
            if reader.op_type == "Resize":
                return not any(node.name in chosen for node in read_before[tensor])
        # TensorRT's pairs stand in front of their readers alone; in ONNX Runtime the integer
        # kernel that made a tensor gives nothing but the rounded one.
        return reader.name not in chosen and (flavour == "tensorrt" or not made_rounded)

    _detach(quantised, unrounded)
    sort_nodes(quantised)
    # Types were inferred before Q/DQ renamed tensors.
    del quantised.graph.value_info[:]
    quantised = typed(quantised, "the INT8 network")
    if flavour == "tensorrt":
        require_tensorrt_form(quantised, "the INT8 network")
    return quantised


def _choose(
    model: ModelProto, flavour: Flavour, keep: Sequence[str], quantise: Sequence[str]
) -> dict[str, None]:
    """Names of the nodes to quantise, in the order of the graph.

    Nodes without weights follow their neighbours: an activation function is quantised with the
    layer before it, pooling and concatenation if a quantised layer reads them, a sum also if it
    adds the result of a quantised convolution to another activation.
    """
    possible = {n.name for n in model.graph.node if n.op_type in _ON_REQUEST[flavour]}
    wanted = set()
    for pattern in quantise:
        hits = possible.intersection(matching_nodes(model, [pattern]))
        if not hits:
            raise UsageError(
                f"--quantise {pattern!r} names no node that can be quantised for {flavour}",
                hint=f"name some of type {', '.join(_ON_REQUEST[flavour])}",
            )
        wanted |= hits
    kept = set(matching_nodes(model, keep))
    floating = kept | (set(policy(model)) - wanted)
    chosen = {
        n.name
        for n in model.graph.node
        if n.name not in floating and (n.op_type in _DEFAULT[flavour] or n.name in wanted)
    }
    made_by, readers = producers(model), consumers(model)
    for node in reversed(model.graph.node):
        if node.op_type in _PASSING and node.name not in wanted:
            following = (r for name in node.output for r in _beyond(name, readers))
            residual = _is_residual(node, chosen, made_by)
            if not residual and not any(reader.name in chosen for reader in following):
                chosen.discard(node.name)
    for node in model.graph.node:
        if node.op_type in _FUSED and node.name not in wanted:
            maker = made_by.get(node.input[0])
            if maker is None or maker.name not in chosen:
                chosen.discard(node.name)
    return {node.name: None for node in model.graph.node if node.name in chosen}


def _shared(
    model: ModelProto, chosen: Container[str], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """The ranges, with one for all tensors that quantised nodes of :data:`_SHARING` connect."""
    groups: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.name in chosen and node.op_type in _SHARING:
            names = {name for name in (*node.input, *node.output) if name in ranges}
            joined = names.union(*(groups.get(name, ()) for name in names))
            groups |= dict.fromkeys(joined, joined)
    return dict(ranges) | {
        name: (min(ranges[other][0] for other in group), max(ranges[other][1] for other in group))
        for name, group in groups.items()
    }


def _is_residual(node: NodeProto, chosen: Container[str], made_by: Mapping[str, NodeProto]) -> bool:
    """Whether an Add sums two activations, of which a quantised convolution made one.

    OpenVINO 2026.4 ends in a segmentation fault while it compiles such a sum if the convolution
    is quantised and the sum is not.
    """
    makers = [made_by[name] for name in node.input if name in made_by]
    convolved = any(maker.op_type == "Conv" and maker.name in chosen for maker in makers)
    return node.op_type == "Add" and len(makers) == 2 and convolved


def _beyond(name: str, readers: Mapping[str, list[NodeProto]]) -> Iterator[NodeProto]:
    """The nodes that read a tensor, directly or through activation functions."""
    for node in readers.get(name, ()):
        if node.op_type in _FUSED:
            yield from _beyond(node.output[0], readers)
        else:
            yield node


def _single_scales(model: ModelProto, chosen: Container[str]) -> dict[str, list[dict[str, Any]]]:
    """Overrides that give the weights of each quantised ConvTranspose a single scale."""
    single = {"quant_type": QuantType.QInt8, "symmetric": True}
    return {
        node.input[1]: [dict(single)]
        for node in model.graph.node
        if node.op_type == "ConvTranspose" and node.name in chosen
    }


def _skip_inputs(model: ModelProto, chosen: Container[str]) -> dict[str, set[str]]:
    """The inputs of each quantised Add, except that of the Conv which TensorRT fuses with it.

    Its output then belongs to no single layer, and needs no pair; see "Explicit quantization"
    in NVIDIA's guide for developers.
    """
    made_by = producers(model)
    place = {node.name: index for index, node in enumerate(model.graph.node)}
    found = {}
    for node in model.graph.node:
        if node.op_type != "Add" or node.name not in chosen:
            continue
        inputs = [name for name in node.input if name in made_by]
        fusing = [name for name in inputs if made_by[name].op_type in COMPUTE]
        last = max(fusing or inputs, key=lambda name: place[made_by[name].name], default="")
        found[node.name] = {name for name in node.input if name != last}
    return found


def policy(model: ModelProto) -> tuple[str, ...]:
    """Names of the nodes that stay in floating point by default.

    The first convolution, products of two activations, and the scores: the last convolutions
    with all that follows them.
    """
    fixed = constants(model)
    attention = (
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and not fixed.intersection(node.input[:2])
    )
    return tuple(dict.fromkeys((*_stems(model), *attention, *_heads(model))))


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


def _options(flavour: Flavour) -> dict[str, Any]:
    if flavour != "tensorrt":
        return {
            "WeightSymmetric": True,
            "ActivationSymmetric": False,
            # A shared range may lie below zero, and rounding to it is no ReLU then.
            "QDQKeepRemovableActivations": flavour == "openvino",
        }
    return {
        "WeightSymmetric": True,
        "ActivationSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "DedicatedQDQPair": True,
        # Q/DQ behind a Conv would split it from its ReLU and round twice.
        "OpTypesToExcludeOutputQuantization": list(_ON_REQUEST["tensorrt"]),
    }


def _tensors_range(ranges: Mapping[str, tuple[float, float]]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        },
    )


def _detach(model: ModelProto, unrounded: Callable[[NodeProto, str], bool]) -> None:
    """Reconnect nodes to the tensors from before Q/DQ wherever ``unrounded`` returns True.

    The quantiser puts a pair in front of all readers of a tensor: a skip or a Resize that
    shares its input with a quantised convolution would be rounded along with it.
    """
    made_by = producers(model)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        for place, name in enumerate(node.input):
            dequantise = made_by.get(name)
            if dequantise is None or dequantise.op_type != "DequantizeLinear":
                continue
            quantise = made_by.get(dequantise.input[0])
            if quantise is not None and unrounded(node, quantise.input[0]):
                node.input[place] = quantise.input[0]
    remove_unread(model)


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
    """Convolutions that read the picture with no computing node in between."""
    readers = consumers(model)
    waiting = [value.name for value in model.graph.input]
    while waiting:
        for node in readers.get(waiting.pop(), ()):
            if node.op_type in COMPUTE:
                yield node.name
            else:
                waiting.extend(node.output)
