"""Graphs of reduced precision made by other tools: ModelOpt, ONNX Runtime, NNCF and others.

They are used unchanged: the precision is read from the graph, the card comes from the original
FP32 network, and the gate compares the two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from edgeseg.artifacts.card import CARD_KEY, Precision
from edgeseg.artifacts.files import sha256_file
from edgeseg.building.fp32 import Fp32Network
from edgeseg.building.graph import BuildOptions, RuntimeGraph, runtime_graph
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.precision.graph import load_model, precision_report, producers, read_card
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.runtime_limits import require_tensorrt_form

_OPERATORS = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"})


def precision_of(path: Path) -> Precision:
    """Read the precision of the graph at ``path``.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: The file is not a network, or not of reduced precision.
    """
    return _precision(load_model(path, any_order=True), path)


def _precision(model: ModelProto, path: Path) -> Precision:
    found = precision_report(model, str(path)).precision
    if found != "fp32":
        return found
    if any(node.op_type in _OPERATORS for node in model.graph.node):
        raise MismatchedArtifact(
            f"{path} is quantised with integer operators (QLinearConv …), which no runtime but "
            "ONNX Runtime reads; expected pairs of QuantizeLinear and DequantizeLinear",
            hint="quantise again with QuantFormat.QDQ",
        )
    raise MismatchedArtifact(
        f"{path}: expected a graph in FP16, or with Q/DQ before activations and weights; found "
        "none of its layers so",
        hint="build from the FP32 network with --int8 or --fp16",
    )


def adopt(
    network: Fp32Network, path: Path, precision: Precision, graph_format: GraphFormat
) -> RuntimeGraph:
    """Give the graph at ``path`` the card of the FP32 network it was made from.

    Args:
        network: The original FP32 network.
        precision: Precision that the graph must have.
        graph_format: Runtime that will read it.

    Raises:
        UsageError: The graph has another precision.
        ArtifactError: It is not a network, its card or input does not match ``network``, or
            TensorRT would misread it.
    """
    model = load_model(path, any_order=True)
    found = _precision(model, path)
    if found != precision:
        raise UsageError(
            f"{path} is a graph in {found}, not {precision}",
            hint=f"omit --{precision}: the graph states it",
        )
    _require_card(model, network, path)
    _require_same_ends(model, network, path)
    if graph_format == "tensorrt":
        require_tensorrt_form(model, str(path))
    for index, node in enumerate(model.graph.node):  # the precision of layers is checked by name
        node.name = node.name or f"{node.op_type}_{index}"
    maker = f"{model.producer_name or 'unknown'} {model.producer_version}".strip()
    options: BuildOptions = {"made_by": maker, "made_from_sha256": sha256_file(path)}
    if precision == "int8" and graph_format != "tensorrt":
        options["reduce_range"] = _has_seven_bits(model)
    return runtime_graph(network, model, precision, graph_format, options)


def _require_card(model: ModelProto, network: Fp32Network, path: Path) -> None:
    if all(entry.key != CARD_KEY for entry in model.metadata_props):
        return
    card = read_card(model, str(path))
    for what in ("classes", "input", "output"):
        if getattr(card, what) != getattr(network.card, what):
            raise MismatchedArtifact(
                f"{path}: the {what} in its card are not those of {network.path}",
                hint="name the FP32 network that it was made from: "
                f"`edgeseg build NETWORK --onnx {path}`",
            )


def _require_same_ends(model: ModelProto, network: Fp32Network, path: Path) -> None:
    """Check that inputs and outputs match FP32: float32 pictures in, label maps out."""
    for role in ("input", "output"):
        expected, found = (
            [_signature(value) for value in getattr(graph, role)]
            for graph in (network.model.graph, model.graph)
        )
        if [e[1:] for e in expected] != [f[1:] for f in found]:
            raise MismatchedArtifact(
                f"{path}: expected the {role} of {network.path}, {_text(expected)}; "
                f"found {_text(found)}",
                hint="convert it with its inputs and outputs as they are (`keep_io_types=True`)",
            )


def _signature(value: object) -> tuple[str, int, tuple[int, ...]]:
    kind = value.type.tensor_type  # type: ignore[attr-defined]  # a ValueInfoProto
    sizes = tuple(d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim)
    return value.name, kind.elem_type, sizes  # type: ignore[attr-defined]


def _text(values: list[tuple[str, int, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} {TensorProto.DataType.Name(kind).lower()} "
        f"({', '.join(str(size or 'N') for size in sizes)})"
        for name, kind, sizes in values
    )


def _has_seven_bits(model: ModelProto) -> bool:
    """Whether all its int8 weights lie within ±64, where no x86 kernel saturates."""
    made_by = producers(model)
    read = {node.input[0] for node in made_by.values() if node.op_type == "DequantizeLinear"}
    weights = [
        numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if weight.name in read and weight.data_type in (TensorProto.INT8, TensorProto.UINT8)
    ]
    # Weights that are quantised in the graph itself are unknown, and taken for full-range.
    return bool(weights) and all(
        weight.dtype == np.int8 and np.abs(weight.astype(np.int16)).max(initial=0) <= 64
        for weight in weights
    )
