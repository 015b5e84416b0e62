from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from graphs import onnx_network
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeseg.artifacts.card import ModelCard
from edgeseg.data.folders import list_images, load_image
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.evaluation import agreement
from edgeseg.ops.preprocess import preprocess
from edgeseg.precision.graph import copy_of, precision_report, producers, serialize
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.policy import GraphFormat, kept_by_default
from edgeseg.precision.ranges import Ranges
from edgeseg.precision.runtime_limits import require_tensorrt_form

GRAPH_FORMATS: tuple[GraphFormat, ...] = ("onnxruntime", "openvino", "tensorrt")


def constant(model: ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(w) for w in model.graph.initializer if w.name == name)


def node_named(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def stays_float(model: ModelProto) -> set[str]:
    """Convolutions of either kind whose operands do not both come from a DequantizeLinear."""
    return set(precision_report(model).kept)


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_policy_keeps_first_convolution_and_scores(
    model: ModelProto, ranges: Ranges, graph_format: GraphFormat
) -> None:
    before = serialize(model)
    made = to_int8(model, ranges.ranges, graph_format=graph_format)
    onnx.checker.check_model(made, full_check=True)
    assert stays_float(made) == {"stem", "up", "head"}
    assert serialize(model) == before


def test_policy_keeps_all_scores_of_a_skip_architecture() -> None:
    """Scores of two depths meet at an Add behind a transposed convolution, as in an FCN."""
    model = onnx_network(
        "float[1,2,4,4] image",
        "int64[1,2,4,4] labels",
        """
        first = Conv (image, w)
        second = Conv (first, w)
        score_first = Conv (first, w)
        score_second = Conv (second, w)
        enlarged = ConvTranspose (score_second, w)
        sum = Add (score_first, enlarged)
        labels = ArgMax (sum)
        """,
    )
    scores = {"sum", "enlarged", "score_first", "score_second", "labels"}
    assert set(kept_by_default(model)) == {"first"} | scores


def test_tensorrt_flavour_is_signed_symmetric_and_before_convolutions_only(
    model: ModelProto, ranges: Ranges
) -> None:
    made = to_int8(model, ranges.ranges, graph_format="tensorrt")
    makers = producers(made)
    quantised = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert quantised
    for node in quantised:
        zero = constant(made, node.input[2])
        assert zero.dtype == np.int8
        assert not zero.any()
    for node in made.graph.node:
        reads_pairs = [
            name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input
        ]
        if node.op_type in {"Resize", "ConvTranspose", "Add", "Concat", "MaxPool", "ArgMax"}:
            assert not any(reads_pairs), node.name
        if node.op_type == "Conv" and node.name not in {"stem", "head"}:
            assert reads_pairs == [True, True, False], node.name


def scales_into(model: ModelProto, reader: NodeProto) -> set[tuple[float, int] | None]:
    """Scale and zero point of each input that comes from a pair; None for one that does not."""
    makers = producers(model)
    return {
        (float(constant(model, pair.input[1])), int(constant(model, pair.input[2])))
        if (pair := makers.get(name)) is not None and pair.op_type == "DequantizeLinear"
        else None
        for name in reader.input
    }


def test_openvino_concatenates_at_one_scale(model: ModelProto, ranges: Ranges) -> None:
    """No pair stands behind a Concat or a MaxPool, and none in front of them changes the scale."""
    read, refined = {}, {}
    for graph_format in ("openvino", "onnxruntime"):
        made = to_int8(model, ranges.ranges, graph_format=graph_format)
        read[graph_format] = scales_into(made, node_named(made, "concat"))
        read[graph_format] |= scales_into(made, node_named(made, "pool"))
        makers = producers(made)
        refined[graph_format] = {
            makers[node_named(made, n).input[0]].op_type for n in ("refine", "deep")
        }
    assert refined["openvino"] == {"Concat", "MaxPool"}
    low, high = zip(*(ranges.ranges[n] for n in ("stem_relu", "resize", "up")), strict=True)
    ((scale, zero_point),) = (pair for pair in read["openvino"] if pair is not None)
    assert None not in read["openvino"]
    assert scale == pytest.approx((max(high) - min(low)) / 255, rel=1e-5)
    assert zero_point == round(-min(low) / scale)
    # What the walk must find elsewhere: a scale a tensor, and a pair behind each.
    assert len(read["onnxruntime"]) > 1
    assert refined["onnxruntime"] == {"DequantizeLinear"}


def test_one_floating_input_of_a_concat_makes_its_reader_floating(
    model: ModelProto, ranges: Ranges
) -> None:
    made = to_int8(model, ranges.ranges, graph_format="openvino")
    assert "refine" not in stays_float(made)
    node_named(made, "concat").input[0] = "stem_relu"
    assert "refine" in stays_float(made)


def test_openvino_keeps_a_relu_whose_shared_range_lies_below_zero(
    model: ModelProto, ranges: Ranges
) -> None:
    made = to_int8(model, ranges.ranges, graph_format="openvino")
    assert {n.name for n in made.graph.node if n.op_type == "Relu"} == {
        "stem_relu", "deep_relu", "refine_relu",
    }  # fmt: skip
    makers = producers(made)
    # One rounding after Conv and ReLU together, not one after each.
    assert makers[node_named(made, "deep_relu").input[0]].op_type == "Conv"


def test_openvino_runs_fewer_kernels_than_with_the_placement_for_onnx_runtime(
    model: ModelProto, ranges: Ranges, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")

    def kernels(graph_format: GraphFormat) -> int:
        path = tmp_path / f"{graph_format}.onnx"
        onnx.save(to_int8(model, ranges.ranges, graph_format=graph_format, keep=["up"]), path)
        compiled = openvino.Core().compile_model(path, "CPU")
        return sum(
            node.get_rt_info()["layerType"].astype(str) != "Const"
            for node in compiled.get_runtime_model().get_ops()
        )

    assert kernels("openvino") < kernels("onnxruntime")


@pytest.mark.parametrize(
    ("graph_format", "reduce_range", "steps"),
    [
        ("onnxruntime", False, 127),
        ("onnxruntime", True, 64),
        ("openvino", True, 64),
        ("tensorrt", True, 127),
    ],
)
def test_scales_are_those_of_the_ranges_and_weights(
    model: ModelProto, ranges: Ranges, graph_format: GraphFormat, reduce_range: bool, steps: int
) -> None:
    made = to_int8(model, ranges.ranges, graph_format=graph_format, reduce_range=reduce_range)
    makers = producers(made)
    conv = node_named(made, "deep")
    weight_dq = makers[conv.input[1]]
    largest = np.abs(constant(model, "w2")).max(axis=(1, 2, 3))
    assert constant(made, weight_dq.input[1]) == pytest.approx(largest / steps, rel=1e-5)

    if graph_format == "openvino":
        return  # Its activations: test_openvino_concatenates_at_one_scale.
    low, high = ranges.ranges["pool"]
    activation_dq = makers[conv.input[0]]
    scale = constant(made, activation_dq.input[1])
    if graph_format == "tensorrt":
        assert scale == pytest.approx(max(-low, high) / 127, rel=1e-5)
    else:
        assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-5)


def run_reference(model: ModelProto, tensor: np.ndarray) -> np.ndarray:
    """Q/DQ as the ONNX specification computes it, in NumPy."""
    model = copy_of(model)
    model.opset_import[0].version = 19  # The evaluator knows Q/DQ from there; same meaning.
    (labels,) = ReferenceEvaluator(model).run(None, {"image": tensor})
    return np.asarray(labels)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_onnxruntime_computes_what_the_specification_says(
    model: ModelProto,
    ranges: Ranges,
    pictures: Path,
    card: ModelCard,
    tmp_path: Path,
    graph_format: GraphFormat,
    reduce_range: bool,
) -> None:
    made = to_int8(model, ranges.ranges, graph_format=graph_format, reduce_range=reduce_range)
    path = tmp_path / "model.int8.onnx"
    onnx.save(made, path)
    tensor = preprocess(load_image(list_images(pictures)[0]), card.input)[np.newaxis]
    with OnnxRuntimeEngine(path) as engine:
        found = engine.infer(tensor)
    # Fused integer kernels round elsewhere and tip near ties; saturation flips 4 % here.
    assert (found == run_reference(made, tensor)).mean() > 0.985


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_agrees_with_fp32_unless_the_ranges_are_wrong(
    model: ModelProto,
    network: Path,
    ranges: Ranges,
    pictures: Path,
    tmp_path: Path,
    graph_format: GraphFormat,
) -> None:
    def share(bounds: dict[str, tuple[float, float]]) -> float:
        path = tmp_path / "model.int8.onnx"
        onnx.save(to_int8(model, bounds, graph_format=graph_format), path)
        with OnnxRuntimeEngine(network) as full, OnnxRuntimeEngine(path) as reduced:
            return agreement(full, reduced, map(load_image, list_images(pictures)))

    assert share(ranges.ranges) > 0.97
    clipped = {name: (low / 40, high / 40) for name, (low, high) in ranges.ranges.items()}
    assert share(clipped) < 0.9


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_kept_nodes_stay(model: ModelProto, ranges: Ranges, graph_format: GraphFormat) -> None:
    made = to_int8(model, ranges.ranges, graph_format=graph_format, keep=["d*p"])
    assert "deep" in stays_float(made)
    assert "refine" not in stays_float(made)
    with pytest.raises(MismatchedArtifact, match="nothing is left to quantise"):
        to_int8(model, ranges.ranges, graph_format=graph_format, keep=["*"])
    with pytest.raises(UsageError, match="no node is named 'nowhere'"):
        to_int8(model, ranges.ranges, graph_format=graph_format, keep=["nowhere"])


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_the_policy_gives_way_node_by_node(
    model: ModelProto, network: Path, ranges: Ranges, pictures: Path, tmp_path: Path,
    graph_format: GraphFormat,
) -> None:  # fmt: skip
    made = to_int8(model, ranges.ranges, graph_format=graph_format, quantise=["stem", "up", "head"])
    assert stays_float(made) == set()
    dequantise = producers(made)[node_named(made, "up").input[1]]
    # One scale, on which no axis can be wrong.
    assert constant(made, dequantise.input[1]).size == 1
    path = tmp_path / "model.int8.onnx"
    onnx.save(made, path)
    with OnnxRuntimeEngine(network) as full, OnnxRuntimeEngine(path) as reduced:
        assert agreement(full, reduced, map(load_image, list_images(pictures))) > 0.95
    both = to_int8(
        model, ranges.ranges, graph_format=graph_format, quantise=["stem", "up"], keep=["up"]
    )
    assert stays_float(both) == {"up", "head"}
    with pytest.raises(UsageError, match="names no node that can be quantised"):
        to_int8(model, ranges.ranges, graph_format=graph_format, quantise=["argmax"])
    with pytest.raises(UsageError, match="no node is named 'nowhere'"):
        to_int8(model, ranges.ranges, graph_format=graph_format, quantise=["nowhere"])


def test_tensorrt_quantises_only_the_skip_of_an_add() -> None:
    """A residual block: the sum of a convolution and what it was made from."""
    model = onnx_network(
        "float[1,2,4,4] image",
        "float[1,2,4,4] score",
        """
        first = Conv (image, w)
        second = Conv (first, w)
        sum = Add (second, first)
        third = Conv (sum, w)
        score = Conv (third, w)
        """,
        w=np.ones((2, 2, 1, 1), np.float32),
    )
    bounds = dict.fromkeys(("image", "first", "second", "sum", "third", "score"), (-1.0, 1.0))
    plain = to_int8(model, bounds, graph_format="tensorrt")
    assert list(node_named(plain, "sum").input) == ["second", "first"]
    made = to_int8(model, bounds, graph_format="tensorrt", quantise=["sum"])
    fused, skip = node_named(made, "sum").input
    assert fused == "second"
    assert producers(made)[skip].op_type == "DequantizeLinear"


def test_what_only_floating_layers_touch_is_not_rounded(model: ModelProto, ranges: Ranges) -> None:
    """Two layers kept side by side: the activation between them keeps all of its values."""
    made = to_int8(model, ranges.ranges, graph_format="onnxruntime", keep=["deep", "refine", "up"])
    makers = producers(made)
    for name in ("deep", "refine", "up"):
        # "narrow" is quantised and reads deep_relu; its pair is not for these.
        data = node_named(made, name).input[0]
        assert data not in makers or makers[data].op_type != "DequantizeLinear", name


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_missing_ranges_are_refused(
    model: ModelProto, ranges: Ranges, graph_format: GraphFormat
) -> None:
    bounds = {name: bound for name, bound in ranges.ranges.items() if name != "concat"}
    with pytest.raises(MismatchedArtifact, match="concat") as caught:
        to_int8(model, bounds, graph_format=graph_format)
    assert "edgeseg calibrate" in str(caught.value.hint)


def test_tensorrt_refuses_what_it_would_misread(model: ModelProto, ranges: Ranges) -> None:
    with pytest.raises(MismatchedArtifact, match="a zero point of type uint8"):
        require_tensorrt_form(
            to_int8(model, ranges.ranges, graph_format="onnxruntime"), "model.onnx"
        )
    require_tensorrt_form(model, "model.onnx")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unsigned", "a zero point of type uint8"),
        ("shifted", "a zero point other than 0"),
        ("left out", "no zero point, which means uint8"),
        ("computed", "a zero point that is not constant"),
    ],
)
def test_each_fault_of_a_zero_point_is_found(
    model: ModelProto,
    ranges: Ranges,
    fault: Literal["unsigned", "shifted", "left out", "computed"],
    said: str,
) -> None:
    made = copy_of(to_int8(model, ranges.ranges, graph_format="tensorrt"))
    require_tensorrt_form(made, "model.onnx")
    victim = [node for node in made.graph.node if node.op_type == "QuantizeLinear"][2]
    if fault == "left out":
        del victim.input[2]
    else:
        value = np.array(3 if fault == "shifted" else 0, np.uint8 if fault == "unsigned" else "i1")
        made.graph.initializer.append(numpy_helper.from_array(value, "planted"))
        victim.input[2] = "nowhere" if fault == "computed" else "planted"
    with pytest.raises(MismatchedArtifact, match=said):
        require_tensorrt_form(made, "model.onnx")
