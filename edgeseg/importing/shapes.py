"""Fix the shapes of a graph, fold what they decide, and give every node and weight a name."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgeseg.errors import MismatchedArtifact
from edgeseg.importing.functions import lower_opset, spelled_out
from edgeseg.importing.reading import attempt, every_node, refuse_chance, refuse_control_flow
from edgeseg.precision.graph import (
    Tensor,
    copy_of,
    remove_unread,
    sort_nodes,
    tensors,
    typed,
    unused_name,
)

_FOLDED = 1 << 20
"""Largest result in bytes that is stored instead of computed: grids of positions are smaller."""


def with_fixed_input(model: ModelProto, name: str, shape: Sequence[int]) -> ModelProto:
    """Return a copy whose input ``name`` has ``shape``; all other shapes are forgotten."""
    fixed = copy_of(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape
            del dims.dim[:]
            for size in shape:
                dims.dim.add(dim_value=size)
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed


def simplified(model: ModelProto, path: Path) -> ModelProto:
    """Fold constants and the arithmetic of shapes, with onnxscript's optimiser.

    Raises:
        CorruptArtifact: The graph contradicts itself.
        MismatchedArtifact: Control flow is left, or a shape that the input does not decide.
    """
    with _quiet():
        folded = attempt(path, "folding its constants", lambda: _folded(spelled_out(model)))
    _lift_constants(folded)
    _leave_out_empty(folded)
    refuse_control_flow(folded, path)
    remove_unread(folded)
    refuse_chance(folded, path)
    lower_opset(folded)
    sort_nodes(folded)
    del folded.graph.value_info[:]
    name_nodes(folded)
    folded = typed(folded, str(path))
    _require_fixed(folded, path)
    return folded


def _folded(model: ModelProto) -> ModelProto:
    from onnxscript import ir, optimizer

    graph = ir.serde.deserialize_model(model)
    optimizer.optimize_ir(
        graph,
        num_iterations=4,
        input_size_limit=_FOLDED,
        output_size_limit=_FOLDED,
        should_fold=_is_small_fill,
    )
    return ir.serde.serialize_model(graph)


def _is_small_fill(node: Any) -> bool | None:
    """Whether to fold a ConstantOfShape, which the optimiser leaves: paddings are made of it."""
    if node.op_type != "ConstantOfShape":
        return None
    shape: list[int] = node.inputs[0].const_value.numpy().tolist()
    return math.prod(shape) <= _FOLDED


def _require_fixed(model: ModelProto, path: Path) -> None:
    known = tensors(model)
    for node in model.graph.node:
        for name in filter(None, node.output):
            if None in known.get(name, Tensor(0, (None,))).shape:
                raise MismatchedArtifact(
                    f"{path}: the size of what {node.op_type} {node.name!r} gives depends on the "
                    "picture, as in detectors; expected a network for semantic segmentation",
                    hint="export the network alone, without post-processing such as non-maximum "
                    "suppression",
                )


def _lift_constants(model: ModelProto) -> None:
    """Make initializers of Constant nodes: weights are looked for there."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value = _constant(node)
        if value is None:
            kept.append(node)
        else:
            value.name = node.output[0]
            model.graph.initializer.append(value)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _leave_out_empty(model: ModelProto) -> None:
    """Leave out inputs of Resize that hold nothing, which opset 11 could not leave out."""
    empty = {weight.name for weight in model.graph.initializer if 0 in weight.dims}
    for node in model.graph.node:
        if node.op_type == "Resize":
            for place, name in enumerate(node.input):
                if name in empty:
                    node.input[place] = ""


def _constant(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor: TensorProto = TensorProto.FromString(attribute.t.SerializeToString())
        return tensor
    kinds = {
        "value_float": TensorProto.FLOAT,
        "value_int": TensorProto.INT64,
        "value_floats": TensorProto.FLOAT,
        "value_ints": TensorProto.INT64,
    }
    if attribute.name not in kinds:
        return None
    value = onnx.helper.get_attribute_value(attribute)
    shape = [len(value)] if isinstance(value, (list, tuple)) else []
    values = value if shape else [value]
    made: TensorProto = onnx.helper.make_tensor(
        node.output[0], kinds[attribute.name], shape, values
    )
    return made


def name_nodes(model: ModelProto) -> None:
    """Give each node a name of its own, by which layers are kept and judged."""
    taken: set[str] = set()
    for node in model.graph.node:
        base = node.name or (node.output[0] if node.output else node.op_type)
        node.name = unused_name(base, taken)


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename a tensor; one that has the new name already gets another."""
    if old == new:
        return
    names = {name for node in every_node(model.graph) for name in (*node.input, *node.output)}
    names |= {v.name for v in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
    if new in names:
        count = 1
        while f"{new}_{count}" in names:
            count += 1
        _renamed(model, new, f"{new}_{count}")
    _renamed(model, old, new)


def _renamed(model: ModelProto, old: str, new: str) -> None:
    graph = model.graph
    values: list[ValueInfoProto | TensorProto] = [*graph.input, *graph.output, *graph.value_info]
    for value in (*values, *graph.initializer):
        if value.name == old:
            value.name = new
    for node in every_node(graph):
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the optimiser's log and warnings."""
    names = ("onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
