"""Networks of every kind become networks of ours, with the labels of the original."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign import NAMES, SIZE, Foreign, dataset, picture
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from edgeseg.artifacts.sidecar import verify
from edgeseg.building.evidence import read_evidence
from edgeseg.building.fp32 import read_fp32
from edgeseg.data.folders import read_split
from edgeseg.engines import open_engine
from edgeseg.errors import EdgesegError, MismatchedArtifact, UsageError
from edgeseg.evaluation import evaluate
from edgeseg.importing import ImportConfig, Imported, import_network
from edgeseg.importing.heads import Head, labels_of
from edgeseg.importing.outputs import Output, order_of
from edgeseg.options.building import BuildConfig
from edgeseg.precision.graph import tensors

STATED = ImportConfig(classes=",".join(NAMES))
CASES = Path(__file__).parents[3] / "shared" / "cases"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def binary_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("binary"), names=("background", "red"))


COMPUTED = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
"""Types that TensorRT computes in."""


def imported(tmp_path: Path, network: Foreign, config: ImportConfig = STATED) -> Imported:
    path = network.save(tmp_path / "theirs.onnx")
    made = import_network(path, tmp_path / "run", config)
    types = {name: tensor.dtype for name, tensor in tensors(made.wrapped.model).items()}
    assert types.pop("labels") == TensorProto.UINT8
    assert set(types.values()) <= COMPUTED
    return made


def mean_iou(made: Imported, data: Path) -> float:
    with open_engine(made.path) as engine:
        return evaluate(engine, read_split(data, "val")).mean_iou


@pytest.mark.parametrize(
    "head",
    ["logits", "softmax", "log-softmax", "nhwc", "chw", "two", "sigmoid-2", "sigmoid-3",
     "logits-2", "int64", "int64-channel", "int32", "uint8"],
)  # fmt: skip
def test_every_output_becomes_labels(tmp_path: Path, data: Path, head: Any) -> None:
    made = imported(tmp_path, Foreign(head))
    assert mean_iou(made, data) == 1
    assert made.wrapped.proof.mismatched == made.wrapped.proof.near_ties
    assert verify(made.path, required=True).card == made.card


def test_a_missing_library_is_no_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line turns it into the package to install."""
    path = Foreign().save(tmp_path / "theirs.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match="onnxscript"):
        import_network(path, tmp_path / "run", STATED)


@pytest.mark.parametrize("head", ["binary", "binary-logit"])
def test_one_channel_has_a_threshold(tmp_path: Path, binary_data: Path, head: Any) -> None:
    made = imported(tmp_path, Foreign(head), ImportConfig(classes="background,red"))
    assert mean_iou(made, binary_data) == 1
    assert made.card.options["threshold"] == 0.5


def test_the_threshold_is_a_probability(tmp_path: Path) -> None:
    config = ImportConfig(classes="background,red", threshold=0.999)
    for head in ("binary", "binary-logit"):
        path = Foreign(head).save(tmp_path / f"{head}.onnx")  # type: ignore[arg-type]
        made = import_network(path, tmp_path / head, config)
        with open_engine(made.path) as engine:
            # The red of the disc exceeds the background by 3: a probability of 0.95.
            assert not engine.segment(picture(0)[0]).any()


@pytest.mark.parametrize(
    "network",
    [
        Foreign(layout="nhwc"),
        Foreign(layout="nhwc", dtype="uint8", normalise="none"),
        Foreign(layout="hwc"),
        Foreign(layout="chw", head="chw"),
        Foreign(dtype="uint8", normalise="none"),
        Foreign(dtype="float16"),
        Foreign(batch="N"),
        Foreign(batch=4),
        Foreign(opset=11),
        Foreign(opset=20),
        Foreign(opset=11, layout="nhwc", head="sigmoid-3"),
    ],
    ids=str,
)
def test_every_input_is_fed(tmp_path: Path, data: Path, network: Foreign) -> None:
    assert mean_iou(imported(tmp_path, network), data) == 1


@pytest.mark.parametrize(
    ("network", "config"),
    [
        (Foreign(bgr=True), replace(STATED, color="bgr")),
        (Foreign(normalise="unit"), replace(STATED, normalise="unit")),
        (Foreign(normalise="none"), replace(STATED, normalise="none")),
    ],
)
def test_stated_preprocessing_is_kept(
    tmp_path: Path, data: Path, network: Foreign, config: ImportConfig
) -> None:
    made = imported(tmp_path, network, config)
    assert mean_iou(made, data) == 1
    wrong = import_network(tmp_path / "theirs.onnx", tmp_path / "other", STATED)
    assert mean_iou(wrong, data) < 0.9


def test_means_above_one_are_grey_levels(tmp_path: Path, data: Path) -> None:
    levels = replace(STATED, normalise="123.675,116.28,103.53/58.395,57.12,57.375")
    assert mean_iou(imported(tmp_path, Foreign(), levels), data) == 1


def test_an_open_size_is_asked_for(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="any size") as caught:
        imported(tmp_path, Foreign(open_size=True))
    assert "--size" in str(caught.value.hint)
    made = imported(tmp_path, Foreign(open_size=True), replace(STATED, size=SIZE))
    assert mean_iou(made, data) == 1
    path = Foreign().save(tmp_path / "fixed.onnx")
    with pytest.raises(UsageError, match="height: Input should be less than"):
        import_network(tmp_path / "theirs.onnx", tmp_path / "x", replace(STATED, size=(9000, 64)))
    with pytest.raises(UsageError, match="fixed to 64x48"):
        import_network(path, tmp_path / "other", replace(STATED, size=(32, 32)))


@pytest.mark.parametrize(
    ("head", "dtype"), [("quarter", "float32"), ("quarter", "float16"), ("half", "float32")]
)
def test_scores_shrunk_at_last_are_taken_before_that(
    tmp_path: Path, data: Path, head: Any, dtype: Any
) -> None:
    made = imported(tmp_path, Foreign(head, dtype=dtype))
    assert mean_iou(made, data) == 1
    assert "before 'scores' shrinks them" in dict(made.lines)["output"]
    asked = import_network(
        made.wrapped.original.path, tmp_path / "b", replace(STATED, output="scores")
    )
    assert mean_iou(asked, data) < 0.99


@pytest.mark.parametrize("enlarge", ["scores", "labels"])
def test_scores_are_enlarged_as_torch_does(tmp_path: Path, enlarge: Any) -> None:
    """PyTorch's interpolate, before the argmax or behind it, is the oracle."""
    torch = pytest.importorskip("torch")
    network = Foreign("quarter")
    made = imported(tmp_path, network, replace(STATED, enlarge=enlarge, output="scores"))
    image = picture(3)[0]
    scores = torch.tensor(network.scores_of(image))[None]
    scores = torch.nn.functional.avg_pool2d(scores, 4)
    if enlarge == "scores":
        wide = torch.nn.functional.interpolate(scores, SIZE, mode="bilinear")
        expected = wide.argmax(1)
    else:
        labels = scores.argmax(1, keepdim=True).float()
        expected = torch.nn.functional.interpolate(labels, SIZE, mode="nearest")[0].long()
    with open_engine(made.path) as engine:
        found = engine.segment(image)
    assert np.count_nonzero(found != expected[0].numpy()) <= 3  # near ties
    other = {"scores": "labels", "labels": "scores"}[enlarge]
    assert any(f"--enlarge {other}" in text for _, text in made.lines)


@pytest.mark.parametrize(
    ("shape", "size", "order"),
    [
        ((150, 128, 128), (512, 512), "chw"),  # SegFormer on ADE20K
        ((128, 128, 150), (512, 512), "hwc"),
        ((12, 16, 80), (48, 64), "hwc"),
        ((2, 33, 65), (260, 520), "chw"),  # rounded up
        ((64, 64, 3), (64, 64), "hwc"),
        ((3, 388, 388), (572, 572), "chw"),
        ((3, 40, 97), (572, 572), "chw"),
        ((97, 40, 3), (572, 572), "hwc"),
    ],
)
def test_axes_are_told_by_the_shape_of_the_picture(shape: Any, size: Any, order: str) -> None:
    assert order_of(shape, size) == order


def test_an_output_is_taken_by_name(tmp_path: Path) -> None:
    made = imported(tmp_path, Foreign("two"), replace(STATED, output="aux"))
    assert made.wrapped.head.output.size == (SIZE[0] // 4, SIZE[1] // 4)
    with pytest.raises(UsageError, match="no such output, but aux, out"):
        import_network(tmp_path / "theirs.onnx", tmp_path / "other", replace(STATED, output="main"))


def refused(tmp_path: Path, model: onnx.ModelProto, config: ImportConfig = STATED) -> EdgesegError:
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    with pytest.raises((MismatchedArtifact, UsageError)) as caught:
        import_network(path, tmp_path / "run", config)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()
    return caught.value


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    old = model.graph.output[0].name
    model.graph.output[0].name = name
    for node in model.graph.node:
        for place, output in enumerate(node.output):
            if output == old:
                node.output[place] = name
    return model


def test_other_kinds_of_networks_are_refused_by_name(tmp_path: Path) -> None:
    def found(model: onnx.ModelProto) -> str:
        return refused(tmp_path, model).message

    assert "panoptic" in found(with_output(Foreign().model(), "masks_queries_logits"))
    assert "detection" in found(with_output(Foreign().model(), "boxes"))
    many = Foreign(classes=tuple([0] * 256))
    assert "at most 255 classes" in found(many.model())
    assert (
        "3 channels"
        in refused(tmp_path, Foreign().model(), ImportConfig(classes="a,b,c,d,e")).message
    )
    foreign = Foreign().model()
    foreign.graph.node[0].domain = "com.microsoft"
    foreign.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert "com.microsoft.Conv" in found(foreign)
    assert "opset 11 or newer, found 9" in found(Foreign(opset=9).model())
    vector = Foreign().model()
    vector.graph.node[-1].CopyFrom(
        onnx.helper.make_node("GlobalAveragePool", [vector.graph.node[-1].input[0]], ["scores"])
    )
    assert "expected scores (N, classes, H, W)" in found(vector)


@pytest.mark.parametrize("form", QuantFormat)
def test_what_onnxruntime_quantised_is_refused_with_the_way_to_int8(
    tmp_path: Path, form: QuantFormat
) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"input": noise}])

        def get_next(self) -> Any:
            return next(self.left, None)

    plain, quantised = tmp_path / "plain.onnx", tmp_path / "quantised.onnx"
    Foreign("softmax").save(plain)
    quantize_static(plain, quantised, Pictures(), quant_format=form)
    error = refused(tmp_path, onnx.load(quantised))
    assert "quantised layers" in error.message
    assert "edgeseg build --int8" in str(error.hint)


