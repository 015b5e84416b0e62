"""The PyTorch engine: labels are the argmax of the logits, and NaN is no label."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cards import model_card
from torch import nn

from edgeseg.errors import InferenceError, NonFiniteOutput
from edgeseg.models import build
from edgeseg.training.checkpoint import save_checkpoint
from edgeseg.training.predictor import TorchEngine, open_torch

CARD = model_card("abc", 16, 24, options={"width": 8, "depth": 2})


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build("unet-lite", 3, width=8, depth=2)


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 16, 24)).astype(np.float32)


def test_labels_are_the_argmax(model: nn.Module, batch: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, CARD)
    with open_torch(path) as engine:
        labels = engine.infer(batch)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch)).argmax(dim=1).numpy()
    assert labels.dtype == np.uint8
    assert np.mean(labels == expected) > 0.999
    assert len(np.unique(labels)) > 1
    with pytest.raises(InferenceError, match="was closed"):
        engine.infer(batch)


def test_a_network_in_training_stays_so(model: nn.Module, batch: np.ndarray) -> None:
    engine = TorchEngine(model.train(), CARD, Path("model.safetensors"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = engine.infer(batch[:1]), engine.infer(batch)[:1]
    assert np.array_equal(first, second)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_segment_gives_the_size_of_the_picture(model: nn.Module) -> None:
    engine = TorchEngine(model, CARD, Path("model.safetensors"))
    assert engine.segment(np.zeros((50, 31, 3), np.uint8)).shape == (50, 31)


def test_nan_is_no_label(model: nn.Module, batch: np.ndarray) -> None:
    engine = TorchEngine(model, CARD, Path("model.safetensors"))
    batch[1, 0, 3, 3] = np.nan
    with pytest.raises(NonFiniteOutput, match="NaN"):
        engine.infer(batch)
