"""Which nodes INT8 quantises, by operator and runtime.

``quantise`` and ``keep`` change the policy node by node, ``keep`` winning:

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
products of two       floating: most weights of a      as any other
activations, as in    softmax lie below one of its
attention             255 steps
Concat, pooling       ``onnxruntime``: on both sides;  ``tensorrt``: no such pattern; Q/DQ
                      ``openvino``: Concat and         there would only round twice
                      MaxPool before them only;
                      ``tensorrt``: none
====================  ===============================  =======================================
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Literal

from onnx import ModelProto, NodeProto

from edgeseg.errors import UsageError
from edgeseg.precision.graph import COMPUTE, constants, consumers, matching_nodes, producers

GraphFormat = Literal["onnxruntime", "openvino", "tensorrt"]
"""The runtime that a graph is made for; TensorRT's graphs are judged in ONNX Runtime."""

FUSED = ("Relu", "Clip")
"""Activation functions, which run in the kernel of the layer before them."""

_WEIGHTED = ("Conv", "MatMul", "Gemm")
_PASSING = ("MaxPool", "AveragePool", "Add", "Concat")
_DEFAULT: Mapping[GraphFormat, tuple[str, ...]] = {
    "onnxruntime": (*_WEIGHTED, *FUSED, *_PASSING),
    "openvino": (*_WEIGHTED, *FUSED, *_PASSING),
    "tensorrt": _WEIGHTED,
}
QUANTISABLE: Mapping[GraphFormat, tuple[str, ...]] = {
    "onnxruntime": (*_DEFAULT["onnxruntime"], "ConvTranspose", "Resize"),
    "openvino": (*_DEFAULT["openvino"], "ConvTranspose", "Resize"),
    "tensorrt": (*_WEIGHTED, "ConvTranspose", "Add"),
}
"""Operators that are quantised by default or on request."""


def chosen_nodes(
    model: ModelProto, graph_format: GraphFormat, keep: Sequence[str], quantise: Sequence[str]
) -> dict[str, None]:
    """Names of the nodes to quantise, in the order of the graph.

    Nodes without weights follow their neighbours: an activation function is quantised with the
    layer before it, pooling and concatenation if a quantised layer reads them, a sum also if it
    adds the result of a quantised convolution to another activation.

    Raises:
        UsageError: A pattern matches no node, or one of ``quantise`` no node that can be quantised.
    """
    possible = {n.name for n in model.graph.node if n.op_type in QUANTISABLE[graph_format]}
    wanted = set()
    for pattern in quantise:
        hits = possible.intersection(matching_nodes(model, [pattern]))
        if not hits:
            raise UsageError(
                f"--quantise {pattern!r} names no node that can be quantised for {graph_format}",
                hint=f"name some of type {', '.join(QUANTISABLE[graph_format])}",
            )
        wanted |= hits
    kept = set(matching_nodes(model, keep))
    floating = kept | (set(kept_by_default(model)) - wanted)
    chosen = {
        n.name
        for n in model.graph.node
        if n.name not in floating and (n.op_type in _DEFAULT[graph_format] or n.name in wanted)
    }
    made_by, readers = producers(model), consumers(model)
    for node in reversed(model.graph.node):
        if node.op_type in _PASSING and node.name not in wanted:
            following = (r for name in node.output for r in _beyond(name, readers))
            residual = _is_residual(node, chosen, made_by)
            if not residual and not any(reader.name in chosen for reader in following):
                chosen.discard(node.name)
    for node in model.graph.node:
        if node.op_type in FUSED and node.name not in wanted:
            maker = made_by.get(node.input[0])
            if maker is None or maker.name not in chosen:
                chosen.discard(node.name)
    return {node.name: None for node in model.graph.node if node.name in chosen}


def kept_by_default(model: ModelProto) -> tuple[str, ...]:
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
        if node.op_type in FUSED:
            yield from _beyond(node.output[0], readers)
        else:
            yield node
