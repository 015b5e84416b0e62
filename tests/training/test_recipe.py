"""Recipes and configurations: what is refused, and what follows from them."""

from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import UsageError
from edgeseg.options.training import Augmentation, Recipe, TrainConfig


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1"),
        ({"batch_size": 0}, "batch_size: Input"),
        ({"accumulate": 0}, "accumulate: Input"),
        ({"learning_rate": float("nan")}, "learning_rate: Input should be"),
        ({"border_sigma": 0}, "border_sigma: Input should be greater than 0"),
        ({"weight_decay": -1}, "weight_decay: Input"),
        ({"weight_decay": 1e30}, "weight_decay: Input should be less than or equal to 100"),
        ({"dice": float("inf")}, "dice: Input should be a finite number"),
        ({"border_weight": -1}, "border_weight: Input"),
        ({"schedule": "step"}, "schedule: Input should be 'one-cycle', 'poly' or 'cosine'"),
        ({"autocast": "fp8"}, "autocast: Input should be"),
        ({"class_weights": "inverse"}, "class_weights: Input"),
        ({"touching": "gaps"}, "touching: Input"),
        ({"ohem": 0}, "ohem: Input should be greater than 0"),
        ({"ohem": 1.5}, "ohem: Input should be less than or equal to 1"),
        ({"pretrained_rate": 0}, "pretrained_rate: Input"),
    ],
)
def test_refuses_a_recipe(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Recipe(**change)


@pytest.mark.parametrize(
    "scale", [(0, 1), (1e-4, 1e-4), (1, 1e3), (2, 1), (1, float("inf")), "1", "2-1", "a-b", "0-1"]
)
def test_refuses_a_range_of_scales(scale: Any) -> None:
    with pytest.raises(UsageError, match="scale"):
        Augmentation(scale=scale)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threads": 0}, "threads: Input"),
        (
            {"recipe": Recipe(augmentation=Augmentation(crop=(128, 64)))},
            "--crop 64x128: expected at most",
        ),
        ({"weights": Path("a"), "pretrained": "imagenet"}, "both set the initial weights"),
    ],
)
def test_refuses_a_configuration(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        TrainConfig(**({"data": Path("d"), "run": Path("r"), "size": (64, 64)} | change))


def test_an_epoch_of_crops_sees_as_many_pixels() -> None:
    def parts(crop: tuple[int, int] | None) -> int:
        recipe = Recipe(augmentation=Augmentation(crop=crop))
        return TrainConfig(Path("d"), Path("r"), size=(64, 96), recipe=recipe).parts

    assert [parts(crop) for crop in (None, (64, 96), (32, 48), (60, 90))] == [1, 1, 4, 1]
    plain = TrainConfig(Path("d"), Path("r"), recipe=Recipe(augmentation=None))
    assert (plain.crop, plain.parts) == (None, 1)
