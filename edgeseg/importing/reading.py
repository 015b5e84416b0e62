"""Read an ONNX file of another tool and bring its operators into the form that is built on here.

Opsets from 11 on are raised to at least 13, functions are inlined, and a network in half or double
precision becomes float32: engines of reduced precision are built and judged from float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.artifacts.files import LFS_HINT, require_file, sha256_file
from edgeseg.engines.external_data import external_locations, require_local_weights
from edgeseg.engines.network import MAX_BYTES
from edgeseg.errors import CorruptArtifact, EdgesegError, MismatchedArtifact
from edgeseg.precision.graph import sort_nodes

OLDEST_OPSET = 11
"""Resize has had its modes of coordinates since then."""

_BUILDABLE = 13  # Q/DQ per channel, and Squeeze with its axes as an input.
_CURRENT = 18
_OURS = ("", "ai.onnx")
_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)
_CONTROL = frozenset({"If", "Loop", "Scan"})
_CHANCE = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
     "Multinomial"}
)  # fmt: skip
_WIDER: dict[int, int] = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.DOUBLE: TensorProto.FLOAT,
    TensorProto.UINT8: TensorProto.INT32,
    TensorProto.INT8: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT64,
    TensorProto.UINT64: TensorProto.INT64,
}
"""Types within a graph that TensorRT does not compute in, and what takes their place."""

_AGAIN = "export it again with the tool that wrote it, or copy it again"
_TO_ONNX = "export it to ONNX: torch.onnx.export for PyTorch, tf2onnx for TensorFlow and TFLite"
_UNREGISTERED = re.compile(r"No Op registered for (\w+)")
_PLAIN = "export it without the optimiser of a runtime, as plain ONNX"

T = TypeVar("T")


@dataclass(frozen=True)
class Original:
    """A network as another tool wrote it.

    Attributes:
        path: The ONNX file.
        sha256: Its hash, without that of external data.
        model: Its graph in float32, opset 13 or newer, without functions.
        metadata: Its ``metadata_props``.
        halved: Whether it computes in float16 in the file.
        ports: NumPy's names of the types of its inputs and outputs in the file, by name.
        tensors: Names of the tensors that its nodes make in the file.
    """

    path: Path
    sha256: str
    model: ModelProto
    metadata: dict[str, str]
    halved: bool
    ports: dict[str, str]
    tensors: frozenset[str]


def read(path: Path) -> Original:
    """Read the network at ``path``.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: It is no ONNX network, or names weights outside its folder.
        MismatchedArtifact: Its opset is older than 11, it is quantised, or it uses operators that
            are not ONNX's own.
    """
    _require_size(path)
    model = _load(path)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    made = frozenset(name for node in model.graph.node for name in node.output)
    model = _inlined(model, path)
    _refuse_operators(model, path)
    model = _raised(model, path)
    ports = {
        value.name: _dtype_name(value.type.tensor_type.elem_type)
        for value in (*model.graph.input, *model.graph.output)
    }
    halved = attempt(path, "reading its weights", lambda: _widen(model))
    return Original(path, sha256_file(path), model, metadata, halved, ports, made)


def _dtype_name(kind: int) -> str:
    try:
        return helper.tensor_dtype_to_np_dtype(kind).name
    except (KeyError, TypeError):
        return "unknown"


def maker(original: Original) -> str:
    """Name and version of the tool that exported the network."""
    model = original.model
    return f"{model.producer_name or 'unknown'} {model.producer_version}".strip()[:100]


def attempt(path: Path, doing: str, work: Callable[[], T]) -> T:
    """Run a step on the network; exceptions of libraries become CorruptArtifact."""
    try:
        return work()
    except (EdgesegError, ModuleNotFoundError):  # The command line says what to install.
        raise
    except Exception as error:  # onnx and onnxscript raise nearly every class that there is.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorruptArtifact(f"{path}: {doing} failed ({reason})", hint=_AGAIN) from error


def _require_size(path: Path) -> None:
    size = require_file(path).stat().st_size
    try:
        require_local_weights(path)
        outside = {path.parent / location for location in external_locations(path)}
    except CorruptArtifact as error:
        if error.hint == LFS_HINT:
            raise
        hint = _AGAIN if path.suffix.lower() == ".onnx" else _TO_ONNX
        raise CorruptArtifact(error.message, hint=hint) from error
    size += sum(each.stat().st_size for each in outside)
    if size > MAX_BYTES:
        raise CorruptArtifact(
            f"{path}: expected at most {MAX_BYTES} bytes with its weights, found {size}",
            hint="a network of this size is too slow for a camera: use a smaller variant of it",
        )


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load(path)
        for part in (*model.opset_import, *every_node(model.graph)):
            part.domain = "" if part.domain in _OURS else part.domain
        # Some converters leave the nodes in no order.
        sort_nodes(model)
        _check(model)
    except (
        DecodeError,
        onnx.checker.ValidationError,
        OSError,
        ValueError,
        IndexError,
        RuntimeError,
        TypeError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CorruptArtifact(
            f"{path}: not a valid ONNX network ({reason})", hint=_newer(reason) or _AGAIN
        ) from error
    return model


def _newer(reason: str) -> str | None:
    """What to do about an operator that the opset of the file has not."""
    match = _UNREGISTERED.match(reason)
    if match is None:
        return None
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if not s.domain]
    since = [schema.since_version for schema in schemas if schema.name == match[1]]
    if not since:
        return "export it as plain ONNX: operators of other libraries are not taken"
    return f"export it again with opset {min(since)} or newer"


def _check(model: ModelProto) -> None:
    """Run onnx's checker, which refuses ports without a shape; runtimes take or infer it."""
    kinds = [value.type.tensor_type for value in (*model.graph.input, *model.graph.output)]
    shapeless = [kind for kind in kinds if kind.elem_type and not kind.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    onnx.checker.check_model(model)
    for kind in shapeless:
        kind.ClearField("shape")


def _inlined(model: ModelProto, path: Path) -> ModelProto:
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    def inline() -> ModelProto:
        inlined: ModelProto = inline_local_functions(model)
        return inlined

    return attempt(path, "inlining its functions", inline)


def _refuse_operators(model: ModelProto, path: Path) -> None:
    # First: quantisers add operators of their runtime to ONNX's own.
    if any(node.op_type in _QUANTISED for node in model.graph.node):
        raise MismatchedArtifact(
            f"{path}: expected a network in floating point, found quantised layers",
            hint="import the float32 network, then `edgeseg calibrate` and `edgeseg build --int8`; "
            "or quantise the model.onnx of that import and give it to `edgeseg build --onnx`",
        )
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in _OURS})
    if foreign:
        raise MismatchedArtifact(
            f"{path}: expected operators of ONNX itself, found {', '.join(foreign[:5])}",
            hint=_PLAIN,
        )
    sparse = [weight.values.name for weight in model.graph.sparse_initializer]
    sparse += [n.output[0] for n in every_node(model.graph) if _is_sparse(n)]
    if sparse:
        raise MismatchedArtifact(
            f"{path}: expected weights that are stored whole, found sparse ones "
            f"({', '.join(sparse[:5])})",
            hint="export it again with dense weights (in PyTorch: .to_dense()); zeros may stay",
        )


