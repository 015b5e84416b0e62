"""Networks that other tools write seldom: imported with the labels of the original, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign import NAMES, SIZE, Foreign, picture
from onnx import TensorProto, helper

from edgeseg.engines import open_engine
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.importing import ImportConfig, Imported, import_network
from edgeseg.precision.fp16 import to_fp16

CLASSES = ",".join(NAMES)
UNSURE = np.array(255)


class Unusual(Foreign):
    """A network whose scores end in another ``way``."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def outputs(self, scores: str) -> dict[str, int]:
        """Add the head; returns the outputs and their types."""
        kinds = {"grey": TensorProto.UINT8, "masks": TensorProto.BOOL}
        coded = ("counted", "coded", "coloured", "unsure", "second")
        kinds |= dict.fromkeys(coded, TensorProto.INT64)
        last = getattr(self, self.way)(scores)
        return {self.called(last, "last"): kinds.get(self.way, TensorProto.FLOAT)}

    def flat(self, scores: str) -> str:
        """Keras's (N, H·W, classes)."""
        last = self.node("Transpose", scores, perm=[0, 2, 3, 1])
        return self.node("Softmax", self.node("Reshape", last, np.array([1, -1, 3])), axis=-1)

    def padded(self, scores: str) -> str:
        """torch.nn.functional.pad as TorchScript's exporter writes it."""
        none = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
        return self.node("Pad", scores, self.node("ConstantOfShape", np.array([8]), value=none))

    def branched(self, scores: str) -> str:
        """A branch that the height decides, which reads the picture by name."""
        branches = {}
        for name in ("then_branch", "else_branch"):
            node = helper.make_node("Sub", ["input", "input"], [name])
            port = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            branches[name] = helper.make_graph([node], name, [], [port])
        height = self.node("Gather", self.node("Shape", "input"), np.array(2))
        taken = self.node("Equal", height, np.array(SIZE[0]))
        return self.node("Add", scores, self.node("If", taken, **branches))

    def sideways(self, scores: str) -> str:
        return self.node("Transpose", scores, perm=[0, 1, 3, 2])

    def boxes(self, scores: str) -> str:
        return self.node("Reshape", scores, np.array([1, 8, -1]))

    def red(self, scores: str) -> str:
        """By how much red exceeds the background."""
        parts = self.node("Slice", scores, np.array([1]), np.array([2]), np.array([1]))
        return self.node("Sub", parts, np.full((1, 1, 1, 1), 4.0))

    def logistic(self, scores: str) -> str:
        """A sigmoid in elementary operators."""
        power = self.node("Exp", self.node("Neg", self.red(scores)))
        return self.node("Reciprocal", self.node("Add", power, np.ones(1)))

    def hard(self, scores: str) -> str:
        return self.node("HardSigmoid", self.red(scores))

    def percent(self, scores: str) -> str:
        return self.node("Mul", self.node("Sigmoid", self.red(scores)), np.full(1, 100.0))

    def grey(self, scores: str) -> str:
        """A mask of 0 and 255."""
        above = self.node("Cast", self.node("Greater", self.red(scores), np.zeros(1)), to=1)
        return self.node("Cast", self.node("Mul", above, np.full(1, 255.0)), to=TensorProto.UINT8)

    def counted(self, scores: str) -> str:
        """Labels from 1 on."""
        return self.node("Add", self.node("ArgMax", scores, axis=1, keepdims=0), np.array([1]))

    def coded(self, scores: str) -> str:
        """Ids of a longer list."""
        chosen = self.node("ArgMax", scores, axis=1, keepdims=0)
        return self.node("Gather", np.array([0, 24, 26]), chosen)

    def coloured(self, scores: str) -> str:
        """A colour for each class."""
        chosen = self.node("ArgMax", scores, axis=1, keepdims=0)
        return self.node("Gather", np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]]), chosen)

    def painted(self, scores: str) -> str:
        """A colour for each class, in floating point."""
        chosen = self.node("ArgMax", scores, axis=1, keepdims=0)
        classes = self.node("OneHot", chosen, np.array(3), np.array([0.0, 1.0]))
        colours = self.node("MatMul", classes, np.array([[0, 0, 0], [220, 20, 60], [0, 0, 142.0]]))
        return self.node("Transpose", colours, perm=[0, 3, 1, 2])

    def stacked(self, scores: str) -> str:
        """A colour for each class, a channel at a time."""
        red = self.node("Greater", self.red(scores), np.zeros(1))
        levels = [(220.0, 0.0), (20.0, 0.0), (60.0, 142.0)]
        parts = [self.node("Where", red, *(np.full(1, level) for level in pair)) for pair in levels]
        return self.node("Concat", *parts, axis=1)

    def two(self, scores: str) -> str:
        """Probabilities of the background and of red."""
        first = self.node("Slice", scores, np.array([0]), np.array([2]), np.array([1]))
        return self.node("Softmax", first, axis=1)

    def inverse(self, scores: str) -> str:
        """The probability of the background alone."""
        return self.node("Gather", self.two(scores), np.array([0]), axis=1)

    def parted(self, scores: str) -> str:
        """The same in percent, split off with the channels last."""
        last = self.node("Transpose", self.two(scores), perm=[0, 2, 3, 1])
        half = self.node("Split", last, axis=3)
        self._nodes[-1].output.append("other_half")
        return self.node("Mul", half, np.full(1, 100.0))

    def left(self, scores: str) -> str:
        """What red leaves."""
        red = self.node("Gather", self.two(scores), np.array(1), axis=1)
        return self.node("Sub", np.ones(1), red)

    def most(self, scores: str) -> str:
        """The classes of a softmax but the last, at a temperature at which none exceeds a half."""
        shares = self.node("Softmax", self.node("Mul", scores, np.full(1, 0.01)), axis=1)
        return self.node("Slice", shares, np.array([0]), np.array([2]), np.array([1]))

    def best(self, scores: str) -> str:
        """The two highest scores."""
        best = self.node("TopK", scores, np.array([2]), axis=1)
        self._nodes[-1].output.append("which")
        return best

    def second(self, scores: str) -> str:
        """The ids of the two highest scores."""
        self.best(scores)
        return "which"

    def sure(self, scores: str) -> str:
        return self.node("ReduceMax", self.two(scores), axes=[1], keepdims=1)

    def unsure(self, scores: str) -> str:
        """Labels; 255 where red is likely."""
        chosen = self.node("ArgMax", scores, axis=1, keepdims=1)
        return self.node("Where", self.node("Less", self.red(scores), np.zeros(1)), chosen, UNSURE)

    def volume(self, scores: str) -> str:
        """One slice of a stack."""
        return self.node("Unsqueeze", scores, np.array([2]))

    def masks(self, scores: str) -> str:
        """A mask for each class but the background."""
        drawn = self.node("Slice", scores, np.array([1]), np.array([3]), np.array([1]))
        return self.node("Greater", drawn, np.full((1, 2, 1, 1), 4.0))

    def noisy(self, scores: str) -> str:
        return self.node("Mul", scores, self.node("RandomUniformLike", scores))


