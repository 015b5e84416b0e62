"""Unpooling: PyTorch's operator and the one for exporters give the same bits, ties included."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.models.unet_lite import unpool, unpool_by_comparison, unpool_by_indices


def tied(*shape: int) -> Tensor:
    """Features after ReLU: most windows of 2×2 hold their maximum more than once."""
    return torch.randint(-3, 3, shape).clamp(min=0).float()


def first_maximum(small: Tensor, features: Tensor) -> Tensor:
    """The definition, a window at a time."""
    result = torch.zeros_like(features)
    for index in torch.cartesian_prod(*(torch.arange(side) for side in small.shape)).tolist():
        image, channel, row, column = index
        window = features[image, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        below, right = divmod(window.flatten().tolist().index(float(window.max())), 2)
        result[image, channel, 2 * row + below, 2 * column + right] = small[
            image, channel, row, column
        ]
    return result


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (8, 13), (9, 5)])
def test_the_first_of_equal_maxima_gets_the_value(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = tied(2, 3, *size)
    small = torch.randn(2, 3, size[0] // 2, size[1] // 2)
    expected = first_maximum(small, features)
    assert torch.equal(unpool_by_indices(small, features), expected)
    assert torch.equal(unpool_by_comparison(small, features), expected)
    # The last of equal maxima, the other rule one could have, would be seen.
    mirrored = first_maximum(small.flip(-1, -2), features.flip(-1, -2)).flip(-1, -2)
    assert not torch.equal(mirrored, expected)


def test_pooling_and_unpooling_keep_the_maxima() -> None:
    torch.manual_seed(0)
    features = torch.rand(1, 4, 16, 16)
    pooled = functional.max_pool2d(features, 2)
    enlarged = unpool(pooled, features)
    assert torch.equal(functional.max_pool2d(enlarged, 2), pooled)
    assert int((enlarged != 0).sum()) == pooled.numel()
    assert torch.equal(enlarged[enlarged != 0], features[enlarged != 0])


@pytest.mark.parametrize("form", [unpool_by_indices, unpool_by_comparison])
def test_gradients_reach_the_values_alone(form: object) -> None:
    small, features = torch.randn(1, 2, 4, 4, requires_grad=True), tied(1, 2, 8, 8)
    form(small, features).square().sum().backward()  # type: ignore[operator]
    assert small.grad is not None
    assert torch.allclose(small.grad, 2 * small)
