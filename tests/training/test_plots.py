"""Plots of a run: the strip goes from the worst picture to the best, and needs labels in none."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cards import model_card

from edgeseg.evaluation import score
from edgeseg.models import build
from edgeseg.options.training import Recipe, TrainConfig
from edgeseg.training import plots
from edgeseg.training.loop import train
from edgeseg.training.predictor import TorchEngine

CARD = model_card("ab", 16, 24, options={"width": 8, "depth": 1})


def test_the_strip_goes_from_the_worst_picture_to_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(build("unet-lite", 2, width=8, depth=1), CARD, Path("model.safetensors"))
    noise = np.random.default_rng(0)
    pictures = [
        (noise.integers(0, 256, (16, 24, 3), np.uint8), noise.integers(0, 2, (16, 24), np.uint8))
        for _ in range(70)
    ]
    pictures.sort(key=lambda picture: -score(engine, [picture]).mean_iou)
    pictures.insert(3, (pictures[0][0], np.full_like(pictures[0][1], 255)))  # it has no score
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    plots.save_predictions(tmp_path / "strip.png", engine, pictures)
    grid = np.reshape(drawn[0].axes, (5, 3))
    del pictures[3]
    figures = sorted(score(engine, [picture]).mean_iou for picture in pictures)
    shown = [float(row[2].get_title().split()[-1]) for row in grid]
    assert shown[:: len(shown) - 1] == pytest.approx([figures[0], figures[-1]], abs=6e-4)
    assert shown == sorted(shown)
    worst = min(pictures, key=lambda picture: score(engine, [picture]).mean_iou)
    truth = plots.panels(engine, worst)[1][..., ::-1]
    assert np.array_equal(grid[0, 1].images[0].get_array(), truth)


def test_pictures_without_labels_end_no_training(small_data: Path, tmp_path: Path) -> None:
    """Nothing can be compared on them, neither for the strip nor for TensorBoard."""
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    for split in ("train", "val"):
        (data / split / "instances").rename(data / split / "masks")
        for number, mask in enumerate(sorted((data / split / "masks").iterdir())):
            ids = (cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8)
            cv2.imwrite(str(mask), np.full_like(ids, 255) if number == 0 else ids)
    result = train(
        TrainConfig(
            data,
            tmp_path / "run",
            size=(32, 48),
            options={"width": 8, "depth": 1},
            recipe=Recipe(epochs=1, batch_size=2),
            tensorboard=True,
        )
    )
    assert result.strip.stat().st_size > 0
    assert len(result.history) == 1
