"""Spell out GroupNormalization, whose shape onnx does not infer and few runtimes fuse.

The groups become channels of an InstanceNormalization, as torch's older exporter writes it. That is
the operator of opset 21: onnx's checker refuses the deprecated one before it.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper


def spell_out_group_norm(model: ModelProto) -> None:
    """Replace each GroupNormalization of pictures (N, C, H, W) by other operators, in place."""
    if not any(node.op_type == "GroupNormalization" for node in model.graph.node):
        return
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
    made: list[NodeProto] = []

    def constant(what: str, value: list[float], kind: type) -> str:
        tensor = numpy_helper.from_array(np.array(value, kind), f"{name}/{what}")
        model.graph.initializer.append(tensor)
        return tensor.name

    def add(op: str, what: str, *inputs: str, **values: float) -> str:
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
