"""The loss: its extremes, its ignored pixels, and every part against a plain twin."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.training.losses import SegmentationLoss, median_frequency


def confident(masks: Tensor, classes: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(masks, classes).movedim(3, 1).float() * 50


def random_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(2, 3, 5, 4, requires_grad=True), torch.randint(0, 2, (2, 5, 4))


def test_right_is_zero_and_wrong_is_large() -> None:
    loss = SegmentationLoss(255)
    masks = torch.randint(0, 3, (2, 8, 8))
    assert float(loss(confident(masks), masks)) == pytest.approx(0, abs=1e-4)
    assert float(loss(confident((masks + 1) % 3), masks)) > 40


@pytest.mark.parametrize("dice", [0, 1, 2.5])
@pytest.mark.parametrize("class_weights", [None, (0.5, 2, 7)])
@pytest.mark.parametrize("bordered", [False, True])
def test_equals_a_plain_twin(
    dice: float, class_weights: tuple[float, ...] | None, bordered: bool
) -> None:
    """Equation 1 of the U-Net paper over the labelled pixels, plus Dice of the classes there."""
    logits, masks = random_pair()
    masks[0, 0] = 255
    borders = torch.rand(2, 5, 4) * 10 if bordered else None
    values, truth = logits.detach().numpy(), masks.numpy()
    odds = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    entropy, labelled, dices = 0.0, 0, []
    for image, row, column in np.ndindex(truth.shape):
        number = truth[image, row, column]
        if number != 255:
            weight = 1.0 if class_weights is None else class_weights[number]
            weight += 0.0 if borders is None else float(borders[image, row, column])
            entropy -= weight * np.log(odds[image, number, row, column])
            labelled += 1
    counted = truth != 255
    for number in (0, 1):  # class 2 does not occur
        p, t = odds[:, number][counted], (truth == number)[counted]
        dices.append(1 - 2 * (p * t).sum() / ((p**2).sum() + t.sum()))
    expected = entropy / labelled + dice * np.mean(dices)
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    found = SegmentationLoss(255, dice, weights)(logits, masks, borders)
    assert found.item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_that_of_the_definition(layout: torch.memory_format) -> None:
    logits, masks = random_pair()
    masks[0, 0] = 255
    SegmentationLoss(255, dice=2.5)(logits.contiguous(memory_format=layout), masks).backward()
    plain = logits.detach().double().requires_grad_()
    rows = plain.permute(0, 2, 3, 1)[masks != 255]  # (P, C), the labelled pixels
    truth = functional.one_hot(masks[masks != 255], 3)
    p = rows.softmax(dim=1)
    dices = 1 - 2 * (p * truth).sum(0) / (p.square().sum(0) + truth.sum(0))
    entropy = -(truth * p.log()).sum() / len(rows)
    (entropy + 2.5 * dices[:2].mean()).backward()  # class 2 does not occur
    assert logits.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(logits.grad.double(), plain.grad, rtol=1e-4, atol=1e-7)
    assert not logits.grad[0, :, 0].any()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_the_hardest_pixels_equal_a_plain_twin(share: float) -> None:
    logits, masks = random_pair()
    masks[0, :3] = 255
    borders = torch.rand(2, 5, 4) * 10
    odds = logits.detach().softmax(dim=1).numpy()
    pixels = [
        -(1 + float(borders[index])) * np.log(odds[index[0], masks[index], index[1], index[2]])
        for index in np.ndindex(*masks.shape)
        if masks[index] != 255
    ]
    hardest = sorted(pixels, reverse=True)[: math.ceil(share * len(pixels))]
    loss = SegmentationLoss(255, dice=0, ohem=share)(logits, masks, borders)
    assert loss.item() == pytest.approx(sum(hardest) / (share * len(pixels)), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert int(logits.grad.abs().sum(dim=1).bool().sum()) == len(hardest)


def test_no_hard_pixels_without_labels() -> None:
    logits, masks = random_pair()
    loss = SegmentationLoss(255, ohem=0.3)(logits, torch.full_like(masks, 255))
    loss.backward()
    assert loss.item() == 0


def test_ignored_pixels_have_no_say() -> None:
    logits, masks = random_pair()
    masks[:, 2:] = 255
    loss = SegmentationLoss(255, class_weights=torch.ones(3))
    loss(logits, masks, torch.full((2, 5, 4), 9.0)).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 2:].any()
    assert bool(logits.grad[:, :, :2].abs().sum(dim=1).bool().all())


def test_nothing_labelled_is_zero_and_not_nan() -> None:
    logits, masks = random_pair()
    loss = SegmentationLoss(255)(logits, torch.full_like(masks, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_passes_add_up_to_a_large_batch() -> None:
    """However unevenly the labels are spread over the passes."""
    loss = SegmentationLoss(255, dice=0, class_weights=torch.tensor([1.0, 3.0, 1.0]))
    logits, masks = random_pair()
    masks[0, 1:] = 255
    whole = loss(logits, masks)
    labelled = loss.labelled(masks[i : i + 1] for i in range(2))
    parts = [
        loss(logits[i : i + 1], masks[i : i + 1], labelled=labelled, passes=2) for i in range(2)
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)  # type: ignore[union-attr]
    apart = [loss(logits[i : i + 1], masks[i : i + 1]) / 2 for i in range(2)]
    assert sum(apart).item() != pytest.approx(whole.item(), rel=1e-2)  # type: ignore[union-attr]


def test_median_frequency_equals_the_definition() -> None:
    """Eigen and Fergus (2015): frequency over the pictures in which the class occurs."""
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 0, 0, 1, 1, 255], (6, 7)).astype(np.uint8) for _ in range(3)]
    masks += [np.where(rng.random((6, 7)) > 0.9, 2, 0).astype(np.uint8)]
    masks += [np.zeros((6, 7), np.uint8)]
    frequencies = []
    for number in range(3):
        having = [mask[mask != 255] for mask in masks if (mask == number).any()]
        pixels = sum(int((mask == number).sum()) for mask in having)
        frequencies.append(pixels / sum(len(mask) for mask in having))
    expected = np.median(frequencies) / np.array(frequencies)
    found = median_frequency(map(torch.from_numpy, masks), 4).numpy()
    assert found[:3] == pytest.approx(expected, rel=1e-6)
    assert found[3] == 0  # never occurs
    assert np.ptp(expected) > 0.5
