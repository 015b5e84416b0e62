"""Recipes and configurations: what is refused, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeseg.data.augment import Augmentation
from edgeseg.errors import UsageError
from edgeseg.training.recipe import Recipe, TrainConfig


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 0}, "epochs is 1 or more"),
        ({"batch_size": 0}, "batch_size is 1 or more"),
        ({"accumulate": 0}, "accumulate is 1 or more"),
        ({"learning_rate": float("nan")}, "learning_rate is above 0"),
        ({"border_sigma": 0}, "border_sigma is above 0"),
        ({"weight_decay": -1}, "weight_decay is 0 or more"),
        ({"dice": float("inf")}, "dice is 0 or more"),
        ({"border_weight": -1}, "border_weight is 0 or more"),
        ({"schedule": "step"}, "schedule is one of one-cycle, poly, cosine"),
        ({"autocast": "fp8"}, "autocast is one of"),
        ({"class_weights": "inverse"}, "class_weights is one of"),
        ({"touching": "gaps"}, "touching is one of merged, gap, boundary"),
    ],
)
def test_refuses_a_recipe(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Recipe(**change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threads": 0}, "threads is 1 or more"),
        ({"recipe": Recipe(augmentation=Augmentation(crop=(128, 64)))}, "crop is at most the size"),
        ({"weights": Path("a"), "pretrained": "imagenet"}, "two beginnings"),
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