def test_classes_are_asked_for(tmp_path: Path, data: Path) -> None:
    error = refused(tmp_path, Foreign().model(), ImportConfig())
    assert "scores of 3 classes" in error.message
    assert "--classes" in str(error.hint)
    made = imported(tmp_path, Foreign(), ImportConfig(data=data))
    assert made.card.classes.names == NAMES


def test_labels_beyond_the_classes_are_refused(tmp_path: Path, data: Path) -> None:
    two = ImportConfig(classes="a,b")
    assert (
        "2 classes are named and 'seg' gives 3 ids"
        in refused(tmp_path, Foreign("int64").model(), two).message
    )
    # Behind a maximum nobody knows how many there are: the pictures of the proof show it.
    model = Foreign("int64").model()
    two_more = onnx.numpy_helper.from_array(np.array(2), "two")
    model.graph.initializer.append(two_more)
    model.graph.node.append(onnx.helper.make_node("Max", ["seg", "two"], ["more"]))
    model.graph.output[0].name = "more"
    assert "expected labels 0…1 for 2 classes, found 2…2" in refused(tmp_path, model, two).message


def test_the_proof_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that swaps two classes in the graph alone is found."""
    from edgeseg.importing import proof

    def swapped(raw: Any, head: Head) -> Any:
        labels, margin = labels_of(raw, head)
        return np.where(labels == 0, 1, labels), margin

    monkeypatch.setattr(proof, "labels_of", swapped)
    path = Foreign().save(tmp_path / "theirs.onnx")
    with pytest.raises(EdgesegError, match="differs from the original in"):
        import_network(path, tmp_path / "run", STATED)
    assert not (tmp_path / "run").exists()


def test_a_margin_is_that_of_the_two_best() -> None:
    output = Output("x", "scores", "chw", 3, (1, 2), (1, 3, 1, 2))
    raw = np.array([1, 5, 4, 2, 2, 4.5], np.float32).reshape(1, 3, 1, 2)
    labels, margin = labels_of(raw, Head(output, 3, (1, 2)))
    assert labels.tolist() == [[1, 0]]
    assert margin.tolist() == [[2, 0.5]]


def test_nothing_is_replaced(tmp_path: Path) -> None:
    imported(tmp_path, Foreign())
    with pytest.raises(UsageError, match="already exists"):
        imported(tmp_path, Foreign())
    again = import_network(tmp_path / "theirs.onnx", tmp_path / "run", STATED, overwrite=True)
    assert again.path.exists()
    with pytest.raises(UsageError, match="lies in the run folder"):
        import_network(tmp_path / "theirs.onnx", tmp_path, STATED, overwrite=True)


def test_ranges_lie_beside_a_network_of_any_name(edgeseg: Any, tmp_path: Path, data: Path) -> None:
    made = imported(tmp_path, Foreign())
    network = tmp_path / "other.onnx"
    made.path.rename(network)
    pictures = data / "val" / "images"
    out = tmp_path / "manifest.json"
    outcome = edgeseg("calibrate", network, "--from", pictures, "--count", "2", "--out", out)
    assert outcome.code == 0, outcome.err
    evidence = read_evidence(read_fp32(network), BuildConfig(network, "int8"))
    assert evidence.ranges is not None
    assert not network.with_name("model.ranges.json").exists()


def test_the_command_tells_what_it_found(edgeseg: Any, tmp_path: Path) -> None:
    path = Foreign("two").save(tmp_path / "theirs.onnx")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    outcome = edgeseg("import", path, "--classes", names, "--run", tmp_path / "a", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["classes"] == list(NAMES)
    assert outcome.document["output"]["left_out"] == ["aux"]
    assert outcome.document["preprocessing"]["origins"]["color"] == "assumed"
    outcome = edgeseg("import", path, "--classes", names, "--run", tmp_path / "b")
    assert "left out: aux" in outcome.out
    assert "imagenet (assumed)" in outcome.out
    outcome = edgeseg("import", tmp_path / "none.onnx", "--classes", names, "--json")
    assert outcome.code == 2


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
@pytest.mark.parametrize("name", ["logits", "int64", "two", "quarter"])
def test_shared_cases(tmp_path: Path, name: str) -> None:
    path = CASES / "foreign-onnx" / f"fx_{name}.onnx"
    made = import_network(path, tmp_path / "run", ImportConfig(classes="background,red,blue"))
    assert mean_iou(made, CASES / "data") >= 0.99
