"""``edgeseg train``: its options reach the training, which goes on where it was told to."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS
from safetensors import safe_open

from edgeseg.errors import UsageError
from edgeseg.options.base import words
from edgeseg.options.training import RECIPES, RecipeName, TrainConfig

SMALL = ("--size", "48x32", "--width", "8", "--depth", "1", "--epochs", "2", "--threads", "1")
OPTIONS = {
    "--augment": "any",
    "--crop": "32x32",
    "--batch-size": "3",
    "--accumulate": "2",
    "--learning-rate": "0.002",
    "--schedule": "poly",
    "--autocast": "bf16",
    "--class-weights": "median-frequency",
    "--dice": "0.5",
    "--border-weight": "8",
    "--border-sigma": "3",
    "--touching": "gap",
    "--clip-norm": "2.5",
    "--scale": "0.5-2",
    "--weight-decay": "0.05",
    "--pretrained-rate": "0.1",
    "--ohem": "0.25",
    "--seed": "7",
}
EXPECTED = {
    "arch": "unet-lite",
    "size": [32, 48],
    "seed": 7,
    "options.width": 8,
    "options.skips": False,
    "options.upsampling": "deconvolution",
    "recipe.epochs": 2,
    "recipe.batch_size": 3,
    "recipe.accumulate": 2,
    "recipe.learning_rate": 0.002,
    "recipe.schedule": "poly",
    "recipe.autocast": "bf16",
    "recipe.class_weights": "median-frequency",
    "recipe.dice": 0.5,
    "recipe.border_weight": 8.0,
    "recipe.border_sigma": 3.0,
    "recipe.touching": "gap",
    "recipe.clip_norm": 2.5,
    "recipe.weight_decay": 0.05,
    "recipe.pretrained_rate": 0.1,
    "recipe.ohem": 0.25,
    "recipe.augmentation.scale": [0.5, 2.0],
    "recipe.augmentation.orientation": "any",
    "recipe.augmentation.crop": [32, 32],
    "recipe.augmentation.elastic": True,
}


def test_every_option_reaches_the_training(edgeseg: Any, small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [text for pair in OPTIONS.items() for text in pair]
    options += ["--elastic", "--option", "skips=false", "--option", "upsampling=deconvolution"]
    line = ("train", "--data", small_data, "--run", run, *SMALL, *options, "--json")
    outcome = edgeseg(*line, "--tensorboard")
    assert outcome.code == 0, outcome.err
    with safe_open(run / "state.safetensors", "pt") as file:
        config = json.loads(file.metadata()["edgeseg.training"])["config"]
    assert {key: config[key] for key in EXPECTED} == EXPECTED
    assert list(run.glob("events.out.tfevents*"))
    assert "class weights: background" in outcome.err

    again = edgeseg(*line, "--resume")
    assert again.code == 0, again.err
    assert again.document["val_mean_iou"] == outcome.document["val_mean_iou"]
    assert "there is nothing to do" in again.err
    other = edgeseg(*line, "--resume", "--dice", "1")
    assert other.code == 3
    assert "with dice 0.5, now it is 1.0" in other.err
    assert "/model.safetensors" in other.err.partition("--weights ")[2]
    assert edgeseg(*line).code == 2  # it holds a run


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_by_name_is_that_of_python(
    edgeseg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: RecipeName
) -> None:
    """And options that are given go first, wherever they stand."""
    seen: list[TrainConfig] = []

    def stop(config: TrainConfig, **_: Any) -> None:
        seen.append(config)
        raise UsageError("seen")

    monkeypatch.setattr("edgeseg.training.loop.train", stop)
    line = ("train", "--data", tmp_path, "--run", tmp_path / "run")
    edgeseg(*line, "--recipe", name)
    edgeseg(*line, "--epochs", "7", "--recipe", name, "--scale", "none")
    recipe = RECIPES[name]
    assert seen[0].recipe == recipe
    assert recipe.augmentation is not None
    given = replace(recipe, epochs=7, augmentation=replace(recipe.augmentation, scale=None))
    assert seen[1].recipe == given != recipe


def test_overwriting_leaves_nothing_to_resume(
    edgeseg: Any, small_data: Path, tmp_path: Path
) -> None:
    """Else a training would go on from the state of the one that it replaced."""
    for name in ("state.safetensors", "last.safetensors", "model.onnx", "events.out.tfevents.1"):
        (tmp_path / name).write_bytes(b"of an earlier run")
    outcome = edgeseg("train", "--data", small_data / "none", "--run", tmp_path, "--overwrite")
    assert outcome.code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("--resume needs --run", ("--resume",)),
        ("--resume needs --run", ("--resume", "--overwrite", "--run", "x")),
        ("--crop, --elastic and --scale", ("--augment", "none", "--crop", "32x32")),
        ("--crop, --elastic and --scale", ("--augment", "none", "--elastic")),
        ("--crop, --elastic and --scale", ("--augment", "none", "--scale", "0.5-2")),
        ("'sideways' is not one of 'upright', 'any', 'none'", ("--augment", "sideways")),
        ("'step' is not one of", ("--schedule", "step")),
        ("'fp8' is not one of", ("--autocast", "fp8")),
        ("'inverse' is not", ("--class-weights", "inverse")),
        ("'apart' is not one of", ("--touching", "apart")),
        ("'coco' is not", ("--pretrained", "coco")),
        ("unet-lite has the options width=16", ("--option", "dropout=0.1")),
        ("unet-lite has the options width=16", ("--option", "skips")),
        ("skips is of type bool", ("--option", "skips=maybe")),
        ("upsampling is bilinear, deconvolution", ("--option", "upsampling=nearest")),
        ("'rain' is not one of", ("--recipe", "rain")),
        ("expected LOWEST-HIGHEST above 0", ("--scale", "0.5")),
        ("need a teacher", ("--unlabelled", "frames")),
        ("expected the network of a teacher", ("--teacher", "runs/none")),
        ("'--seed': Input should be", ("--seed", str(2**32))),
        ("'--seed': Input should be", ("--seed", "-1")),
        ("'--threads': Input should be", ("--threads", "100000")),
        ("'--temperature': Input should be", ("--temperature", "1e30")),
        ("--width and --option width=", ("--width", "8", "--option", "width=16")),
        ("both set the initial weights", ("--pretrained", "imagenet", "--weights", "w.pth")),
    ],
)
def test_refused_options(
    edgeseg: Any,
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    options: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = edgeseg("train", "--data", small_data, *SMALL, *options)
    assert outcome.code == 2
    assert says in outcome.err


def test_the_guide_lists_the_recipes() -> None:
    text = (DOCS / "training.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `(--augment .*)` \|$", text, re.MULTILINE))
    assert rows.keys() == RECIPES.keys()
    for name, recipe in RECIPES.items():
        assert recipe.augmentation is not None
        expected = ["--augment", recipe.augmentation.orientation, *words(recipe)]
        assert rows[name].split() == expected
