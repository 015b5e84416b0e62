"""What an output stands for, where the last steps of its graph show it.

The pictures of a proof may hold one class alone: on them a mask of 0 and 255 looks like one of
0 and 1, and a probability of 0 % like one of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.precision.graph import producers, tensors

_STEPS = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Round", "Floor", "Ceil", "Clip", "Cast"})
_MOVES = frozenset(
    {"Identity", "Resize", "Upsample", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice",
     "Split", "Flatten", "Gather"}
)  # fmt: skip
_PROBABILITIES = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_DECISIONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not"})
_TABLES = frozenset({"Conv", "MatMul", "Gemm"})
_MOST_CHOICES = 1 << 10


@dataclass(frozen=True)
class Source:
    """Where an output comes from.

    Attributes:
        kind: Type of the node: an ArgMax, a comparison, an activation, a Where of two numbers, or
            a layer behind any of these, whose weights are a table.
        values: The output for each of its choices, for false and true, or for probabilities from 0
            to 1, and what a Where puts in their place.
        node: The node; None where several are joined.
        steps: From there to the output.
    """

    kind: str
    values: NDArray[Any]
    node: NodeProto | None
    steps: tuple[NodeProto, ...] = ()

    @property
    def is_choice(self) -> bool:
        """Whether only few values are possible: it is an ArgMax or a decision."""
        return self.kind not in _PROBABILITIES

    @property
    def is_table(self) -> bool:
        """Whether it tells of the class chosen: its id, or in several channels its colour."""
        return self.kind == "ArgMax" or self.kind in _TABLES


class Tail:
    """The nodes behind the layers of a graph of fixed shapes.

    Args:
        model: The graph, :func:`~edgeseg.precision.graph.typed`.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._made_by = producers(model)
        self._constants = {each.name: each for each in model.graph.initializer}
        self.known = tensors(model)
        self._found: dict[str, Source | None] = {}

    def source(self, name: str) -> Source | None:
        """The source of tensor ``name``; None where the graph does not show it."""
        if name not in self._found:
            self._found[name] = self._source(name)
        return self._found[name]

    def _source(self, name: str) -> Source | None:
        node, steps = self.back(name)
        found = self._made(node) if node is not None else None
        if found is None:
            return None
        values = found.values
        for step in steps:
            if step.op_type in _STEPS or self._is_table(step):
                values = self._computed(step, values)
        return Source(found.kind, values, found.node, steps)

    def last(self, name: str) -> str:
        """Type of the last node before ``name`` that changes more than the form."""
        node, steps = self.back(name)
        plain = all(step.op_type in _MOVES or step.op_type in ("Cast", "Clip") for step in steps)
        return node.op_type if node is not None and plain else ""

    def is_ranked(self, name: str) -> bool:
        """Whether a tensor holds the best scores of each pixel, whatever classes have them."""
        node, steps = self.back(name)
        if node is None or node.op_type not in ("TopK", "ReduceMax"):
            return False
        if node.op_type == "TopK":
            (read,) = self._read(steps[0]) if steps else (name,)
            return bool(read == node.output[0])
        made, between = self.back(node.input[0])
        return made is not None and made.op_type == "Softmax" and not _selecting(between)

    def unshrunk(self, name: str) -> str | None:
        """The tensor that an AveragePool or Resize behind all layers makes ``name`` of."""
        node = self._made_by.get(name)
        return node.input[0] if node and node.op_type in ("AveragePool", "Resize") else None

    def channels(self, name: str) -> NDArray[np.intp] | None:
        """For each number of a tensor, the channel of the Softmax that it is made of.

        Returns:
            An array of the tensor's shape; None if every channel is passed on, or something else
            than a Softmax is the source.
        """
        node, steps = self.back(name)
        if node is None or node.op_type != "Softmax" or not _selecting(steps):
            return None
        shape = self.known[node.output[0]].shape
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        if None in shape or not -len(shape) <= axis < len(shape):
            return None
        row = [-1 if place == axis % len(shape) else 1 for place in range(len(shape))]
        numbers = np.arange(shape[axis] or 0, dtype=np.float32).reshape(row)
        planes = np.ascontiguousarray(np.broadcast_to(numbers, [size or 0 for size in shape]))
        channels: NDArray[np.intp] = np.rint(self._moved(steps, name, planes)).astype(np.intp)
        return channels

    def back(self, name: str) -> tuple[NodeProto | None, tuple[NodeProto, ...]]:
        """The last node before ``name`` that decides something, and the steps behind it."""
        steps: list[NodeProto] = []
        while (node := self._made_by.get(name)) and node.op_type in _STEPS | _MOVES:
            read = self._read(node)
            if len(read) != 1 or not self._is_uniform(node):
                return None, ()
            steps.append(node)
            name = read[0]
        return node, tuple(reversed(steps))

    def _read(self, node: NodeProto) -> list[str]:
        return [each for each in node.input if each and each not in self._constants]

    def _is_table(self, node: NodeProto) -> bool:
        return node.op_type == "Gather" and node.input[0] in self._constants

    def _is_uniform(self, node: NodeProto) -> bool:
        """Whether a step treats all of a tensor alike, with single numbers."""
        numbers = [self._constants[each] for each in node.input if each in self._constants]
        return node.op_type not in _STEPS or all(np.prod(each.dims) <= 1 for each in numbers)

    def _made(self, node: NodeProto) -> Source | None:
        if node.op_type in ("Where", "Concat"):
            return self._joined(node)
        values: NDArray[Any] | None = None
        if node.op_type in _PROBABILITIES:
            values = np.linspace(0, 1, 257, dtype=np.float32)
        elif node.op_type in _DECISIONS:
            values = np.array([False, True])
        elif node.op_type == "OneHot" and node.input[2] in self._constants:
            values = numpy_helper.to_array(self._constants[node.input[2]])
        elif node.op_type in _TABLES and node.input[1] in self._constants:
            read = self.source(node.input[0])
            weights = numpy_helper.to_array(self._constants[node.input[1]])
            values = np.ravel(weights) if read is not None and read.is_choice else None
        elif node.op_type == "ArgMax":
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = self.known[node.input[0]].shape
            choices = (shape[axis] or 0) if -len(shape) <= axis < len(shape) else 0
            values = np.arange(choices) if 0 < choices <= _MOST_CHOICES else None
        return None if values is None else Source(node.op_type, values, node)

    def _joined(self, node: NodeProto) -> Source | None:
        """Values of all branches, each a number or something that has a source."""
        kind, values = node.op_type, []
        for name in reversed(node.input[1:] if kind == "Where" else node.input):
            if name in self._constants:
                if np.prod(self._constants[name].dims) > 1:
                    return None
                values.append(np.ravel(numpy_helper.to_array(self._constants[name])))
            else:
                source = self.source(name)
                if source is None:
                    return None
                kind = source.kind
                values.append(source.values)
        return Source(kind, np.concatenate(values), None)

    def _computed(self, node: NodeProto, values: NDArray[Any]) -> NDArray[Any]:
        """The result of one step for ``values`` in place of the tensor that it reads."""
        from onnx.reference import ReferenceEvaluator

        (read,) = self._read(node)
        kind = self.known[read].dtype
        values = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        single = self._model([node], node.output[0], read, kind, values.shape)
        (computed,) = ReferenceEvaluator(single).run(None, {read: values})
        return np.ravel(computed)

    def _moved(
        self, steps: Sequence[NodeProto], name: str, planes: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Tensor ``name`` after ``steps`` without their arithmetic, from ``planes``."""
        import onnxruntime

        nodes = []
        for step in steps:
            node = NodeProto.FromString(step.SerializeToString())
            if step.op_type in _STEPS:
                (read,) = self._read(step)
                node = helper.make_node("Identity", [read], [step.output[0]])
            nodes.append(node)
        (read,) = self._read(steps[0])
        model = self._model(nodes, name, read, TensorProto.FLOAT, planes.shape)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        moved: NDArray[Any] = session.run(None, {read: planes})[0]
        return moved

    def _model(
        self, nodes: Sequence[NodeProto], name: str, read: str, kind: int, shape: tuple[int, ...]
    ) -> ModelProto:
        """A graph of some nodes from tensor ``read`` to tensor ``name``."""
        port = helper.make_tensor_value_info(read, kind, shape)
        result = helper.make_tensor_value_info(name, kind, None)
        names = {name for node in nodes for name in node.input}
        weights = [self._constants[name] for name in sorted(names & self._constants.keys())]
        graph = helper.make_graph(list(nodes), "steps", [port], [result], weights)
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )


def _selecting(steps: Sequence[NodeProto]) -> bool:
    return any(step.op_type in ("Slice", "Gather", "Split") for step in steps)