def _is_sparse(node: NodeProto) -> bool:
    return any(each.type == onnx.AttributeProto.SPARSE_TENSOR for each in node.attribute)


def refuse_control_flow(model: ModelProto, path: Path) -> None:
    """Raise MismatchedArtifact for branches and loops that shapes and constants did not decide."""
    found = [node for node in model.graph.node if node.op_type in _CONTROL]
    if found:
        raise MismatchedArtifact(
            f"{path}: expected a graph without control flow, found {_named(found[0])}",
            hint="export it traced (torch.onnx.export of the module), not scripted",
        )


def refuse_chance(model: ModelProto, path: Path) -> None:
    """Raise MismatchedArtifact for noise and for dropout and BatchNorm in training mode."""
    constants = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        training = any(a.name == "training_mode" and a.i for a in node.attribute)
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
            training = bool(numpy_helper.to_array(constants[node.input[2]]).any())
        if training or node.op_type in _CHANCE:
            raise MismatchedArtifact(
                f"{path}: expected the same result for the same picture, found {_named(node)} as "
                "in training",
                hint="call model.eval() before the export",
            )


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the branches in it, which read its tensors by name."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from every_node(attribute.g)


def _named(node: NodeProto) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def _raised(model: ModelProto, path: Path) -> ModelProto:
    """Raise the opset where it is older than what engines are built from."""
    version = max((o.version for o in model.opset_import if o.domain in _OURS), default=0)
    if version < OLDEST_OPSET:
        raise MismatchedArtifact(
            f"{path}: expected opset {OLDEST_OPSET} or newer, found {version}",
            hint="export it again with opset_version=18",
        )
    if version >= _BUILDABLE:
        return model
    return attempt(
        path,
        f"raising its opset from {version} to {_CURRENT}",
        lambda: onnx.version_converter.convert_version(model, _CURRENT),
    )


def _widen(model: ModelProto) -> bool:
    """Turn weights, casts and ports into :data:`_WIDER` types in place; whether any was float16."""
    graph = model.graph
    found: set[int] = set()

    def wider(kind: int) -> int:
        found.add(kind)
        return _WIDER.get(kind, kind)

    def widen(tensor: TensorProto) -> None:
        kind = wider(tensor.data_type)
        if kind != tensor.data_type:
            values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    for weight in graph.initializer:
        widen(weight)
    for node in every_node(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                widen(attribute.t)
            if attribute.name in ("to", "dtype"):
                attribute.i = wider(attribute.i)
    if found & _WIDER.keys():
        del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = wider(value.type.tensor_type.elem_type)
    return TensorProto.FLOAT16 in found
