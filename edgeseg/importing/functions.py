"""Spell out operators of newer opsets that are functions of older ones.

* GroupNormalization (opset 21; onnx's checker refuses the deprecated one before): onnx infers no
  shape for it. Its groups become channels of an InstanceNormalization, as torch's older exporter
  writes it, because the function in the specification squares activations, which overflows FP16.
* Attention (opset 23): TensorRT-RTX compiles only some of its forms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.inliner import inline_selected_functions

_INLINED = ("Attention",)
_LOWERED = 20
_MOST_GROUPS = 1 << 16


def spelled_out(model: ModelProto) -> ModelProto:
    """Return a model without those operators; ``model`` itself may change."""
    kinds = {node.op_type for node in model.graph.node}
    if "GroupNormalization" in kinds:
        _spell_out_group_norm(model)
    if kinds.isdisjoint(_INLINED):
        return model
    # The inliner asks for the types of weights too.
    model.graph.value_info.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        for weight in model.graph.initializer
    )
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    names = [("", kind) for kind in _INLINED]
    inlined: ModelProto = inline_selected_functions(typed, names, inline_schema_functions=True)
    return inlined


def lower_opset(model: ModelProto) -> None:
    """Label the graph with opset 20, in place, if each of its operators was the same there.

    Later opsets add little but element types, and older runtimes refuse their number. ONNX Runtime
    1.32 places Q/DQ pairs of mixed types in graphs of opset 21 and newer.
    """
    (label,) = [each for each in model.opset_import if each.domain in ("", "ai.onnx")] or [None]
    if label is None or label.version <= _LOWERED:
        return
    for node in model.graph.node:
        try:
            old = onnx.defs.get_schema(node.op_type, _LOWERED)
        except onnx.defs.SchemaError:
            return
        if any(each.name not in old.attributes for each in node.attribute):
            return
    label.version = _LOWERED


def _spell_out_group_norm(model: ModelProto) -> None:
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "GroupNormalization":
            nodes += _spelled_out(model, node)
        else:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _spelled_out(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    name, (image, scale, bias) = node.output[0], node.input
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)
    if not 0 < groups <= _MOST_GROUPS:
        raise ValueError(f"GroupNormalization of {groups} groups")
    made: list[NodeProto] = []

    def constant(what: str, value: list[float], kind: type) -> str:
        tensor = numpy_helper.from_array(np.array(value, kind), f"{name}/{what}")
        model.graph.initializer.append(tensor)
        return tensor.name

    def add(op: str, what: str, *inputs: str, **values: Any) -> str:
        output = f"{name}/{what}" if what else name
        made.append(helper.make_node(op, inputs, [output], output, **values))
        return output

    whole = add("Shape", "shape", image)
    split = add("Reshape", "groups", image, constant("split", [0, groups, -1], np.int64))
    ones = constant("ones", [1] * groups, np.float32)
    zeros = constant("zeros", [0] * groups, np.float32)
    normal = add("InstanceNormalization", "normal", split, ones, zeros, epsilon=epsilon)
    joined = add("Reshape", "joined", normal, whole)
    axes = constant("axes", [1, -1, 1, 1], np.int64)
    scaled = add("Mul", "scaled", joined, add("Reshape", "scale", scale, axes))
    add("Add", "", scaled, add("Reshape", "bias", bias, axes))
    return made
