import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, default_palette
from edgeseg.artifacts.documents import Document, parse
from edgeseg.errors import ArtifactError, CorruptArtifact, MismatchedArtifact


def make_card(**changes: object) -> ModelCard:
    values = {
        "name": "nuclei",
        "arch": "unet-lite",
        "classes": {"names": ("background", "nucleus")},
        "input": {"height": 64, "width": 96},
    }
    return ModelCard.model_validate(values | changes)


def test_round_trip() -> None:
    card = make_card(options={"width": 16}, metrics={"val_mean_iou": 0.9}, dataset="nuclei")
    assert parse(ModelCard, card.to_json(), "x") == card


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("{", CorruptArtifact, "not valid JSON"),
        ("[]", CorruptArtifact, "should be an object"),
        ("{}", CorruptArtifact, "name"),
        (make_card().to_json().replace('"schema_version":1', '"schema_version":2'),
         MismatchedArtifact, "schema version 2"),
        (make_card().to_json().replace('"name"', '"colour"', 1), CorruptArtifact, "name|colour"),
        (make_card().to_json().replace('"height":64', '"height":-64'), CorruptArtifact, "height"),
        (make_card().to_json().replace("0.229", "NaN"), CorruptArtifact, "JSON|std"),
        ("[" * 100_000, CorruptArtifact, "not valid JSON"),
        (make_card().to_json().replace('"nucleus"', '"background"'), CorruptArtifact,
         "^a.onnx: classes: class names repeat"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        parse(ModelCard, text, "a.onnx")
    assert str(caught.value).startswith("a.onnx: ")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_whatever_is_in_the_file_only_our_errors_leave(data: st.DataObject) -> None:
    text = bytearray(make_card().to_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ArtifactError):
        parse(ModelCard, bytes(text), "x")


@pytest.mark.parametrize(
    ("names", "more", "says"),
    [
        (("a", "a"), {}, "repeat"),
        (("a",), {}, "at least 2"),
        (("a", "b"), {"palette": ((0, 0, 0),)}, "2 class names but 1 colours"),
        (("a", "b"), {"ignore": 1}, "also the id of a class"),
        (tuple(map(str, range(256))), {}, "at most 255"),
    ],
)
def test_classes_that_contradict_themselves(
    names: tuple[str, ...], more: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ClassMap.model_validate({"names": names} | more)


def test_channels_must_agree() -> None:
    with pytest.raises(ValueError, match="1 channel"):
        InputSpec(height=64, width=64, color="gray")
    grey = InputSpec(height=64, width=32, color="gray", mean=(0.5,), std=(0.5,))
    assert grey.shape == (1, 64, 32)


def test_derived_card_names_its_parent() -> None:
    card = make_card()
    child = card.derive(parent_sha256="0" * 64, precision="int8")
    assert (child.parent_sha256, child.precision) == ("0" * 64, "int8")
    assert (child.classes, child.input) == (card.classes, card.input)


def test_palette_colours_differ() -> None:
    colours = default_palette(32, 0)
    assert colours[0] == (0, 0, 0)
    assert all(a != b for a, b in itertools.combinations(colours, 2))
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_a_card_with_defaults_is_one_that_older_versions_read() -> None:
    written = make_card().to_json()
    assert "reduce" not in written
    assert "tiles" not in written
    assert parse(ModelCard, written, "x").input.reduce == "bilinear"
    assert "reduce" not in make_card().model_dump()["input"]


def test_tiles_are_not_resized() -> None:
    card = make_card(input={"height": 64, "width": 96, "tiles": True})
    assert parse(ModelCard, card.to_json(), "x") == card
    with pytest.raises(CorruptArtifact, match="tiles are not resized"):
        parse(ModelCard, card.to_json().replace('"stretch"', '"letterbox"'), "x")


def test_a_card_that_reduces_by_area_is_refused_where_that_is_unknown() -> None:
    card = make_card(input={"height": 64, "width": 96, "reduce": "area"})
    assert parse(ModelCard, card.to_json(), "x") == card
    fields = {
        name: (field.annotation, field)
        for name, field in InputSpec.model_fields.items()
        if name != "reduce"
    }
    before = create_model("Before", __base__=Document, **fields)
    assert parse(before, make_card().input.to_json(), "x").model_dump()["width"] == 96
    with pytest.raises(CorruptArtifact, match="reduce"):
        parse(before, card.input.to_json(), "x")
    with pytest.raises(CorruptArtifact, match="reduce"):
        parse(ModelCard, card.to_json().replace('"area"', '"cubic"'), "x")
