"""Every view draws every class but the background, wherever that stands in the list."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from streaming import StillSource, still_result

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.artifacts.documents import load
from edgeseg.data.check import check
from edgeseg.data.findings import render
from edgeseg.data.folders import bundled_sample
from edgeseg.data.sheet import draw_sheet
from edgeseg.errors import CorruptArtifact, UsageError
from edgeseg.inference import write_result
from edgeseg.inspection.document import Inspection
from edgeseg.inspection.rendering import show
from edgeseg.objects import has_objects
from edgeseg.options.inference import Outputs
from edgeseg.options.training import TrainConfig
from edgeseg.stream import JsonLines, View
from edgeseg.stream.alerts import AlertOutputs, Alerts, parse_rule
from edgeseg.training.setup import make_card

SKY = ClassMap(names=("Sky", "Road", "Car"))
MIDDLE = ClassMap(names=("Sky", "Void", "Car"))
FIRST = ClassMap(names=("background", "Road", "Car"))
LABELS = np.arange(3, dtype=np.uint8).repeat(100)[np.newaxis].repeat(120, 0)
each_place = pytest.mark.parametrize("classes", [SKY, MIDDLE, FIRST], ids=["none", "1", "0"])


def noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def painted(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassMap, *hidden: int
) -> NDArray[np.uint8]:
    """Pixel by pixel: half the picture and half the colour, or the picture where it is clear."""
    out = frame.copy()
    for y, x in np.ndindex(*labels.shape):
        if labels[y, x] != classes.background and labels[y, x] not in hidden:
            colour = np.array(classes.palette[labels[y, x]][::-1])
            out[y, x] = (frame[y, x].astype(int) + colour + 1) // 2
    return out


def card(classes: ClassMap) -> ModelCard:
    return ModelCard(name="n", arch="a", classes=classes, input=InputSpec(height=8, width=8))


@pytest.mark.parametrize(
    ("names", "background"),
    [
        (("Background", "a"), 0),
        (("a", "b", " VOID "), 2),
        (("unlabelled", "bg"), 1),  # bg is the plainer word
        (("void", "background"), 1),
        (("a", "Unlabeled"), 1),
        (("other", "nucleus"), None),
        (("road", "background noise"), None),
    ],
)
def test_names_tell_the_background(names: tuple[str, ...], background: int | None) -> None:
    classes = ClassMap(names=names)
    assert classes.background == background
    assert "background" not in json.loads(classes.to_json()), "older versions refuse the key"


@pytest.mark.parametrize(
    ("names", "stated", "background"),
    [(("a", "b"), "b", 1), (("a", "b"), 0, 0), (("background", "b"), None, None)],
)
def test_a_document_may_state_it_and_keeps_it(
    names: tuple[str, ...], stated: str | int | None, background: int | None, tmp_path: Path
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"names": names, "background": stated}))
    classes = load(ClassMap, tmp_path / "classes.json")
    assert classes.background == background
    assert [colour == (0, 0, 0) for colour in classes.palette] == [
        label == background for label in range(2)
    ]
    assert json.loads(classes.to_json())["background"] == background
    assert ClassMap.model_validate_json(classes.to_json()) == classes


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ("sky", "'sky' is none of the classes a, b"),
        (2, "not an id of 2 classes"),
        (-1, "background"),
    ],
)
def test_a_background_that_is_no_class_is_refused(
    stated: str | int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["a", "b"], "background": stated}))
    with pytest.raises(CorruptArtifact, match=says):
        load(ClassMap, tmp_path / "classes.json")


def test_colours_made_up_for_class_0_are_renewed_and_others_kept() -> None:
    before = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
    assert ClassMap(names=SKY.names, palette=before) == SKY
    assert ClassMap(names=FIRST.names, palette=before).palette == before
    own = ((0, 0, 0), (0, 158, 115), (1, 2, 3))
    assert ClassMap(names=SKY.names, palette=own).palette == own


@each_place
def test_infer_paints_all_but_the_background(classes: ClassMap, tmp_path: Path) -> None:
    frame = noise((*LABELS.shape, 3))
    write_result(classes, frame, LABELS, "a", Outputs(tmp_path))
    shown = cv2.imread(str(tmp_path / "a.overlay.png"))
    below = slice(100, None)  # the legend stands above
    np.testing.assert_array_equal(shown[below], painted(frame, LABELS, classes)[below])


@each_place
@pytest.mark.parametrize("hidden", [(), (0,), (1, 2)])
def test_a_stream_paints_all_but_the_background_and_what_is_hidden(
    classes: ClassMap, hidden: tuple[int, ...]
) -> None:
    view = View(names=False, legend=False, hidden=frozenset(hidden))
    result = still_result(LABELS, classes=classes, frame=noise((*LABELS.shape, 3)), view=view)
    expected = painted(result.frame, LABELS, classes, *hidden)
    np.testing.assert_array_equal(result.overlay(), expected)


def test_two_classes_of_which_none_is_the_background_have_names_on_them() -> None:
    labels = np.zeros((240, 320), np.uint8)
    frame = np.full((240, 320, 3), 128, np.uint8)
    plain = View(legend=False, names=False)
    for names, differs in ((("sea", "land"), True), (("void", "land"), False)):
        result = still_result(labels, classes=ClassMap(names=names), frame=frame)
        named = result.draw(View(legend=False))
        assert (named != result.draw(plain)).any() == differs


@each_place
def test_json_lines_list_the_regions_of_all_but_the_background(classes: ClassMap) -> None:
    stream = io.StringIO()
    sink = JsonLines(stream)
    sink.open([StillSource()])
    sink.write(still_result(LABELS, classes=classes))
    line = json.loads(stream.getvalue().splitlines()[-1])
    listed = [region["class"] for region in line["regions"]]
    assert listed == [n for id, n in enumerate(classes.names) if id != classes.background]
    assert set(line["areas_px"]) == set(classes.names)


@pytest.mark.parametrize("rule", ["Sky > 30%", "Sky >= 1 regions", "Void >= 1 regions"])
def test_an_alert_may_be_about_any_class(rule: str) -> None:
    lines = io.StringIO()
    sink = Alerts([parse_rule(rule)], MIDDLE, AlertOutputs(lines=lines))
    sink.open([StillSource()])
    sink.write(still_result(LABELS, classes=MIDDLE))
    assert '"event": "raised"' in lines.getvalue()


def folder(tmp_path: Path, document: dict[str, Any]) -> Path:
    """A data set of one picture a split, whose mask has all three classes."""
    for split, seed in (("train", 0), ("val", 9)):
        for part in ("images", "masks"):
            (tmp_path / split / part).mkdir(parents=True)
        labels = cv2.resize(LABELS, (200, 150), interpolation=cv2.INTER_NEAREST)  # as on sheets
        picture = np.roll(noise((*labels.shape, 3)), seed)
        cv2.imwrite(str(tmp_path / split / "images/a.png"), picture)
        cv2.imwrite(str(tmp_path / split / "masks/a.png"), labels)
    (tmp_path / "classes.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize(
    ("more", "name", "says"),
    [
        ({}, None, "background: none, overlays paint every class"),
        ({"background": "Road"}, "Road", "background: Road"),
    ],
)
def test_data_check_names_it_and_the_sheet_leaves_it_clear(
    more: dict[str, str], name: str | None, says: str, tmp_path: Path
) -> None:
    findings = check(folder(tmp_path, {"names": SKY.names} | more))
    assert findings.classes is not None
    assert findings.to_dict()["background"] == name
    assert says in render(findings).splitlines()
    sheet = draw_sheet(findings.samples, findings.classes)
    for label, colour in enumerate(findings.classes.palette):
        rims = (sheet == colour[::-1]).all(axis=2)[28:].sum()  # outlines; below the legend
        assert (rims > 100) == (label != findings.classes.background), label


@pytest.mark.parametrize(
    ("stated", "background"), [(None, 1), ("none", None), ("Car", 2), ("Void", 1)]
)
def test_train_writes_it_into_the_card(
    stated: str | None, background: int | None, tmp_path: Path
) -> None:
    config = TrainConfig(tmp_path, tmp_path / "run", size=(64, 64), background=stated)
    assert make_card(config, MIDDLE).classes.background == background


def test_train_refuses_a_size_in_one_line(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path, tmp_path / "run", size=(0, 9000))
    with pytest.raises(UsageError, match=r"^--size 9000x0: height: .* \(and 1 more\)$"):
        make_card(config, MIDDLE)


def test_train_refuses_a_background_that_is_no_class(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path, tmp_path / "run", size=(64, 64), background="sky")
    with pytest.raises(UsageError, match="no class is named 'sky'") as caught:
        make_card(config, MIDDLE)
    assert "Sky, Void, Car" in str(caught.value.hint)


def test_inspect_says_which_class_it_is() -> None:
    for classes, says in ((SKY, "none, overlays paint every class"), (MIDDLE, "Void (background)")):
        found = Inspection(path="a.onnx", kind="network", card=card(classes))
        stream = io.StringIO()
        show(Console(file=stream, width=100), found)
        assert says in stream.getvalue()
        assert found.to_dict()["card"]["classes"]["background"] == classes.background


def test_objects_are_counted_where_they_are_one_class_and_the_rest_another() -> None:
    pairs = [("other", "nucleus"), ("background", "nucleus"), ("nucleus", "background")]
    names = [*pairs, ("background", "nucleus", "yeast")]
    assert [has_objects(ClassMap(names=each)) for each in names] == [True, True, True, False]


def test_the_bundled_sample_keeps_its_look() -> None:
    classes = load(ClassMap, bundled_sample() / "classes.json")
    assert classes.background == 0
    assert classes == ClassMap(names=classes.names)
