"""The loss: its extremes, its ignored pixels, and both parts against a plain twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeseg.training.losses import segmentation_loss


def confident(masks: Tensor, classes: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(masks, classes).movedim(3, 1).float() * 50


def random_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(2, 3, 5, 4, requires_grad=True), torch.randint(0, 2, (2, 5, 4))


def test_right_is_zero_and_wrong_is_large() -> None:
    masks = torch.randint(0, 3, (2, 8, 8))
    assert float(segmentation_loss(confident(masks), masks, 255)) == pytest.approx(0, abs=1e-4)
    assert float(segmentation_loss(confident((masks + 1) % 3), masks, 255)) > 40


def test_equals_a_plain_twin() -> None:
    logits, masks = random_pair()
    masks[0, 0] = 255
    values, truth = logits.detach().numpy(), masks.numpy()
    odds = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    counted = truth != 255
    image, row, column = np.nonzero(counted)
    entropy = -np.log(odds[image, truth[counted], row, column]).mean()
    dices = []
    for number in (0, 1):  # class 2 does not occur
        p, t = odds[:, number][counted], (truth == number)[counted]
        dices.append(1 - 2 * (p * t).sum() / ((p**2).sum() + t.sum()))
    expected = entropy + np.mean(dices)
    assert segmentation_loss(logits, masks, 255).item() == pytest.approx(float(expected), rel=1e-5)


def test_ignored_pixels_have_no_say() -> None:
    logits, masks = random_pair()
    masks[:, 2:] = 255
    segmentation_loss(logits, masks, 255).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 2:].any()
    assert bool(logits.grad[:, :, :2].abs().sum(dim=1).bool().all())


def test_nothing_labelled_is_zero_and_not_nan() -> None:
    logits, masks = random_pair()
    loss = segmentation_loss(logits, torch.full_like(masks, 255), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
