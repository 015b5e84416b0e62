"""Training, short: it learns, repeats itself, ends well, and fails with a reason."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeseg.data.folders import bundled_sample, read_split
from edgeseg.errors import (
    DatasetError,
    DeviceError,
    MismatchedArtifact,
    NonFiniteOutput,
    UsageError,
)
from edgeseg.evaluation import evaluate
from edgeseg.models import default_options
from edgeseg.options.training import Augmentation, Recipe, Teaching
from edgeseg.training import learner, setup
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import EpochStats, TrainConfig, TrainResult, train
from edgeseg.training.predictor import open_torch

pytestmark = pytest.mark.usefixtures("no_run_plots")  # but for the run of ``overfit``


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures to train on and two of the same kind to validate on."""
    root = tmp_path_factory.mktemp("few")
    names = {"train": ("08151b19806e.png", "1023509cf8d4.png"), "val": ("0532c64c2fd0.png",)}
    for split, pictures in {**names, "val": (*names["val"], "797945873ca2.png")}.items():
        for part in ("images", "instances"):
            (root / split / part).mkdir(parents=True)
            for name in pictures:
                shutil.copy(bundled_sample() / split / part / name, root / split / part)
    shutil.copy(bundled_sample() / "classes.json", root)
    return root


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=data,
        run=tmp_path / "runs" / "few",
        size=(64, 64),
        options={"width": 8, "depth": 2},
        recipe=Recipe(epochs=3, batch_size=2),
    )


def changed(config: TrainConfig, **recipe: Any) -> TrainConfig:
    """The configuration with another recipe."""
    return dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **recipe))


