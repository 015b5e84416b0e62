"""What a parser makes of an ONNX network: layers and tensors with their types and shapes."""

from dataclasses import dataclass, field

import onnx
from onnx import ModelProto, TensorProto

KINDS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Relu": "ACTIVATION",
    "Clip": "ACTIVATION",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "Resize": "RESIZE",
    "Concat": "CONCATENATION",
    "Add": "ELEMENTWISE",
    "Mul": "ELEMENTWISE",
    "Sub": "ELEMENTWISE",
    "Pad": "SLICE",
    "Slice": "SLICE",
    "Cast": "CAST",
    "ArgMax": "TOPK",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Flatten": "SHUFFLE",
    "Squeeze": "SHUFFLE",
    "Unsqueeze": "SHUFFLE",
    "Identity": "IDENTITY",
    "Constant": "CONSTANT",
    "Shape": "SHAPE",
    "Gather": "GATHER",
}
"""Names of ``LayerType`` by ONNX operator."""

DTYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}


@dataclass(eq=False)
class TensorFacts:
    """Name, ``DataType`` name and shape, -1 where a dimension is open."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(eq=False)
class LayerFacts:
    """One node; ``inputs`` are its activations, without weights that lie in the file."""

    name: str
    kind: str
    operator: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


@dataclass
class Parsed:
    """A whole network, or the place and the reason where the parser gave up."""

    inputs: list[TensorFacts] = field(default_factory=list)
    outputs: list[TensorFacts] = field(default_factory=list)
    layers: list[LayerFacts] = field(default_factory=list)
    fault: tuple[int, str, str, str] | None = None


def parse(data: bytes, refuses: tuple[str, ...] = ()) -> Parsed:
    """Read ONNX bytes; raises what ``onnx`` raises where they are none."""
    model = ModelProto.FromString(data)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = model.graph
    constants = {weight.name for weight in graph.initializer}
    known = {
        value.name: TensorFacts(
            value.name,
            DTYPES[value.type.tensor_type.elem_type],
            tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.name not in constants
    }
    found = Parsed([known[v.name] for v in graph.input], [known[v.name] for v in graph.output])
    for place, node in enumerate(graph.node):
        if node.op_type in refuses or node.op_type not in KINDS:
            reason = f"No importer registered for op: {node.op_type}"
            found.fault = (place, node.name, node.op_type, reason)
            break
        inputs = [known[name] for name in node.input if name and name not in constants]
        outputs = [known[name] for name in node.output if name]
        kind = KINDS[node.op_type]
        found.layers.append(LayerFacts(node.name, kind, node.op_type, inputs, outputs))
    return found
