"""Read ONNX graphs: card, shapes, nodes, and the work and precision of each node."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto

from edgeseg.artifacts.card import CARD_KEY, ModelCard, Precision
from edgeseg.artifacts.files import require_file
from edgeseg.artifacts.sidecar import PrecisionReport
from edgeseg.engines.external_data import require_local_weights
from edgeseg.engines.network import card_from_metadata
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError

COMPUTE = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operators whose multiply-accumulates (MACs) and weights are counted."""

_PASSING = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_ROUNDED = frozenset({"Concat", "MaxPool"})
"""Operators that give a value of their inputs, whose result needs no rounding of its own."""

_SHAPING = 1024
"""Largest weight, in elements, that may decide a shape."""


def load_model(path: Path, *, any_order: bool = False) -> ModelProto:
    """Read and check an ONNX file.

    With ``any_order``, nodes need not be topologically sorted: some converters leave them unsorted.

    Raises:
        UsageError: The file does not exist.
        CorruptArtifact: The file is empty, truncated, not an ONNX network, or refers to weights
            outside its own folder.
    """
    require_file(path)
    # Loading reads the whole file and its external data; a huge sparse file is not a network.
    require_local_weights(path)
    try:
        if not any_order:
            # Check by path: a model in memory would be serialised and parsed again, twice its size.
            onnx.checker.check_model(str(path))
        model = onnx.load(path)
        if any_order:
            sort_nodes(model)
            onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise CorruptArtifact(
            f"{path}: not a valid ONNX network ({reason[0] if reason else type(error).__name__})",
            hint="export it again with `edgeseg export --overwrite`, or copy it again",
        ) from error
    return model


def read_card(model: ModelProto, origin: str) -> ModelCard:
    """Read the card in ``metadata_props``; raises the errors of ``card_from_metadata``."""
    return card_from_metadata({p.key: p.value for p in model.metadata_props}, origin)


def write_card(model: ModelProto, card: ModelCard) -> None:
    """Write ``card`` to ``metadata_props``, with the class names as plain text for viewers."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {CARD_KEY: card.to_json(), "names": ",".join(card.classes.names)}
    )


def derived_card(card: ModelCard, parent_sha256: str, precision: Precision) -> ModelCard:
    """The card of an artefact derived from one with ``card``; keeps the creation time.

    The build time is in the side-car only: in the artefact it would make each rebuild of the
    same network a different file.
    """
    derived = card.derive(parent_sha256=parent_sha256, precision=precision)
    return derived.model_copy(update={"created": card.created})


def serialize(model: ModelProto) -> bytes:
    """Serialize ``model`` deterministically."""
    return bytes(model.SerializeToString(deterministic=True))


def copy_of(model: ModelProto) -> ModelProto:
    """Return a deep copy of ``model`` that can be modified."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def at_card_size(model: ModelProto) -> ModelProto:
    """Return ``model`` with a dynamic height and width fixed to those of its card.

    Returns ``model`` itself if its size is fixed already or it has no card.
    """
    props = {prop.key: prop.value for prop in model.metadata_props}
    dims = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else []
    if CARD_KEY not in props or len(dims) != 4 or all(d.HasField("dim_value") for d in dims[2:]):
        return model
    spec = card_from_metadata(props, "the network").input
    fixed = copy_of(model)
    # Shapes inferred for dynamic sizes would contradict those inferred now.
    del fixed.graph.value_info[:]
    open_dims = fixed.graph.input[0].type.tensor_type.shape.dim[2:]
    for dim, size in zip(open_dims, (spec.height, spec.width), strict=True):
        dim.dim_value = size
    return fixed


