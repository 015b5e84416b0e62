"""Small ONNX networks, written as text."""

import numpy as np
import onnx.parser
from numpy.typing import ArrayLike
from onnx import ModelProto, numpy_helper

from edgeseg.artifacts.card import ModelCard
from edgeseg.precision.graph import write_card


def onnx_network(
    inputs: str,
    outputs: str,
    nodes: str,
    *,
    card: ModelCard | None = None,
    opset: int = 18,
    **weights: ArrayLike,
) -> ModelProto:
    """A network of ``nodes``, each named after what it makes; ``Cast <to=2>`` is to uint8.

    ``inputs`` and ``outputs`` are types and names, as in ``float[N,3,16,24] image``.
    """
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> main ({inputs}) => ({outputs}) {{{nodes}}}'
    )
    for node in model.graph.node:
        node.name = node.output[0]
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    if card is not None:
        write_card(model, card)
    return model