@pytest.fixture(scope="module")
def overfit(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Fifty steps on the same two pictures."""
    return train(
        TrainConfig(
            data=data,
            run=tmp_path_factory.mktemp("runs") / "overfit",
            size=(64, 64),
            options={"width": 8, "depth": 2},
            recipe=Recipe(epochs=50, batch_size=2, learning_rate=1e-2, augmentation=None),
        )
    )


def test_overfits_two_pictures(overfit: TrainResult) -> None:
    assert overfit.history[-1].loss < overfit.history[0].loss / 3
    assert overfit.card.metrics["mean_iou"] > 0.6


def test_the_checkpoint_is_the_best_epoch_and_evaluates_to_its_figure(
    overfit: TrainResult, data: Path
) -> None:
    best = max(stats.mean_iou for stats in overfit.history)
    evaluation = evaluate(open_torch(overfit.checkpoint), read_split(data, "val"))
    assert overfit.card.metrics["mean_iou"] == evaluation.mean_iou == best
    assert overfit.card.metrics["pixel_accuracy"] == evaluation.pixel_accuracy


def test_leaves_card_history_and_plots(overfit: TrainResult, data: Path) -> None:
    card = load_checkpoint(overfit.checkpoint)[1]
    assert card == overfit.card
    assert (card.name, card.dataset, card.input.height) == ("overfit", data.name, 64)
    assert card.options == default_options("unet-lite") | {"width": 8, "depth": 2}
    assert card.classes.names == ("background", "nucleus")
    history = json.loads(overfit.checkpoint.with_name("history.json").read_text())
    assert history == [dataclasses.asdict(stats) for stats in overfit.history]
    for plot in (overfit.curves, overfit.strip):
        image = cv2.imread(str(plot))
        assert image is not None
        assert image.std() > 5


def _weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_checkpoint(result.checkpoint)[0].state_dict()


def test_the_seed_decides(config: TrainConfig) -> None:
    """Augmentation, order and fresh weights; what was drawn before has no part in it."""
    results = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(number)
        run = config.run.with_name(str(number))
        varied = changed(config, augmentation=Augmentation("any", elastic=True))
        results.append(train(dataclasses.replace(varied, run=run, seed=seed)))
    first, again, other = map(_weights, results)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
    losses = [[stats.loss for stats in result.history] for result in results]
    assert losses[0] == losses[1] != losses[2]


def test_leaves_the_callers_random_numbers_alone(config: TrainConfig) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(changed(config, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_crops_letterbox_grey_and_rereading(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "MEMORY_LIMIT", 0)
    config = dataclasses.replace(
        config, size=(64, 96), resize="letterbox", reduce="area", color="gray"
    )
    result = train(changed(config, epochs=1, augmentation=Augmentation(crop=(32, 32))))
    assert result.card.input.shape == (1, 64, 96)
    assert (result.card.input.resize, result.card.input.reduce) == ("letterbox", "area")


def test_tiles_are_trained_and_validated_at_the_pictures_scale(config: TrainConfig) -> None:
    config = dataclasses.replace(config, size=(64, 96), tiles=True)
    result = train(changed(config, epochs=1))
    assert result.card.input.tiles
    with pytest.raises(UsageError, match="cannot be combined"):
        dataclasses.replace(config, teaching=Teaching(teacher=config.run, unlabelled=config.run))


def test_ctrl_c_keeps_the_best_checkpoint(config: TrainConfig) -> None:
    def interrupt(stats: EpochStats) -> None:
        if stats.epoch == 2:
            raise KeyboardInterrupt

    result = train(changed(config, epochs=50), on_epoch=interrupt)
    assert len(result.history) == 2
    assert result.card.metrics["mean_iou"] == max(stats.mean_iou for stats in result.history)
    assert result.curves.exists()
    assert result.strip.exists()


def test_ctrl_c_before_anything_was_learnt(config: TrainConfig) -> None:
    def track(items, description, total=None):  # type: ignore[no-untyped-def]
        if description == "train":
            raise KeyboardInterrupt
        return items

    with pytest.raises(KeyboardInterrupt):
        train(config, track)
    assert not config.run.exists()


def test_divergence_says_why(config: TrainConfig) -> None:
    with pytest.raises(NonFiniteOutput, match=r"diverged in epoch \d+: .*learning rate") as caught:
        train(changed(config, learning_rate=1e30, epochs=20))
    assert "--learning-rate" in (caught.value.hint or "")


def test_divergence_promises_no_checkpoint_that_is_not_there(config: TrainConfig) -> None:
    with pytest.raises(NonFiniteOutput, match="diverged in epoch 1") as caught:
        train(changed(config, learning_rate=1e30, schedule="cosine"))
    kept = "checkpoint" in (caught.value.hint or "")
    assert kept == (config.run / "model.safetensors").exists()


def test_refuses_a_batch_that_leaves_batch_norm_one_value(config: TrainConfig) -> None:
    """Five poolings leave a single pixel of 32×32, so a picture alone is one value a channel."""
    small = dataclasses.replace(config, size=(32, 32), options={"width": 8, "depth": 5})
    with pytest.raises(UsageError, match="BatchNorm needs more than one value") as caught:
        train(changed(small, batch_size=1))
    assert "--depth" in (caught.value.hint or "")
    assert not config.run.exists()
    assert train(changed(small, batch_size=2, epochs=1)).history


def test_refuses_what_the_check_of_the_data_faults(
    config: TrainConfig, data: Path, tmp_path: Path
) -> None:
    """A picture that is in both splits, which every step of a training would read."""
    leaky = tmp_path / "leaky data"
    shutil.copytree(data, leaky)
    name = next((data / "train" / "images").iterdir()).name
    for part in ("images", "instances"):
        shutil.copy(data / "train" / part / name, leaky / "val" / part / name)
    with pytest.raises(DatasetError, match=f"1 fault: .*{name}.*across splits") as caught:
        train(dataclasses.replace(config, data=leaky))
    assert f"edgeseg data check '{leaky}'" in (caught.value.hint or "")
    assert not config.run.exists()


def test_memory_that_is_exhausted_is_one_sentence(config: TrainConfig) -> None:
    """PyTorch's own allocator refuses, without a byte being taken."""

    def exhaust(_stats: EpochStats) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(DeviceError, match="needs more memory than this machine") as caught:
        train(changed(config, epochs=1), on_epoch=exhaust)
    assert "--batch-size" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": (4, 64)}, "--size 64x4: height"),
        ({"color": "hsv"}, "color: Input should be"),
        ({"arch": "resnet"}, "arch: Input should be"),
        ({"options": {"width": 3}}, "multiple of 8"),
        ({"data": Path("nowhere")}, "no such folder"),
        ({"weights": Path("vgg.safetensors")}, "no such file"),
        ({"weights": Path("bundled:nuclei")}, "found no model.safetensors there"),
        ({"teaching": Teaching(Path("nowhere"))}, "expected the network of a teacher"),
        ({"size": (64, 8), "options": {"depth": 4}}, "--size 8x64: this network expects 16"),
        ({"recipe": Recipe(augmentation=Augmentation(crop=(8, 9)))}, "--crop 9x8: .* 16"),
    ],
)
def test_refuses_a_configuration(
    config: TrainConfig, change: dict[str, object], reason: str
) -> None:
    """Before it reads pictures, which may take minutes."""
    begun: list[str] = []

    def track(items, description, total=None):  # type: ignore[no-untyped-def]
        begun.append(description)
        return items

    with pytest.raises(UsageError, match=reason):
        train(dataclasses.replace(config, **({"options": {}} | change)), track)  # type: ignore[arg-type]
    assert not config.run.exists()
    assert not begun


