"""Logits of the picture's size from a network without padding, by mirroring the picture.

Ronneberger, Fischer and Brox (MICCAI 2015), section 2: "missing context is extrapolated by
mirroring the input image".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.tiling import mirrored


def same_size(model: nn.Module) -> nn.Module:
    """A network whose logits have the picture's height and width, whatever these are.

    Returns:
        ``model`` itself where its ``margin`` is 0, else :class:`Mirrored` around it.
    """
    return Mirrored(model) if getattr(model, "margin", 0) else model


class Mirrored(nn.Module):
    """From float (N, C, H, W) of any size to logits (N, K, H, W).

    Args:
        inner: A network with ``margin`` and ``valid_size``, such as
            :class:`edgeseg.models.unet.UNet`. Checkpoints hold its tensors, not those of this
            wrapper.
    """

    margin = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.train(inner.training)

    def forward(self, picture: Tensor) -> Tensor:
        return same_size_logits(self.inner, picture)


def same_size_logits(model: nn.Module, picture: Tensor) -> Tensor:
    """One forward pass of :func:`same_size`, for callers that keep no second module.

    Args:
        model: Any network; one without ``margin`` is simply called.
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
    """:func:`same_size_logits` by padding of a constant width, for one graph of many sizes.

    Equal to it where height and width are multiples of the network's stride, and more than
    :func:`mirror_width`: a line cannot be mirrored beyond its other end at once.
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
    """Pixels that are mirrored after a picture whose sides are multiples of the stride."""
    margin, stride = int(getattr(model, "margin", 0)), int(model.stride)  # type: ignore[arg-type]
    if not margin:
        return 0
    side = 2 * margin + stride * margin
    total: int = model.valid_size(side)  # type: ignore[operator]
    return margin + total - side


def _surround(model: nn.Module, margin: int, axis: int, picture: Tensor) -> Tensor:
    """Which pixel to take for each of a valid input: the margin, the picture, and what is left.

    What is left lies after the picture, where :func:`same_size_logits` cuts it off.
    """
    size = picture.shape[axis]
    total: int = model.valid_size(size + 2 * margin)  # type: ignore[operator]
    places = mirrored(-margin, total - margin, size)
    return torch.tensor(places.tolist(), device=picture.device)
