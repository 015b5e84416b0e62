"""Read the actual precision of each layer from TensorRT's own network."""

from __future__ import annotations

from typing import Any

from edgeseg.artifacts.card import Precision


def computing(trt: Any, network: Any) -> list[Any]:
    """The layers that multiply and accumulate."""
    kinds = (
        trt.LayerType.CONVOLUTION,
        trt.LayerType.DECONVOLUTION,
        trt.LayerType.MATRIX_MULTIPLY,
    )
    layers = (network.get_layer(place) for place in range(network.num_layers))
    return [layer for layer in layers if layer.type in kinds]


def layer_precisions(trt: Any, network: Any) -> dict[str, Precision]:
    """The precision of each computing layer of a parsed network, by the name of its ONNX node.

    A layer that was bound to a precision has that one; INT8 only with a range on what it reads
    and on what it makes, since TensorRT falls back without. Any other has what its tensors say.
    """
    dequantised: set[str] = set()
    for layer in (network.get_layer(place) for place in range(network.num_layers)):
        # The parser reshapes the two-dimensional weights of a MatMul behind their dequantisation,
        # which TensorRT moves across reshapes ("Explicit quantization" in its guide).
        reshaped = layer.type == trt.LayerType.SHUFFLE and layer.get_input(0).name in dequantised
        if layer.type == trt.LayerType.DEQUANTIZE or reshaped:
            dequantised.update(layer.get_output(n).name for n in range(layer.num_outputs))
    return {
        layer.name: _bound(trt, layer) or _stated(trt, layer, dequantised)
        for layer in computing(trt, network)
    }


def _bound(trt: Any, layer: Any) -> Precision | None:
    """Precision set on a layer of TensorRT 8.6 … 10.11; None if none was set."""
    if not getattr(layer, "precision_is_set", False):
        return None
    if layer.precision == trt.DataType.INT8:
        ends = (layer.get_input(0), layer.get_output(0))
        return "int8" if all(tensor.dynamic_range is not None for tensor in ends) else "fp32"
    return "fp16" if layer.precision == trt.DataType.HALF else "fp32"


def _stated(trt: Any, layer: Any, dequantised: set[str]) -> Precision:
    operands = [layer.get_input(place) for place in range(min(2, layer.num_inputs))]
    if len(operands) == 2 and all(t is not None and t.name in dequantised for t in operands):
        return "int8"
    return "fp16" if layer.get_output(0).dtype == trt.DataType.HALF else "fp32"
