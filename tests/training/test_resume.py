"""Resuming: an interrupted training comes to the same weights, or says why it cannot go on."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgeseg.artifacts.card import ModelCard
from edgeseg.errors import ArtifactError, CorruptArtifact, MismatchedArtifact
from edgeseg.options.training import Augmentation, Recipe
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.training.loop import EpochStats, TrainConfig, TrainResult, train

pytestmark = pytest.mark.usefixtures("no_run_plots")
RECIPE = Recipe(
    epochs=4,
    batch_size=3,
    accumulate=2,
    ohem=0.5,
    augmentation=Augmentation("any", crop=(32, 32), scale=(0.5, 2)),
)
SIZE = (32, 48)
OPTIONS: dict[str, bool | int | float | str] = {"width": 8, "depth": 1}


@pytest.fixture
def config(small_data: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(small_data, tmp_path / "run", size=SIZE, options=OPTIONS, recipe=RECIPE)


def interrupted(config: TrainConfig, after: int = 2, **recipe: Any) -> TrainResult:
    """Ctrl-C when an epoch has ended."""

    def interrupt(stats: EpochStats) -> None:
        if stats.epoch == after:
            raise KeyboardInterrupt

    return train(changed(config, **recipe), on_epoch=interrupt)


def changed(config: TrainConfig, **recipe: Any) -> TrainConfig:
    return dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **recipe))


def resumed(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, resume=True)


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / f"{name}.safetensors")


def figures(result: TrainResult) -> list[tuple[float, ...]]:
    return [dataclasses.astuple(dataclasses.replace(stats, seconds=0)) for stats in result.history]


@pytest.fixture(scope="module")
def whole(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The four epochs in one go; the run is not written to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return train(TrainConfig(small_data, run, size=SIZE, options=OPTIONS, recipe=RECIPE))


def test_two_and_two_epochs_are_four_to_the_bit(config: TrainConfig, whole: TrainResult) -> None:
    first = interrupted(config)
    assert len(first.history) == 2
    half = weights(config.run, "last")
    torch.rand(7)  # what is drawn in between has no part in it
    result = train(resumed(config))
    assert figures(result) == figures(whole)
    assert result.card.metrics == whole.card.metrics
    for name in ("model", "last"):
        expected, found = (weights(each.checkpoint.parent, name) for each in (whole, result))
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    # The check can fail: the weights were others half way.
    assert any(not torch.equal(value, half[key]) for key, value in expected.items())


def test_an_epoch_that_was_cut_short_is_done_again(config: TrainConfig, whole: TrainResult) -> None:
    """Killed in the middle of an epoch, when only the one before is on the disk."""

    def count(items, description, total=None):  # type: ignore[no-untyped-def]
        for item in items:
            if description == "train" and item == 3:
                torch.rand(5)
                raise KeyboardInterrupt
            yield item

    assert len(train(config, track=count).history) == 2
    assert figures(train(resumed(config))) == figures(whole)


def test_ctrl_c_leaves_both_checkpoints(config: TrainConfig) -> None:
    result = interrupted(config)
    last, card = load_checkpoint(config.run / "last.safetensors")
    assert card.metrics["epoch"] == 2
    assert card.metrics["mean_iou"] == result.history[-1].mean_iou
    kept = weights(config.run, "state")
    assert all(
        torch.equal(value, kept[f"average.module.{name}"])
        for name, value in last.state_dict().items()
    )


@pytest.mark.parametrize("epoch", [1, 2])
def test_ctrl_c_while_an_epoch_is_written_leaves_it_out(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """The result names no epoch that is not on the disk."""

    def save(path: Path, model: torch.nn.Module, card: ModelCard) -> None:
        if card.metrics["epoch"] == epoch:
            raise KeyboardInterrupt
        save_checkpoint(path, model, card)

    monkeypatch.setattr("edgeseg.training.loop.save_checkpoint", save)
    if epoch == 1:
        with pytest.raises(KeyboardInterrupt):
            train(config)
    else:
        assert len(train(config).history) == 1


def test_a_training_that_ended_has_nothing_left_to_do(
    config: TrainConfig, whole: TrainResult
) -> None:
    shutil.copytree(whole.checkpoint.parent, config.run)
    assert weights(config.run, "state") == {}
    epochs: list[EpochStats] = []
    again = train(resumed(config), on_epoch=epochs.append)
    assert epochs == []
    assert again.history == whole.history
    assert again.card == whole.card
    with pytest.raises(MismatchedArtifact, match=r"epochs 4, now it is 5"):
        train(resumed(changed(config, epochs=5)))


def test_without_a_state_it_begins(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="edgeseg")
    config = changed(config, epochs=1)
    assert len(train(resumed(config)).history) == 1
    assert "no training to resume" in caplog.text


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"recipe": {"learning_rate": 1e-3}}, r"learning_rate 0\.003, now it is 0\.001"),
        ({"recipe": {"augmentation": None}}, r"augmentation"),
        ({"recipe": {"augmentation": Augmentation("any")}}, r"augmentation\.crop \[32, 32\]"),
        ({"seed": 1}, "seed 0, now it is 1"),
        ({"options": {"width": 16, "depth": 1}}, r"width 8, now it is 16"),
        ({"size": (32, 64)}, "size"),
    ],
)
def test_another_configuration_is_refused(
    config: TrainConfig, begun: Path, change: dict[str, Any], name: str
) -> None:
    recipe = dataclasses.replace(config.recipe, **change.pop("recipe", {}))
    config = dataclasses.replace(resumed(config), run=begun, recipe=recipe, **change)
    before = (begun / "state.safetensors").read_bytes()
    with pytest.raises(MismatchedArtifact, match=name) as caught:
        train(config)
    assert "--run" in (caught.value.hint or "")
    assert (begun / "state.safetensors").read_bytes() == before


def test_other_pictures_are_refused(config: TrainConfig, begun: Path, tmp_path: Path) -> None:
    data = tmp_path / "other"
    shutil.copytree(config.data, data)
    moved = dataclasses.replace(resumed(config), run=begun, data=data)
    gone = sorted((data / "train" / "images").iterdir())[0]
    gone.unlink()
    (data / "train" / "instances" / gone.name).unlink()
    with pytest.raises(MismatchedArtifact, match="started with other pictures in train"):
        train(moved)


@pytest.fixture(scope="module")
def begun(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after its first epoch; not written to."""
    run = tmp_path_factory.mktemp("begun") / "run"
    interrupted(TrainConfig(small_data, run, size=SIZE, options=OPTIONS, recipe=RECIPE), 1)
    return run


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _without(path: Path, part: str) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: value for name, value in load_file(path).items() if part not in name}
    save_file(tensors, path, metadata)


def _with_header(path: Path, header: dict[str, str] | None) -> None:
    save_file(load_file(path), path, header)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncated, "not the state of a training"),
        (lambda path: path.write_bytes(b"PK\x03\x04pickled"), "not the state of a training"),
        (lambda path: _without(path, "exp_avg_sq"), "exp_avg_sq"),
        (lambda path: _without(path, "model.head"), "model|head"),
        (lambda path: _with_header(path, None), r"no edgeseg\.training"),
        (lambda path: _with_header(path, {"edgeseg.training": "{}"}), "config"),
        (
            lambda path: _with_header(path, {"edgeseg.training": '{"schema_version": 9}'}),
            "schema version 9",
        ),
    ],
)
def test_a_damaged_state_is_refused(
    config: TrainConfig, begun: Path, damage: Any, reason: str
) -> None:
    config.run.mkdir()
    state = config.run / "state.safetensors"
    state.write_bytes((begun / "state.safetensors").read_bytes())
    damage(state)
    with pytest.raises(ArtifactError, match=reason) as caught:
        train(resumed(config))
    assert isinstance(caught.value, CorruptArtifact | MismatchedArtifact)
    assert sorted(path.name for path in config.run.iterdir()) == ["state.safetensors"]
