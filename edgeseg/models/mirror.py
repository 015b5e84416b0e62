"""Mirror-pad pictures so that a network without padding gives logits of the picture's size.

Ronneberger, Fischer and Brox (MICCAI 2015), section 2: "missing context is extrapolated by
mirroring the input image".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.tiling import mirrored


def same_size(model: nn.Module) -> nn.Module:
    """Wrap a network so that its logits have the picture's height and width, for any size.

    Returns:
        ``model`` itself if its ``margin`` is 0, else a :class:`Mirrored` that wraps it.
    """
    return Mirrored(model) if getattr(model, "margin", 0) else model


class Mirrored(nn.Module):
    """Mirror-padding wrapper: float (N, C, H, W) of any size to logits (N, K, H, W).

    Args:
        inner: Network with ``margin`` and ``valid_size``, such as
            :class:`edgeseg.models.unet.UNet`. Checkpoints hold its tensors, without the
            wrapper's prefix.
    """

    margin = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.train(inner.training)

    def forward(self, picture: Tensor) -> Tensor:
        return same_size_logits(self.inner, picture)


def same_size_logits(model: nn.Module, picture: Tensor) -> Tensor:
    """Functional form of :func:`same_size`: one forward pass, without a wrapper module.

    Args:
        model: Any network; one without ``margin`` is called directly.
        picture: Float (N, C, H, W).

    Returns:
        Logits (N, K, H, W).
    """
    margin: int = getattr(model, "margin", 0)
    logits: Tensor
    if not margin:
        logits = model(picture)
        return logits
    height, width = picture.shape[-2:]
    for axis in (-2, -1):
        picture = picture.index_select(axis, _surround(model, margin, axis, picture))
    logits = model(picture)
    return logits[..., :height, :width]


def padded_logits(model: nn.Module, picture: Tensor) -> Tensor:
    """Compute :func:`same_size_logits` with constant padding, for graphs that take many sizes.

    The results are equal if height and width are multiples of the network's stride and greater
    than :func:`mirror_width`, since one reflection cannot pad by more than the picture's size.
    """
    margin: int = getattr(model, "margin", 0)
    if not margin:
        return same_size_logits(model, picture)
    height, width = picture.shape[-2:]
    before, after = margin, mirror_width(model)
    picture = functional.pad(picture, [before, after, before, after], mode="reflect")
    logits: Tensor = model(picture)
    return logits[..., :height, :width]


def mirror_width(model: nn.Module) -> int:
    """Mirrored pixels to the right and bottom if the sides are multiples of the stride."""
    margin, stride = int(getattr(model, "margin", 0)), int(model.stride)  # type: ignore[arg-type]
    if not margin:
        return 0
    side = 2 * margin + stride * margin
    total: int = model.valid_size(side)  # type: ignore[operator]
    return margin + total - side


def _surround(model: nn.Module, margin: int, axis: int, picture: Tensor) -> Tensor:
    """Index the picture along an axis so that it is mirror-padded to a valid input size.

    Padding beyond the margin goes after the picture; :func:`same_size_logits` crops it.
    """
    size = picture.shape[axis]
    total: int = model.valid_size(size + 2 * margin)  # type: ignore[operator]
    places = mirrored(-margin, total - margin, size)
    return torch.tensor(places.tolist(), device=picture.device)
