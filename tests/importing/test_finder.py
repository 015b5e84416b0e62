"""The preprocessing of a network, found on labelled pictures or said to be unknown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foreign import NAMES, SIZE, Foreign, dataset
from sklearn.metrics import jaccard_score

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import DatasetError
from edgeseg.importing import ImportConfig, Imported, import_network
from edgeseg.importing.finder import Combination, Ranking, combinations, mean_ious
from edgeseg.importing.inputs import PictureInput
from edgeseg.importing.options import IMAGENET, NONE, UNIT, parse_normalise
from edgeseg.importing.preprocessing import Preprocessing, settle, tried_lines


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures wider than the network's input, so that resize rules differ."""
    root = dataset(tmp_path_factory.mktemp("data"), count=5)
    for path in sorted((root / "val").rglob("*.png")):
        old = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        wide = cv2.resize(old, (128, 48), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(path), wide)
    return root


def imported(tmp_path: Path, network: Foreign, config: ImportConfig) -> Imported:
    return import_network(network.save(tmp_path / "theirs.onnx"), tmp_path / "run", config)


@pytest.mark.parametrize(
    ("network", "color", "normalise"),
    [
        (Foreign(), "rgb", "imagenet"),
        (Foreign(bgr=True, normalise="none"), "bgr", "none"),
        (Foreign("int64", bgr=True, normalise="unit", layout="nhwc"), "bgr", "unit"),
    ],
    ids=["imagenet", "levels", "unit"],
)
def test_the_right_combination_is_found(
    tmp_path: Path, data: Path, network: Foreign, color: str, normalise: str
) -> None:
    made = imported(tmp_path, network, ImportConfig(data=data))
    found = made.wrapped.preprocessing
    assert found.combination.color == color
    assert found.combination.normalise.name == normalise
    assert found.origins["color"] == found.origins["normalise"] == "found on 5 pictures"
    assert found.origins["resize"] == "found on 5 pictures"
    assert made.wrapped.findings is not None
    assert made.wrapped.findings.tried >= 24
    assert made.card.input == found.spec((48, 64))


def test_what_is_stated_is_kept_and_contradicted(tmp_path: Path, data: Path) -> None:
    made = imported(tmp_path, Foreign(), ImportConfig(data=data, color="bgr"))
    assert made.card.input.color == "bgr"
    (warning,) = [text for title, text in made.lines if title == "warning"]
    assert warning.startswith("rgb would give 1.000 instead of 0.")
    assert warning.endswith("--color rgb")


def test_another_order_of_classes_is_told(tmp_path: Path, data: Path) -> None:
    swapped = ImportConfig(classes="background,blue,red", data=data)
    made = imported(tmp_path, Foreign(), swapped)
    warnings = [text for title, text in made.lines if title == "warning"]
    assert any("--classes background,red,blue" in text for text in warnings)
    assert made.card.classes.names == ("background", "blue", "red")


