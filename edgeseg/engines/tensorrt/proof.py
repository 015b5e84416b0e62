"""The precision that TensorRT's own network has, layer by layer: proof instead of promise."""

from __future__ import annotations

from typing import Any

from edgeseg.card import Precision


def layer_precisions(trt: Any, network: Any) -> dict[str, Precision]:
    """The precision of each computing layer of a parsed network, by the name of its ONNX node."""
    kinds = (
        trt.LayerType.CONVOLUTION,
        trt.LayerType.DECONVOLUTION,
        trt.LayerType.MATRIX_MULTIPLY,
    )
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {
        layer.get_output(place).name: layer
        for layer in layers
        for place in range(layer.num_outputs)
    }
    found: dict[str, Precision] = {}
    for layer in layers:
        if layer.type not in kinds:
            continue
        operands = [layer.get_input(place) for place in range(min(2, layer.num_inputs))]
        sources = [made_by.get(tensor.name) for tensor in operands if tensor is not None]
        quantised = [s is not None and s.type == trt.LayerType.DEQUANTIZE for s in sources]
        if len(quantised) == 2 and all(quantised):
            found[layer.name] = "int8"
        elif layer.get_output(0).dtype == trt.DataType.HALF:
            found[layer.name] = "fp16"
        else:
            found[layer.name] = "fp32"
    return found
