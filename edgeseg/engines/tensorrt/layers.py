"""The precision of each layer, from the engine if it opens, else from TensorRT's network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.documents import Document


def computing(trt: Any, network: Any) -> list[Any]:
    """The layers that multiply and accumulate."""
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
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


DTYPES = {"FLOAT": "fp32", "HALF": "fp16"}
"""Names of ``DataType`` that people write otherwise."""

_WORDS = re.compile(r"\b(fp32|float|fp16|half|bf16|int8|uint8|int32|int64|bool)\b", re.IGNORECASE)


class Layer(Document):
    """One layer: its name, what it does, in which precision, and the shape that it makes.

    ``precision`` is that of its arithmetic where it multiplies and accumulates, else the type
    of what it makes. A dimension of ``shape`` is -1 where it varies.
    """

    name: str
    type: str
    precision: str
    shape: tuple[int, ...]
    device: Literal["gpu", "dla"] = "gpu"


class LayerTable(Document):
    """The layers of one engine.

    ``source`` says of what: ``engine`` lists what TensorRT fused and really chose, ``network``
    what it parsed, where no engine can be opened.
    """

    schema_version: Literal[1] = 1
    source: Literal["engine", "network"]
    layers: tuple[Layer, ...]


def layer_table(
    trt: Any, plan: bytes, network: Any, log: Any, on_gpu: Sequence[str] | None
) -> LayerTable:
    """The table of a built engine.

    Args:
        plan: The engine, as it was built in this process.
        network: The network it was built from.
        log: The logger of the build; what it says of a missing driver is not the build's.
        on_gpu: Layers that fall back from a DLA; None where there is no DLA.
    """
    layers = _of_engine(trt, plan, type(log)())
    if layers:
        return LayerTable(source="engine", layers=layers)
    return LayerTable(source="network", layers=_of_network(trt, network, on_gpu))


def _of_network(trt: Any, network: Any, on_gpu: Sequence[str] | None) -> tuple[Layer, ...]:
    computing = layer_precisions(trt, network)
    layers = [network.get_layer(place) for place in range(network.num_layers)]
    return tuple(
        Layer(
            name=layer.name,
            type=layer.type.name.lower(),
            precision=computing.get(layer.name) or _dtype(layer.get_output(0).dtype.name),
            shape=tuple(layer.get_output(0).shape),
            device="gpu" if on_gpu is None or layer.name in on_gpu else "dla",
        )
        for layer in layers
        # Weights and scales are not steps of the computation, and twice as many as those.
        if layer.num_outputs and layer.type != trt.LayerType.CONSTANT
    )


def _dtype(name: str) -> str:
    return DTYPES.get(name, name.lower())


def _of_engine(trt: Any, plan: bytes, log: Any) -> tuple[Layer, ...]:
    """Layers reported by the engine itself; empty if it does not open on this machine."""
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan) if runtime is not None else None
    if engine is None:
        return ()
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_of_json(text)


def layers_of_json(text: str) -> tuple[Layer, ...]:
    """Read what the engine inspector gives of an engine that was built with details.

    Entries of another form (names alone, without details) are passed over.
    """
    try:
        entries = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_read(entry) for entry in entries if isinstance(entry, dict) and "Name" in entry)


def _read(entry: dict[str, Any]) -> Layer:
    ends = [*(entry.get("Outputs") or ()), *(entry.get("Inputs") or ())]
    found = [_WORDS.search(str(end.get("Format/Datatype", ""))) for end in ends]
    words = [_dtype(word[0].upper()) for word in found if word]
    kind = str(entry.get("LayerType", "unknown"))
    return Layer(
        name=str(entry["Name"]),
        type=kind.lower(),
        precision=words[0] if words else "unknown",
        shape=tuple(ends[0].get("Dimensions") or ()) if ends else (),
        device="dla" if "dla" in kind.lower() else "gpu",
    )
