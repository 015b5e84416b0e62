"""Unpooling: upsample by putting each value back where the maximum came from.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014),
section 2.1; as a decoder: Badrinarayanan, Kendall and Cipolla, "SegNet" (PAMI 2017).

Among equal maxima the first in row-major order wins, as in PyTorch's pooling. Such ties are common
after ReLU: in a 2×2 window of zeros all four values are the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def unpool(small: Tensor, features: Tensor) -> Tensor:
    """Unpool ``small`` to the size of ``features``; all but the 2×2 maxima become zero.

    TensorRT does not support ONNX's operator for it (MaxUnpool), so exporters use
    :func:`unpool_by_comparison` instead. Both give identical results.

    Args:
        small: (N, C, H // 2, W // 2).
        features: (N, C, H, W), the input of the pooling layer.

    Returns:
        (N, C, H, W). An odd last row or column, which pooling ignores, is zero.
    """
    if torch.compiler.is_exporting():
        return unpool_by_comparison(small, features)
    return unpool_by_indices(small, features)


def unpool_by_indices(small: Tensor, features: Tensor) -> Tensor:
    """Implement :func:`unpool` with PyTorch's own pair of operators.

    The indices are recomputed rather than kept from the encoder: a second pooling costs less than
    the memory for a 64-bit index per value.
    """
    with torch.no_grad():
        _, indices = functional.max_pool2d(features, 2, return_indices=True)
    return functional.max_unpool2d(small, indices, [2, 2], output_size=features.shape[-2:])


def unpool_by_comparison(small: Tensor, features: Tensor) -> Tensor:
    """Implement :func:`unpool` with operators that every runtime has, for any batch size.

    The four values of a window are compared pairwise; the earlier one wins a tie. Unlike a
    comparison with the pooled value, this always finds exactly one maximum, even if a runtime
    rounds features and maxima differently (FP16, INT8).
    """
    height, width = (2 * side for side in small.shape[-2:])
    upper_left, upper_right, lower_left, lower_right = (
        features[..., row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)
    )
    above = torch.maximum(upper_left, upper_right) >= torch.maximum(lower_left, lower_right)
    winner = torch.where(
        above,
        torch.where(upper_left >= upper_right, 0.0, 1.0),
        torch.where(lower_left >= lower_right, 2.0, 3.0),
    )
    places = _places(height, width, small)
    # Tolerance for quantisation: a 1 may come back as 0.99.
    won = (functional.interpolate(winner, scale_factor=2.0) - places).abs() < 0.5
    doubled = functional.interpolate(small, scale_factor=2.0)
    enlarged = torch.where(won, doubled, torch.zeros_like(doubled))
    missing = [0, features.shape[-1] - width, 0, features.shape[-2] - height]
    return functional.pad(enlarged, missing) if any(missing) else enlarged


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """Tile the map with the window positions in row-major order: 0 1 over 2 3."""
    rows = torch.tensor([[0.0], [2.0]] * (height // 2), device=like.device)
    columns = torch.tensor([[0.0, 1.0] * (width // 2)], device=like.device)
    return rows + columns
