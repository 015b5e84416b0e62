import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import onnx_network
from onnx import ModelProto

from edgeseg.artifacts.card import ModelCard
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import (
    copy_of,
    load_model,
    matching_nodes,
    precision_report,
    read_card,
    serialize,
    sort_nodes,
    typed,
    work,
)

# By hand: pixels of the output (of the input where transposed) × elements of the kernel.
MACS = {
    "stem": 32 * 48 * 8 * 3 * 9,
    "deep": 16 * 24 * 16 * 8 * 9,
    "narrow": 16 * 24 * 8 * 16,
    "up": 16 * 24 * 16 * 8 * 4,
    "refine": 32 * 48 * 8 * 24 * 9,
    "head": 32 * 48 * 3 * 8,
}
WEIGHTS = {"stem": 216, "deep": 1152, "narrow": 128, "up": 512, "refine": 1728, "head": 24}


def test_types_are_those_that_onnx_infers_with_all_weights(model: ModelProto) -> None:
    assert any(math.prod(weight.dims) > 1024 for weight in model.graph.initializer)
    before = serialize(model)
    expected = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert serialize(typed(model, "test")) == serialize(expected)
    assert serialize(model) == before


def test_work_counts_what_a_hand_count_finds(model: ModelProto) -> None:
    found = work(model)
    assert {node.node: node.macs for node in found} == MACS
    assert {node.node: node.weights for node in found} == WEIGHTS
    assert {node.precision for node in found} == {"fp32"}


@pytest.mark.parametrize(("kind", "shape"), [("MatMul", (5, 7)), ("Gemm", (5, 7))])
def test_work_of_matrix_products(kind: str, shape: tuple[int, int]) -> None:
    weight = np.full(shape, 0.5, np.float32)
    made = onnx_network("float[3,5] x", "float[3,7] y", f"y = {kind} (x, w)", w=weight)
    (node,) = work(made)
    assert (node.macs, node.weights) == (3 * 5 * 7, 35)


def test_report_is_weighted_by_macs(model: ModelProto) -> None:
    assert precision_report(model).low_precision_share == 0
    report = precision_report(to_fp16(model, keep=["deep", "up"]))
    kept = MACS["deep"] + MACS["up"]
    assert report.precision == "fp16"
    assert report.kept == ("deep", "up")
    assert report.low_precision_share == pytest.approx(1 - kept / sum(MACS.values()))
    assert report.low_precision_weights == pytest.approx(1 - (1152 + 512) / sum(WEIGHTS.values()))


def test_sorting_mends_a_shuffled_graph_and_leaves_a_sorted_one(model: ModelProto) -> None:
    shuffled = copy_of(model)
    backwards = list(model.graph.node)[::-1]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(backwards)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(shuffled)
    sort_nodes(shuffled)
    onnx.checker.check_model(shuffled)
    names = [node.name for node in model.graph.node]
    sort_nodes(model)
    assert [node.name for node in model.graph.node] == names


def test_patterns_select_nodes(model: ModelProto) -> None:
    assert matching_nodes(model, ["head", "*_relu", "stem*"]) == [
        "head",
        "stem_relu",
        "deep_relu",
        "refine_relu",
        "stem",
    ]
    with pytest.raises(UsageError, match="no node is named 'decoder/.*stem, deep, narrow"):
        matching_nodes(model, ["decoder/*"])


def test_a_name_that_looks_like_a_pattern_is_a_name(model: ModelProto) -> None:
    model.graph.node[0].name = "block[0]/Conv"
    assert matching_nodes(model, ["block[0]/Conv"]) == ["block[0]/Conv"]


def opened(model: ModelProto) -> ModelProto:
    """``model`` with its height left open."""
    copy = copy_of(model)
    copy.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    copy.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "height"
    return copy


def test_open_shapes_are_counted_at_the_size_of_the_card(model: ModelProto) -> None:
    assert work(opened(model)) == work(model)


def test_open_shapes_without_a_card_are_refused(model: ModelProto) -> None:
    model = opened(model)
    del model.metadata_props[:]
    with pytest.raises(MismatchedArtifact, match="is not fixed"):
        work(model)


def test_card_comes_back(model: ModelProto, card: ModelCard) -> None:
    assert read_card(model, "model.onnx") == card
    assert {p.key: p.value for p in model.metadata_props}["names"] == "background,red,bright"


@pytest.mark.parametrize("defect", ["truncated", "noise", "node_without_input"])
def test_damaged_files_are_refused(
    network: Path, defect: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = network.read_bytes()
    if defect == "truncated":
        network.write_bytes(data[: len(data) // 2])
    elif defect == "noise":
        network.write_bytes(bytes(range(7, 207)))
    else:
        model = onnx.load(network)
        model.graph.node[3].input[0] = "nowhere"
        onnx.save(model, network)
    with pytest.raises(CorruptArtifact, match="not an? (valid )?ONNX network"):
        load_model(network)
    assert capfd.readouterr() == ("", "")