def imported(
    tmp_path: Path,
    model: onnx.ModelProto,
    classes: str = CLASSES,
    size: tuple[int, int] | None = None,
) -> Imported:
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    return import_network(path, tmp_path / "run", ImportConfig(classes=classes, size=size))


def labels(made: Imported) -> np.ndarray[Any, Any]:
    with open_engine(made.path) as engine:
        return engine.segment(picture(0)[0])


def test_group_normalisation(tmp_path: Path) -> None:
    """The proof compares it with ONNX Runtime's own."""

    class Grouped(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            six = self.node("Concat", scores, scores, axis=1)
            scale, bias = np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)
            normal = self.node("GroupNormalization", six, scale, bias, num_groups=2)
            return {self.called(normal, "last"): TensorProto.FLOAT}

    made = imported(tmp_path, Grouped(opset=21).model(), "a,b,c,d,e,f")
    assert made.wrapped.proof.mismatched == 0
    assert np.unique(labels(made)).size > 1


def test_attention_is_spelled_out(tmp_path: Path) -> None:
    class Attending(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            small = self.node("AveragePool", scores, kernel_shape=[8, 8], strides=[8, 8])
            rows = self.node("Reshape", small, np.array([1, 3, 1, -1]))
            heads = self.node("Transpose", rows, perm=[0, 2, 3, 1])
            seen = self.node("Attention", heads, heads, heads)
            back = self.node("Transpose", seen, perm=[0, 3, 1, 2])
            return {self.called(self.node("Reshape", back, np.array([1, 3, 6, 8])), "last"): 1}

    made = imported(tmp_path, Attending(opset=23).model())
    assert "Attention" not in {node.op_type for node in made.wrapped.model.graph.node}
    assert "Softmax" in {node.op_type for node in made.wrapped.model.graph.node}


@pytest.mark.parametrize(("kind", "version"), [("HardSwish", 20), ("RMSNormalization", 23)])
def test_the_opset_is_lowered_where_no_operator_needs_it(
    tmp_path: Path, kind: str, version: int
) -> None:
    class Newer(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            inputs = [np.ones(SIZE[1])] if kind == "RMSNormalization" else []
            return {self.called(self.node(kind, scores, *inputs), "last"): TensorProto.FLOAT}

    made = imported(tmp_path, Newer(opset=23).model())
    assert [o.version for o in made.wrapped.model.opset_import if not o.domain] == [version]


def test_a_resize_of_opset_11_is_reduced(tmp_path: Path) -> None:
    """Its empty scales became a Cast in FP16, beside which sizes were refused."""

    class Enlarged(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            none, sizes = np.zeros(0, np.float32), np.array([1, 3, *SIZE])
            return {self.called(self.node("Resize", scores, none, none, sizes), "last"): 1}

    made = imported(tmp_path, Enlarged(opset=11).model())
    reduced = to_fp16(made.wrapped.model)
    assert "Resize" in {node.op_type for node in reduced.graph.node}


def test_pixels_in_a_row_become_a_picture(tmp_path: Path) -> None:
    made = imported(tmp_path, Unusual("flat").model())
    assert made.wrapped.head.output.size == SIZE
    np.testing.assert_array_equal(labels(made), picture(0)[1])


@pytest.mark.parametrize("way", ["padded", "branched"])
def test_what_the_size_decides_is_folded(tmp_path: Path, way: str) -> None:
    made = imported(tmp_path, Unusual(way).model())
    np.testing.assert_array_equal(labels(made), picture(0)[1])


@pytest.mark.parametrize("way", ["logistic", "hard"])
def test_probabilities_are_recognised_whatever_made_them(tmp_path: Path, way: str) -> None:
    made = imported(tmp_path, Unusual(way).model(), "background,red")
    assert made.wrapped.head.output.activation == "sigmoid"
    np.testing.assert_array_equal(labels(made), picture(0)[1] == 1)


def test_scores_beyond_one_are_logits(tmp_path: Path) -> None:
    made = imported(tmp_path, Unusual("red").model(), "background,red")
    assert made.wrapped.head.output.activation == "none"
    np.testing.assert_array_equal(labels(made), picture(0)[1] == 1)


@pytest.mark.parametrize(("way", "height"), [("percent", 50), ("grey", 127.5)])
def test_thresholds_follow_the_range_that_the_graph_shows(
    tmp_path: Path, way: str, height: float
) -> None:
    """No picture of the proof is red: on them the values look like those from 0 to 1."""
    made = imported(tmp_path, Unusual(way).model(), "background,red")
    assert made.wrapped.head.threshold == height
    np.testing.assert_array_equal(labels(made), picture(0)[1] == 1)


@pytest.mark.parametrize(
    ("way", "height"), [("inverse", 1 - 0.999), ("parted", 100 - 99.9), ("left", 1 - 0.999)]
)
def test_a_channel_of_the_background(tmp_path: Path, way: str, height: float) -> None:
    """The threshold is that of red, whose probability is 0.95 in the disc."""
    model = Unusual(way).model()
    made = imported(tmp_path, model, "background,red")
    assert made.card.classes.background == 0
    np.testing.assert_array_equal(labels(made), picture(0)[1] == 1)
    config = ImportConfig(classes="background,red", threshold=0.999)
    surer = import_network(tmp_path / "theirs.onnx", tmp_path / "surer", config)
    assert surer.wrapped.head.threshold == pytest.approx(height)
    assert not labels(surer).any()


def test_a_class_without_a_channel_has_the_rest(tmp_path: Path) -> None:
    made = imported(tmp_path, Unusual("most").model())
    np.testing.assert_array_equal(labels(made), picture(0)[1])


@pytest.mark.parametrize("known", [True, False])
def test_pixels_without_a_class_are_the_background(tmp_path: Path, known: bool) -> None:
    """Whether the graph shows such labels or only a picture would; none of the proof does."""
    model = Unusual("unsure").model()
    if not known:
        model.graph.node.append(helper.make_node("Max", ["last"], ["end"]))
        model.graph.output[0].name = "end"
    found, truth = labels(imported(tmp_path, model)), picture(0)[1]
    np.testing.assert_array_equal(found, np.where(truth == 1, 0, truth))
    if known:
        with pytest.raises(MismatchedArtifact, match="holds -1 or 255") as caught:
            import_network(
                tmp_path / "theirs.onnx", tmp_path / "none", ImportConfig("sky,red,blue")
            )
        assert "--background sky" in str(caught.value.hint)


def test_masks_are_scores(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        labels(imported(tmp_path, Unusual("masks").model())), picture(0)[1]
    )


def test_labels_are_preferred_to_their_confidence(tmp_path: Path) -> None:
    class Confident(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            two = self.node("Slice", scores, np.array([0]), np.array([2]), np.array([1]))
            shares = self.node("Softmax", two, axis=1)
            best = self.node("ReduceMax", shares, axes=[1], keepdims=0)
            chosen = self.node("ArgMax", shares, axis=1, keepdims=0)
            return {self.called(best, "1"): TensorProto.FLOAT, self.called(chosen, "2"): 7}

    made = imported(tmp_path, Confident().model(), "background,red")
    np.testing.assert_array_equal(labels(made), picture(0)[1] == 1)


@pytest.mark.parametrize("name", ["image", "labels", "labels/ArgMax:0"])
def test_names_that_are_ours(tmp_path: Path, name: str) -> None:
    model = Foreign().model()
    model.graph.node.append(helper.make_node("Identity", ["scores"], [name]))
    model.graph.output[0].name = name
    np.testing.assert_array_equal(labels(imported(tmp_path, model)), picture(0)[1])


def test_open_axes_and_the_domain_in_other_spellings(tmp_path: Path) -> None:
    model = Foreign(batch="N").model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    np.testing.assert_array_equal(labels(imported(tmp_path, model)), picture(0)[1])


def test_a_size_that_does_not_fit_has_a_hint_that_does(tmp_path: Path) -> None:
    model = Foreign(open_size=True).model()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = SIZE[1]
    with pytest.raises(UsageError, match="is fixed to 64xany") as caught:
        imported(tmp_path, model, size=(SIZE[0], 96))
    assert "--size 64x48" in str(caught.value.hint)
    np.testing.assert_array_equal(labels(imported(tmp_path, model, size=SIZE)), picture(0)[1])


def test_what_is_no_onnx_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(b"PK\x03\x04 a checkpoint")
    with pytest.raises(CorruptArtifact) as caught:
        import_network(path, tmp_path / "run", ImportConfig(classes=CLASSES))
    assert "torch.onnx.export" in str(caught.value.hint)
    model = Foreign().model()
    model.opset_import[0].version = 13
    for kind, hint in (("HardSwish", "opset 14 or newer"), ("Swoosh", "other libraries")):
        model.graph.node[0].op_type = kind
        with pytest.raises(CorruptArtifact, match=kind) as caught:
            imported(tmp_path, model)
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize("place", ["input", "output"])
def test_ports_without_a_shape(tmp_path: Path, place: str) -> None:
    model = Foreign().model()
    getattr(model.graph, place)[0].type.tensor_type.ClearField("shape")
    if place == "input":
        with pytest.raises(MismatchedArtifact, match=r"expected a picture .* \(\)"):
            imported(tmp_path, model)
        return
    np.testing.assert_array_equal(labels(imported(tmp_path, model)), picture(0)[1])


@pytest.mark.parametrize(
    ("way", "message", "hint"),
    [
        ("sideways", r"found 'last' \(1, 3, 64, 48\)", "swap height and width"),
        ("boxes", r"found 'last' \(1, 8, 1152\)", "semantic segmentation"),
        ("volume", r"found 'last' \(1, 3, 1, 48, 64\)", "single pictures"),
        ("coloured", r"found 'last' \(1, 48, 64, 3\)", "class ids or scores"),
        ("painted", r"found 'last' \(1, 3, 48, 64\)", "neither colours"),
        ("stacked", r"found 'last' \(1, 3, 48, 64\)", "neither colours"),
        ("best", r"found 'last' \(1, 2, 48, 64\)", "not those of the best alone"),
        ("second", r"found 'last' \(1, 2, 48, 64\)", "class ids or scores"),
        ("sure", r"found 'last' \(1, 1, 48, 64\)", "not those of the best alone"),
        ("counted", r"expected labels 0…2 for 3 classes, found 1…3", "grey levels"),
        ("coded", r"expected labels 0…2 for 3 classes, found 0…26", "grey levels"),
        ("noisy", "found RandomUniformLike", r"model\.eval\(\)"),
    ],
)
def test_others_are_refused(tmp_path: Path, way: str, message: str, hint: str) -> None:
    with pytest.raises(MismatchedArtifact, match=message) as caught:
        imported(tmp_path, Unusual(way).model())
    assert hint.replace("\\", "") in str(caught.value.hint)


@pytest.mark.parametrize("width", [3, SIZE[0] * SIZE[1]])
def test_queries_are_not_classes(tmp_path: Path, width: int) -> None:
    """MaskFormer without names; scores beside the same scores in rows are none."""

    class Queries(Foreign):
        def outputs(self, scores: str) -> dict[str, int]:
            rows = self.node("Reshape", scores, np.array([1, 3, -1]))
            rows = self.node("Slice", rows, np.array([0]), np.array([width]), np.array([2]))
            return {self.called(rows, "1"): 1, self.called(scores, "2"): 1}

    model = Queries().model()
    if width == 3:
        with pytest.raises(MismatchedArtifact, match=r"panoptic network .1, 2."):
            imported(tmp_path, model)
        return
    np.testing.assert_array_equal(labels(imported(tmp_path, model)), picture(0)[1])


def test_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    model = Foreign().model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    with pytest.raises(MismatchedArtifact, match=r"shape \(0, 3, 48, 64\)") as caught:
        imported(tmp_path, model)
    assert "a batch of one picture" in str(caught.value.hint)


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    model = Foreign().model()
    weight = model.graph.initializer.pop(0)
    values = onnx.numpy_helper.to_array(weight).ravel()
    places = onnx.numpy_helper.from_array(np.arange(values.size), "places")
    stored = onnx.numpy_helper.from_array(values, weight.name)
    sparse = helper.make_sparse_tensor(stored, places, weight.dims)
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(MismatchedArtifact, match=f"found sparse ones .{weight.name}.") as caught:
        imported(tmp_path, model)
    assert "to_dense" in str(caught.value.hint)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_in_training_mode_is_refused(tmp_path: Path, training: bool) -> None:
    model = Foreign().model()
    for name, value in (("ratio", np.array(0.5, np.float32)), ("mode", np.array(training))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.append(onnx.helper.make_node("Dropout", ["scores", "ratio", "mode"], ["end"]))
    model.graph.output[0].name = "end"
    if training:
        with pytest.raises(MismatchedArtifact, match="Dropout"):
            imported(tmp_path, model)
        return
    np.testing.assert_array_equal(labels(imported(tmp_path, model)), picture(0)[1])