def with_masks(data: Path, root: Path) -> Path:
    """The same pictures with masks of classes in place of objects."""
    shutil.copytree(data, root)
    for split in ("train", "val"):
        (root / split / "masks").mkdir()
        for path in (root / split / "instances").iterdir():
            ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(root / split / "masks" / path.name), (ids > 0).astype(np.uint8))
    return root


@pytest.mark.parametrize("recipe", [{"border_weight": 10.0}, {"touching": "gap"}])
def test_refuses_to_learn_objects_from_masks(
    config: TrainConfig, data: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    root = with_masks(data, tmp_path / "masks")
    config = dataclasses.replace(changed(config, epochs=1, **recipe), data=root)
    assert train(config).history
    shutil.rmtree(root / "train" / "instances")
    with pytest.raises(DatasetError, match="expected a map of its objects"):
        train(config)


def test_refuses_a_boundary_where_masks_name_the_classes(
    config: TrainConfig, data: Path, tmp_path: Path
) -> None:
    root = with_masks(data, tmp_path / "masks")
    with pytest.raises(UsageError, match="a boundary class is made of objects"):
        train(dataclasses.replace(changed(config, touching="boundary"), data=root))


def test_learns_a_boundary_class(config: TrainConfig, data: Path) -> None:
    result = train(changed(config, epochs=1, touching="boundary", border_weight=5.0))
    assert result.card.classes.names == ("background", "nucleus", "boundary")
    evaluation = evaluate(open_torch(result.checkpoint), read_split(data, "val"))
    assert evaluation.mean_iou == result.card.metrics["mean_iou"]


def test_a_network_without_padding_trains_on_any_size(config: TrainConfig) -> None:
    """Its checkpoint holds the network itself, not what mirrors the picture for it."""
    config = dataclasses.replace(config, arch="unet", options={"width": 8, "depth": 1})
    result = train(changed(dataclasses.replace(config, size=(40, 52)), epochs=1))
    assert load_checkpoint(result.checkpoint)[1].arch == "unet"
    assert not any("inner" in name for name in load_file(result.checkpoint))


def test_imagenet_weights_reach_the_network(config: TrainConfig, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    config = dataclasses.replace(
        config, arch="fcn8s", options={"fc_width": 8}, weights=tmp_path / "w.safetensors"
    )
    with pytest.raises(MismatchedArtifact, match=r"features\.0\.weight"):
        train(config)


def test_weights_of_a_run(
    config: TrainConfig, overfit: TrainResult, caplog: pytest.LogCaptureFixture
) -> None:
    run = overfit.checkpoint.parent
    recipe = dataclasses.replace(config.recipe, pretrained_rate=0.1)
    config = dataclasses.replace(config, recipe=recipe)
    setup.fresh_network(config, overfit.card)
    assert "--pretrained-rate 0.1 changes nothing" in caplog.text
    caplog.clear()
    network, copied = setup.fresh_network(dataclasses.replace(config, weights=run), overfit.card)
    assert "--pretrained-rate" not in caplog.text
    expected = load_file(overfit.checkpoint)
    assert set(copied) == set(expected)
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_bfloat16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False
        )
        assert learner._native_bfloat16(cpu) is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert learner._native_bfloat16(cpu) is False
