"""FCN-32s, FCN-16s and FCN-8s on VGG16.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(CVPR 2015). The paper pads the picture by 100 pixels and crops the result; here every
convolution has same padding, which gives the same size without computing the margin.

Alignment: a cell of stride s covers pixels s·i … s·i + s − 1 of the picture and is
centred between them, pooling rounds up, and the deconvolutions interpolate between centres.
So cell 0 of every map starts at pixel 0, all crops take the upper left, and no offset is needed.

At the edge an interpolation has no neighbours beyond the picture, so scores fade towards zero:
equally for all classes, but differently for each stride. The paper's margin moves this effect off
the picture, at the price of computing the margin.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from edgeseg.models.layers import check_size, initialise
from edgeseg.models.vgg import VGG16


class FCN(nn.Module):
    """Base class of the three networks: float (N, in_channels, H, W) to logits of that size.

    Height and width may be any size from 32.

    As in the paper, score layers are initialised to zero and transposed convolutions to bilinear
    interpolation; those of factor 2 are learnt.

    The three networks use the same names for shared layers, so each can start from the weights of
    the coarser one: the paper trains FCN-32s, then FCN-16s, then FCN-8s.

    Args:
        num_classes: Number of classes, the channels of the logits.
        fc_width: Channels of fc6 and fc7, 8…4096; 4096 in the paper.
        learn_upsampling: Learn the last deconvolution too. The paper fixes it to bilinear; a fixed
            one is exported as a depthwise convolution, with one kernel per class.
        dropout: Dropout probability after fc6 and fc7, 0 ≤ dropout < 1.

    Raises:
        UsageError: An option is out of range.
    """

    stride = 32
    skips: ClassVar[int]

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        fc_width: int = 4096,
        learn_upsampling: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.vgg = VGG16(in_channels, fc_width, dropout=dropout)
        self.score_fc7 = nn.Conv2d(fc_width, num_classes, 1)
        if self.skips >= 1:
            self.twice_fc7 = bilinear_deconvolution(num_classes, factor=2)
            self.score_pool4 = nn.Conv2d(512, num_classes, 1)
        if self.skips >= 2:
            self.twice_pool4 = bilinear_deconvolution(num_classes, factor=2)
            self.score_pool3 = nn.Conv2d(256, num_classes, 1)
        self.upsample = bilinear_deconvolution(num_classes, factor=self.stride >> self.skips)
        self.upsample.requires_grad_(learn_upsampling)
        initialise(self)
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)

    def forward(self, picture: Tensor) -> Tensor:
        check_size(picture, self.stride)
        pool3, pool4, fc7 = self.vgg(picture)
        scores = self.score_fc7(fc7)
        if self.skips >= 1:
            scores = self.score_pool4(pool4) + _crop(self.twice_fc7(scores), pool4)
        if self.skips >= 2:
            scores = self.score_pool3(pool3) + _crop(self.twice_pool4(scores), pool3)
        return _crop(self._enlarged(scores), picture)

    def _enlarged(self, scores: Tensor) -> Tensor:
        logits: Tensor
        if scores.is_cpu and torch.is_autocast_enabled("cpu"):
            # PyTorch deconvolves bfloat16 slowly: at stride 32, 5 s instead of 0.1 s a batch.
            with torch.autocast("cpu", enabled=False):
                logits = self.upsample(scores.float())
        else:
            logits = self.upsample(scores)
        return logits


class FCN32s(FCN):
    """FCN-32s: scores at stride 32, upsampled in one step. Arguments as for :class:`FCN`."""

    skips = 0


class FCN16s(FCN):
    """FCN-16s: adds the scores of pool4, at stride 16. Arguments as for :class:`FCN`."""

    skips = 1


class FCN8s(FCN):
    """FCN-8s: adds the scores of pool4 and pool3, at stride 8. Arguments as for :class:`FCN`."""

    skips = 2


def bilinear_deconvolution(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Create a transposed convolution that upsamples by an even ``factor``, initially bilinear.

    Half-pixel centres: in the interior it equals ``interpolate(…, align_corners=False)``.
    """
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False
    )
    if layer.weight.is_meta:
        return layer
    offsets = torch.arange(2 * factor) - (factor - 0.5)
    triangle = 1 - offsets.abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = triangle[:, None] * triangle[None, :]
    return layer


def _crop(scores: Tensor, like: Tensor) -> Tensor:
    """Crop the excess at the right and bottom that comes from rounding up in pooling."""
    height, width = like.shape[-2:]
    if scores.shape[-2:] == like.shape[-2:]:
        return scores
    return scores[..., :height, :width]