def test_grey_pictures_cannot_tell_the_order_of_channels(tmp_path: Path) -> None:
    root = dataset(tmp_path / "grey", names=("background", "bright"))
    for path in (root / "val" / "images").iterdir():
        mask = cv2.imread(str(root / "val" / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.stack([60 + 140 * mask] * 3, axis=-1).astype(np.uint8))
    network = Bright()
    made = imported(tmp_path, network, ImportConfig(data=root))
    assert made.wrapped.preprocessing.origins["color"] == "assumed, 4 pictures cannot tell"
    assert made.card.input.color == "rgb"
    assert not [text for title, text in made.lines if title == "warning"]


class Bright(Foreign):
    """Class 1 where the mean of the channels exceeds 0.5."""

    def layers(self) -> tuple[np.ndarray, ...]:
        above = np.full((1, 3), 1 / 3), np.array([-0.5])
        return *above, np.array([[0.0], [1.0]]), np.array([0.01, 0])


def test_a_single_picture_cannot_tell(tmp_path: Path) -> None:
    root = dataset(tmp_path / "one", count=1)
    made = imported(tmp_path, Foreign(bgr=True), ImportConfig(data=root))
    assert made.wrapped.preprocessing.combination.color == "rgb"
    assert "cannot tell" in made.wrapped.preprocessing.origins["color"]


def choices(**fields: Any) -> list[Combination]:
    picture = PictureInput("x", "float32", "nchw", 1, 3, *SIZE)
    likely = Combination("rgb", IMAGENET, "stretch")
    return combinations(replace(picture, **fields.pop("picture", {})), replace(likely, **fields))


def test_no_combination_is_tried_twice() -> None:
    assert len(choices()) == 32
    levels = parse_normalise("123.675,116.28,103.53/58.395,57.12,57.375")
    halves = parse_normalise("0.5,0.5,0.5/0.5,0.5,0.5")
    assert len(choices(normalise=halves)) == 32
    # Written in grey levels it is ImageNet's on RGB, and crossed on BGR: both are there.
    assert len(choices(normalise=levels)) == 32
    assert len(choices(normalise=parse_normalise("0.3/0.2"))) == 36
    gray = {"color": "gray", "normalise": UNIT, "picture": {"channels": 1}}
    assert len(choices(**gray)) == 8
    assert len(choices(normalise=NONE, picture={"dtype": "uint8"})) == 4


def test_other_classes_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DatasetError, match="expected the classes of the network"):
        imported(tmp_path, Foreign(), ImportConfig(classes="background,red,green", data=data))


def test_without_labels_the_report_says_what_was_assumed(tmp_path: Path) -> None:
    made = imported(tmp_path, Foreign(), ImportConfig(classes=",".join(NAMES)))
    assert dict(made.lines)["not tried"].startswith("--data DIR")
    assert set(made.wrapped.preprocessing.origins.values()) == {"assumed"}


def findings(scores: dict[Combination, list[float]]) -> Ranking:
    """Ranking whose resamples are as given."""
    samples = {each: np.array(values) for each, values in scores.items()}
    return Ranking({e: float(v.mean()) for e, v in samples.items()}, samples, 9, 2)


def test_only_a_clear_difference_decides() -> None:
    likely, other = (Combination("rgb", each, "stretch") for each in (IMAGENET, UNIT))
    before = Preprocessing(likely, dict.fromkeys(("color", "normalise", "resize"), "assumed"))
    noise = np.linspace(-0.1, 0.1, 101)
    close = findings({other: list(0.8 + noise), likely: list(0.79 - noise)})
    assert settle(before, close).combination == likely
    clear = findings({other: list(0.8 + noise), likely: list(0.6 + noise)})
    assert settle(before, clear).combination == other
    stated = replace(before, origins=before.origins | {"normalise": "stated"})
    assert settle(stated, clear).combination == likely
    assert replace(other, normalise=NONE).differs(other) == ("normalise",)


def test_trials_are_shown_with_intervals() -> None:
    likely, other = (Combination("rgb", each, "stretch") for each in (IMAGENET, UNIT))
    before = Preprocessing(likely, dict.fromkeys(("color", "normalise", "resize"), "assumed"))
    noise = np.linspace(-0.1, 0.1, 101)
    clear = findings({other: list(0.8 + noise), likely: list(0.6 + noise)})
    close = findings({other: list(0.8 + noise), likely: list(0.79 - noise)})
    shown, doubted = (
        dict(tried_lines(before, each, ClassMap(names=NAMES)))["tried"] for each in (clear, close)
    )
    assert "0.800 with rgb normalisation unit" in shown
    assert "0.600 (-0.200…-0.200) with rgb normalisation imagenet" in shown
    ((low, high),) = re.findall(r"0\.790 \((-0\.\d+)…(\+0\.\d+)\)", doubted)
    assert float(low) < -0.15
    assert float(high) > 0.15


def test_mean_iou_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    truth, found = random.integers(0, 4, (2, 3, 500))
    matrices: Any = np.zeros((3, 5, 5), np.int64)
    np.add.at(matrices, (np.arange(3)[:, None], truth, found), 1)
    expected = [jaccard_score(t, f, average="macro") for t, f in zip(truth, found, strict=True)]
    np.testing.assert_allclose(mean_ious(matrices), expected)
