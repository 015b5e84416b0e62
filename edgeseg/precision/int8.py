"""Quantise networks to INT8: turn measured ranges into the Q/DQ pairs that each runtime expects.

``onnxruntime``: uint8 activations with a zero point, int8 weights, a scale per channel, Q/DQ
behind each operator as well so that it runs as one integer kernel.

``openvino``: the same types, Q/DQ pairs before integer operators only. All tensors of a Concat
share one scale, and so do those of a MaxPool: OpenVINO moves a pair behind a Concat in front of
it, and a pair that changes the scale, or repeats it, is a kernel that reads and writes the tensor
once more. NNCF places pairs like this for OpenVINO.

``tensorrt``: int8 with zero point 0 throughout, Q/DQ pairs before Convs only.

An activation is rounded where an integer operator makes it or reads it. So a layer that is
kept still reads rounded values from an integer layer before it: an outlier in the activation
between two layers goes away when both are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from edgeseg.errors import MismatchedArtifact
from edgeseg.precision.graph import (
    COMPUTE,
    consumers,
    producers,
    remove_unread,
    sort_nodes,
    typed,
    with_stored_constants,
)
from edgeseg.precision.policy import FUSED, QUANTISABLE, GraphFormat, chosen_nodes
from edgeseg.precision.runtime_limits import require_tensorrt_form

_Unrounded: TypeAlias = Callable[[NodeProto, str], bool]
"""Whether a node, the first argument, reads a tensor as it was before Q/DQ."""

_SHARING = ("Concat", "MaxPool")


def to_int8(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    *,
    graph_format: GraphFormat,
    keep: Sequence[str] = (),
    quantise: Sequence[str] = (),
    reduce_range: bool = False,
) -> ModelProto:
    """Return a copy of ``model`` with Q/DQ pairs.

    Args:
        model: FP32 network, left unchanged.
        ranges: Measured lowest and highest value of each activation.
        graph_format: Runtime that will read the result.
        keep: Shell patterns of further nodes to keep in floating point.
        quantise: Shell patterns of nodes to quantise although the policy keeps them.
        reduce_range: Use 7-bit weights on CPUs without VNNI; not for ``tensorrt``.

    Raises:
        UsageError: A pattern matches no node, or one of ``quantise`` no node that can be quantised.
        MismatchedArtifact: A tensor has no range, or nothing is left to quantise.
    """
    model = typed(with_stored_constants(model), "the network")
    chosen = chosen_nodes(model, graph_format, keep, quantise)
    if not any(n.op_type in COMPUTE for n in model.graph.node if n.name in chosen):
        raise MismatchedArtifact(
            "nothing is left to quantise: every convolution is kept in floating point",
            hint="name fewer nodes with --keep, quantise the first and the last convolution with "
            "--quantise, or build with --fp16",
        )
    if graph_format == "openvino":
        ranges = _shared_ranges(model, chosen, ranges)
    # Before the quantiser alters the graph.
    unrounded = _unrounded_reads(model, chosen, graph_format)
    quantizer = _quantizer(model, chosen, ranges, graph_format, reduce_range)
    try:
        quantised: ModelProto = quantizer.quantize_model()
    except ValueError as error:
        raise MismatchedArtifact(
            f"the ranges do not cover the network: {error}",
            hint="measure them again: `edgeseg calibrate NETWORK --from DIR --overwrite`",
        ) from error
    _detach(quantised, unrounded)
    sort_nodes(quantised)
    # Types were inferred before Q/DQ renamed tensors.
    del quantised.graph.value_info[:]
    quantised = typed(quantised, "the INT8 network")
    if graph_format == "tensorrt":
        require_tensorrt_form(quantised, "the INT8 network")
    return quantised


def _quantizer(
    model: ModelProto,
    chosen: Collection[str],
    ranges: Mapping[str, tuple[float, float]],
    graph_format: GraphFormat,
    reduce_range: bool,
) -> QDQQuantizer:
    """ONNX Runtime's quantiser of the chosen nodes, with the types that ``graph_format`` reads."""
    tensorrt = graph_format == "tensorrt"
    kernels = [
        n.input[1] for n in model.graph.node if n.op_type == "ConvTranspose" and n.name in chosen
    ]
    single_scale = {"quant_type": QuantType.QInt8, "symmetric": True}
    bounds = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    # Types are known: the quantiser need not write the network to disk to infer them.
    add_infer_metadata(model)
    return QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range and not tensorrt,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
        nodes_to_quantize=list(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=list(QUANTISABLE[graph_format]),
        extra_options={
            "WeightSymmetric": True,
            "ActivationSymmetric": tensorrt,
            "AddQDQPairToWeight": tensorrt,
            "QuantizeBias": not tensorrt,
            "DedicatedQDQPair": tensorrt,
            # Q/DQ behind a Conv would split it from its ReLU and round twice.
            "OpTypesToExcludeOutputQuantization": list(QUANTISABLE[graph_format])
            if tensorrt
            else [],
            # A shared range may lie below zero, and rounding to it is no ReLU then.
            "QDQKeepRemovableActivations": graph_format == "openvino",
            "TensorQuantOverrides": {name: [dict(single_scale)] for name in kernels},
        },
    )


def _unrounded_reads(
    model: ModelProto, chosen: Container[str], graph_format: GraphFormat
) -> _Unrounded:
    """Return the rule by which the readers of each tensor of ``model`` read it."""
    made_by, readers = producers(model), consumers(model)
    skips = _skip_inputs(model, chosen) if graph_format == "tensorrt" else {}

    def unrounded(reader: NodeProto, tensor: str) -> bool:
        if reader.name in skips:
            return tensor not in skips[reader.name]
        maker = made_by.get(tensor)
        # TensorRT's pairs stand in front of their readers alone.
        if graph_format == "tensorrt" or maker is None or maker.name not in chosen:
            return reader.name not in chosen
        if graph_format == "onnxruntime":
            return False  # The integer kernel that made it gives nothing but the rounded one.
        if maker.op_type in _SHARING or reader.op_type in FUSED:
            return True
        # A convolution gives floats as well, but OpenVINO 2026.4 ends in a segmentation fault
        # while it compiles some other readers of them.
        if reader.op_type == "Resize":
            return not any(node.name in chosen for node in readers[tensor])
        return False

    return unrounded


def _detach(model: ModelProto, unrounded: _Unrounded) -> None:
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


def _shared_ranges(
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