def typed(model: ModelProto, origin: str) -> ModelProto:
    """Return a copy of ``model`` with the type and shape of every tensor inferred.

    Raises:
        MismatchedArtifact: Types or shapes contradict each other.
    """
    try:
        # onnx copies what it is given several times, and no shape depends on large weights.
        inferred = onnx.shape_inference.infer_shapes(
            _without_large_weights(model), strict_mode=True, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise MismatchedArtifact(
            f"{origin}: the shapes in its graph do not fit together "
            f"({' '.join(str(error).split())[:200]})",
            hint="export the network again",
        ) from error
    known = copy_of(model)
    for old, new in (
        (known.graph.value_info, inferred.graph.value_info),
        (known.graph.output, inferred.graph.output),
    ):
        del old[:]
        old.extend(new)
    return known


def _without_large_weights(model: ModelProto) -> ModelProto:
    """The graph with the types and shapes of large weights, without their values."""
    graph = model.graph
    light = onnx.helper.make_graph(
        graph.node,
        graph.name,
        graph.input,
        graph.output,
        value_info=graph.value_info,
        sparse_initializer=graph.sparse_initializer,
    )
    for weight in graph.initializer:
        if math.prod(weight.dims) > _SHAPING:
            light.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        else:
            light.initializer.append(weight)
    return onnx.helper.make_model(
        light,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
    )


@dataclass(frozen=True)
class Tensor:
    """Element type (``TensorProto`` number) and shape; a dynamic dimension is None."""

    dtype: int
    shape: tuple[int | None, ...]


def tensors(model: ModelProto) -> dict[str, Tensor]:
    """All tensors of a :func:`typed` graph by name: inputs, outputs, activations, weights."""
    graph = model.graph
    found: dict[str, Tensor] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        found[value.name] = Tensor(kind.elem_type, shape)
    for weight in graph.initializer:
        found[weight.name] = Tensor(weight.data_type, tuple(weight.dims))
    return found


def unused_name(base: str, taken: set[str]) -> str:
    """Return ``base``, or ``base_2``, ``base_3`` …, whichever is not taken yet, and take it."""
    names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Map each tensor to the node that produces it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def with_stored_constants(model: ModelProto) -> ModelProto:
    """Return a copy of ``model`` whose Constant nodes are initializers.

    Exporters write either. Of initializers alone a quantiser knows that they are weights, and
    shape inference that a factor of a Resize survives a change of precision.
    """
    copy = copy_of(model)
    left = []
    for node in copy.graph.node:
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            left.append(NodeProto.FromString(node.SerializeToString()))
        else:
            tensor.name = node.output[0]
            copy.graph.initializer.append(tensor)
    del copy.graph.node[:]
    copy.graph.node.extend(left)
    return copy


def _constant(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node; None if it is text or sparse."""
    kinds = {"value_int": np.int64, "value_float": np.float32}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(value)
            return tensor
        if attribute.name.removesuffix("s") in kinds:
            dtype = kinds[attribute.name.removesuffix("s")]
            stored: TensorProto = onnx.numpy_helper.from_array(np.array(value, dtype))
            return stored
    return None


def constants(model: ModelProto) -> set[str]:
    """Names of the weights, and of tensors computed from weights alone, in a sorted graph."""
    found = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if all(not name or name in found for name in node.input):
            found.update(node.output)
    return found


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Map each tensor to the nodes that read it."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def matching_nodes(model: ModelProto, patterns: Sequence[str]) -> list[str]:
    """Names of the nodes of those names or matching patterns, as ``decoder/*`` or ``*score*``.

    Raises:
        UsageError: A pattern matches no node; the message lists the computing nodes.
    """
    names = [node.name for node in model.graph.node]
    chosen: list[str] = []
    for pattern in patterns:
        # A name may itself hold brackets and stars.
        hits = [each for each in names if each == pattern or fnmatch.fnmatchcase(each, pattern)]
        if not hits:
            known = ", ".join(n.name for n in model.graph.node if n.op_type in COMPUTE)
            raise UsageError(f"no node is named {pattern!r}; those that compute are: {known}")
        chosen += hits
    return list(dict.fromkeys(chosen))


def sort_nodes(model: ModelProto) -> None:
    """Sort the nodes topologically in place, as ONNX requires; ValueError if they form a cycle."""
    graph = model.graph
    made_by = producers(model)
    begun: set[str] = set()
    done: set[str] = set()
    ordered: list[NodeProto] = []

    stack = [(node, False) for node in reversed(graph.node)]
    while stack:
        node, inputs_done = stack.pop()
        if node.output[0] in done:
            continue
        if inputs_done:
            done.add(node.output[0])
            ordered.append(node)
            continue
        if node.output[0] in begun:
            raise ValueError(f"node {node.name!r} depends on its own output")
        begun.add(node.output[0])
        stack.append((node, True))
        stack += [(made_by[name], False) for name in reversed(node.input) if name in made_by]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def remove_unread(model: ModelProto) -> None:
    """Remove nodes and weights whose results nothing reads, in place."""
    graph = model.graph
    made_by = producers(model)
    waiting = [output.name for output in graph.output]
    read: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in read:
            continue
        read.add(name)
        waiting += made_by[name].input if name in made_by else ()
    for index in reversed(range(len(graph.node))):
        if not read.intersection(graph.node[index].output):
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, weight elements and precision of one node, for one picture."""

    node: str
    macs: int
    weights: int
    precision: Precision


def work(model: ModelProto, origin: str = "the network") -> tuple[Work, ...]:
    """Multiply-accumulates, weight elements and precision of every computing node.

    A network of dynamic size is counted at the size of its card.

    A node is ``int8`` if both operands come from a DequantizeLinear, directly or through Concat
    and MaxPool, ``fp16`` if both are float16.

    Raises:
        MismatchedArtifact: The shape of an operand cannot be inferred from the graph.
    """
    model = typed(at_card_size(model), origin)
    known, made_by = tensors(model), producers(model)
    weights = {weight.name for weight in model.graph.initializer}
    return tuple(
        Work(
            node.name or node.output[0],
            _macs(node, known, origin),
            _weight_elements(node, made_by, weights, known),
            _precision(node, made_by, known),
        )
        for node in model.graph.node
        if node.op_type in COMPUTE
    )


def precision_report(model: ModelProto, origin: str = "the network") -> PrecisionReport:
    """Report the actual precision of the graph; raises the errors of :func:`work`."""
    return report_of(work(model, origin))


def report_of(nodes: Sequence[Work]) -> PrecisionReport:
    """Report the shares of MACs and weight elements in the lowest precision found."""
    lowest: Precision = "fp32"
    for candidate in ("fp16", "int8"):
        if any(node.precision == candidate for node in nodes):
            lowest = candidate
    low = [node for node in nodes if node.precision == lowest]
    reduced = lowest != "fp32"
    return PrecisionReport(
        precision=lowest,
        low_precision_share=_share([n.macs for n in low], [n.macs for n in nodes], reduced),
        low_precision_weights=_share([n.weights for n in low], [n.weights for n in nodes], reduced),
        kept=tuple(n.node for n in nodes if n.precision != lowest),
    )


def _share(part: Sequence[int], whole: Sequence[int], reduced: bool) -> float:
    total = sum(whole)
    return sum(part) / total if reduced and total else 0.0


def _macs(node: NodeProto, known: Mapping[str, Tensor], origin: str) -> int:
    data, weight, result = (
        _dims(name, known, origin, node.name)
        for name in (node.input[0], node.input[1], node.output[0])
    )
    if node.op_type == "Conv":
        return math.prod(weight) * math.prod(result[2:])
    if node.op_type == "ConvTranspose":
        return math.prod(weight) * math.prod(data[2:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(result) * (data[0] if transposed else data[-1])


def _dims(name: str, known: Mapping[str, Tensor], origin: str, node: str) -> list[int]:
    """Shape of a tensor, with the batch, the only dimension that may be dynamic, taken as 1."""
    shape = known[name].shape if name in known else ()
    if not shape or None in shape[1:]:
        raise MismatchedArtifact(
            f"{origin}: the shape of {name!r} at node {node!r} is not fixed",
            hint="export it for one size, without dynamic axes",
        )
    return [1 if size is None else size for size in shape]


def _weight_elements(
    node: NodeProto,
    made_by: Mapping[str, NodeProto],
    weights: set[str],
    known: Mapping[str, Tensor],
) -> int:
    source = _origin(node.input[1], made_by)
    return math.prod(size or 1 for size in known[source].shape) if source in weights else 0


def _origin(name: str, made_by: Mapping[str, NodeProto]) -> str:
    """The tensor from which ``name`` comes, before any Q/DQ pairs and casts."""
    while name in made_by and made_by[name].op_type in _PASSING:
        name = made_by[name].input[0]
    return name


def _precision(
    node: NodeProto, made_by: Mapping[str, NodeProto], known: Mapping[str, Tensor]
) -> Precision:
    operands = node.input[:2]
    if all(_dequantised(name, made_by) for name in operands):
        return "int8"
    if all(known[name].dtype == TensorProto.FLOAT16 for name in operands):
        return "fp16"
    return "fp32"


def _dequantised(name: str, made_by: Mapping[str, NodeProto]) -> bool:
    maker = made_by.get(name)
    if maker is not None and maker.op_type in _ROUNDED:
        return all(_dequantised(source, made_by) for source in maker.input)
    return maker is not None and maker.op_type == "DequantizeLinear"
