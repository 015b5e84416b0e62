"""TensorBoard: what is in the event files, read back by TensorBoard itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cards import model_card

from edgeseg.models import build
from edgeseg.options.training import TrainConfig
from edgeseg.training.predictor import TorchEngine
from edgeseg.training.state import EpochStats
from edgeseg.training.tensorboard import open_board

CARD = model_card("ab", 16, 24, options={"width": 8, "depth": 1})
PAIR = (np.full((20, 30, 3), 90, np.uint8), np.eye(20, 30, dtype=np.uint8))


@pytest.fixture
def engine() -> TorchEngine:
    return TorchEngine(build("unet-lite", 2, width=8, depth=1), CARD, Path("model.safetensors"))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(Path("data"), tmp_path / "run", tensorboard=True)


def epoch(number: int) -> EpochStats:
    return EpochStats(number, 1 / number, 1e-3 * number, 0.1 * number, 0.2 * number, 1.5)


def test_a_resumed_training_writes_on_where_the_last_whole_epoch_ended(
    config: TrainConfig, engine: TorchEngine
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, numbers in ((0, (1, 2, 3)), (2, (3, 4))):
        board = open_board(config, done)
        assert board is not None
        for number in numbers:
            board.add(epoch(number), engine, PAIR)
        board.close()
    events = EventAccumulator(str(config.run))
    events.Reload()
    for name, value in (
        ("train/loss", lambda stats: stats.loss),
        ("train/learning_rate", lambda stats: stats.learning_rate),
        ("val/mean_iou", lambda stats: stats.mean_iou),
        ("val/pixel_accuracy", lambda stats: stats.pixel_accuracy),
    ):
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [1, 2, 3, 4]
        expected = [value(epoch(number)) for number in range(1, 5)]
        assert [event.value for event in scalars] == pytest.approx(expected, rel=1e-6)
    (shown, *_) = events.Images("val/prediction")
    assert (shown.width, shown.height) == (3 * 30, 20)


def test_it_writes_nothing_unless_asked(config: TrainConfig) -> None:
    assert open_board(dataclasses.replace(config, tensorboard=False), 0) is None
    assert not config.run.exists()
