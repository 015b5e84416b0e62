"""The values that an output can take, where the last steps of its graph show them.

The pictures of a proof may hold one class alone: on them a mask of 0 and 255 looks like one of
0 and 1, and a probability of 0 % like one of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.precision.graph import producers, tensors

_STEPS = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Round", "Floor", "Ceil", "Clip", "Cast"})
_MOVES = frozenset(
    {
        "Identity",
        "Resize",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Flatten",
        "Gather",
    }
)
_PROBABILITIES = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_DECISIONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not"})
_MOST_CHOICES = 1 << 10


def possible_values(model: ModelProto, name: str) -> tuple[str, NDArray[np.float64]] | None:
    """Follow an output back to its source, past form, arithmetic with single numbers and tables.

    Args:
        model: Graph of fixed shapes, :func:`~edgeseg.precision.graph.typed`.
        name: The output.

    Returns:
        The type of the source, an ArgMax, a comparison or an activation, and the output for each of
        its choices, for false and true, or for probabilities from 0 to 1; None where the
        graph does not show it.
    """
    made_by, constants = producers(model), {each.name: each for each in model.graph.initializer}
    steps: list[NodeProto] = []
    while (node := made_by.get(name)) and node.op_type in _STEPS | _MOVES:
        read = [each for each in node.input if each and each not in constants]
        if len(read) != 1:
            return None
        table = node.op_type == "Gather" and node.input[0] in constants
        if table or node.op_type in _STEPS:
            numbers = [constants[each] for each in node.input if each in constants]
            if not table and any(np.prod(each.dims) > 1 for each in numbers):
                return None
            steps.append(node)
        name = read[0]
    values = _values_of(node, model) if node else None
    if node is None or values is None:
        return None
    for step in reversed(steps):
        values = _computed(step, values, model, constants)
    return node.op_type, values.astype(np.float64)


def _values_of(node: NodeProto, model: ModelProto) -> NDArray[Any] | None:
    if node.op_type in _PROBABILITIES:
        return np.linspace(0, 1, 257, dtype=np.float32)
    if node.op_type in _DECISIONS:
        return np.array([False, True])
    if node.op_type != "ArgMax":
        return None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    shape = tensors(model)[node.input[0]].shape
    choices = (shape[axis] or 0) if -len(shape) <= axis < len(shape) else 0
    return np.arange(choices) if 0 < choices <= _MOST_CHOICES else None


def _computed(
    node: NodeProto, values: NDArray[Any], model: ModelProto, constants: dict[str, TensorProto]
) -> NDArray[Any]:
    """The result of one step for ``values`` in place of the tensor that it reads."""
    from onnx.reference import ReferenceEvaluator

    (read,) = [each for each in node.input if each and each not in constants]
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    port = helper.make_tensor_value_info(read, kind, values.shape)
    result = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    weights = [constants[each] for each in node.input if each in constants]
    graph = helper.make_graph([node], "step", [port], [result], weights)
    single = helper.make_model(graph, opset_imports=model.opset_import)
    (computed,) = ReferenceEvaluator(single).run(None, {read: values})
    return np.ravel(computed)
