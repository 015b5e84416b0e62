"""TensorRT 8.6 … 10.11: the precision of the graph, repeated in flags and constraints.

These versions may compute each layer in any precision that a flag allows, so a layer that the
graph keeps in FP32 would come out as FP16 where that is faster, and one in FP16 as FP32. Each
layer that computes is therefore bound to what the graph says. No calibrator is involved: Q/DQ
pairs hold the ranges, or, for a DLA of that age, which takes no Q/DQ, the tensors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.artifacts.card import Precision
from edgeseg.engines.tensorrt.layers import computing, layer_precisions


@dataclass(frozen=True)
class Implicit:
    """Precisions and ranges for an FP32 network whose graph holds neither.

    Attributes:
        nodes: The precision of each computing node.
        ranges: Lowest and highest value of each activation; needed where a node is ``int8``.
    """

    nodes: Mapping[str, Precision]
    ranges: Mapping[str, tuple[float, float]]


def bind_precisions(trt: Any, config: Any, network: Any) -> None:
    """Allow the precisions that the graph has, and hold each computing layer to its own."""
    found = layer_precisions(trt, network)
    kinds = set(found.values()) | _low_tensors(trt, network)
    _allow(trt, config, kinds)
    if kinds - {"fp32"}:
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        for layer in computing(trt, network):
            # Q/DQ on both operands is itself the order to compute in INT8.
            if found[layer.name] != "int8":
                _bind(trt, layer, found[layer.name])


def bind_implicit(trt: Any, config: Any, network: Any, implicit: Implicit) -> None:
    """Hold the layers of an FP32 network to ``implicit``, and give its tensors their ranges.

    What stays FP32 is sent to the GPU, since a DLA computes in INT8 and FP16 alone. The
    constraints are preferred and not obeyed: a layer that the DLA takes in another precision
    only is to fall back, with TensorRT's warning, and not to end the build.
    """
    # FP16 as well: a DLA's own conversions between its INT8 layers and the rest need it.
    _allow(trt, config, {*implicit.nodes.values(), "fp16"})
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    for layer in computing(trt, network):
        precision = implicit.nodes.get(layer.name, "fp32")
        _bind(trt, layer, precision)
        if precision == "fp32":
            config.set_device_type(layer, trt.DeviceType.GPU)
    if "int8" not in implicit.nodes.values():
        return
    for tensor in _tensors(network):
        limits = implicit.ranges.get(tensor.name)
        largest = max(map(abs, limits)) if limits else 0.0
        if largest:  # Symmetric, as 8 bits with zero point 0 are; a range of 0 is none.
            tensor.set_dynamic_range(-largest, largest)


def _allow(trt: Any, config: Any, kinds: set[Precision]) -> None:
    for precision, flag in (("fp16", "FP16"), ("int8", "INT8")):
        if precision in kinds:
            config.set_flag(getattr(trt.BuilderFlag, flag))


def _bind(trt: Any, layer: Any, precision: Precision) -> None:
    kinds = trt.DataType
    layer.precision = {"fp32": kinds.FLOAT, "fp16": kinds.HALF, "int8": kinds.INT8}[precision]
    if precision == "fp32":
        layer.set_output_type(0, kinds.FLOAT)


def _low_tensors(trt: Any, network: Any) -> set[Precision]:
    dtypes = [tensor.dtype for tensor in _tensors(network)]
    low: set[Precision] = set()
    if trt.DataType.HALF in dtypes:
        low.add("fp16")
    if trt.DataType.INT8 in dtypes:
        low.add("int8")
    return low


def _tensors(network: Any) -> list[Any]:
    """Inputs and what each layer makes."""
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    layers = (network.get_layer(place) for place in range(network.num_layers))
    return inputs + [layer.get_output(p) for layer in layers for p in range(layer.num_outputs)]
