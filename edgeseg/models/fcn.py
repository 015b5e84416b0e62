"""FCN-8s on VGG16.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(CVPR 2015). The paper pads the picture by 100 pixels and crops the result; here every
convolution has same padding, which gives the same size without computing the margin.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.models.unet import check_size, initialise
from edgeseg.models.vgg import VGG16, load_imagenet


class FCN8s(nn.Module):
    """FCN-8s from float (N, in_channels, H, W), 32 pixels or more, to logits of that size.

    As in the paper the scores start at zero, so training begins with even odds, and the
    transposed convolutions start as bilinear interpolation; the last of them stays that.

    Args:
        num_classes: Channels of the logits.
        in_channels: Channels of the picture.
        fc_width: Channels of fc6 and fc7; 4096 in the paper.
    """

    stride = 32

    def __init__(self, num_classes: int, in_channels: int = 3, *, fc_width: int = 4096) -> None:
        super().__init__()
        self.vgg = VGG16(in_channels, fc_width)
        self.score_fc7 = nn.Conv2d(fc_width, num_classes, 1)
        self.score_pool4 = nn.Conv2d(512, num_classes, 1)
        self.score_pool3 = nn.Conv2d(256, num_classes, 1)
        self.twice_fc7 = bilinear_deconvolution(num_classes, factor=2)
        self.twice_pool4 = bilinear_deconvolution(num_classes, factor=2)
        self.eightfold = bilinear_deconvolution(num_classes, factor=8)
        self.eightfold.requires_grad_(False)
        initialise(self)
        for head in (self.score_fc7, self.score_pool4, self.score_pool3):
            nn.init.zeros_(head.weight)

    def forward(self, picture: Tensor) -> Tensor:
        check_size(picture, self.stride)
        pool3, pool4, fc7 = self.vgg(picture)
        at16 = self.score_pool4(pool4) + _crop(self.twice_fc7(self.score_fc7(fc7)), pool4)
        at8 = self.score_pool3(pool3) + _crop(self.twice_pool4(at16), pool3)
        return _crop(self.eightfold(at8), picture)

    def load_pretrained(self, path: Path) -> tuple[str, ...]:
        """Start from ImageNet weights; see :func:`edgeseg.models.vgg.load_imagenet`."""
        return load_imagenet(self.vgg, path)


def bilinear_deconvolution(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that enlarges by an even ``factor`` and starts as bilinear.

    Half-pixel centres: in the interior it equals ``interpolate(…, align_corners=False)``.
    """
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False
    )
    offsets = torch.arange(2 * factor) - (factor - 0.5)
    triangle = 1 - offsets.abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = triangle[:, None] * triangle[None, :]
    return layer


def _crop(scores: Tensor, like: Tensor) -> Tensor:
    """Cut off what rounding up in the pooling layers added at the right and lower rim."""
    height, width = like.shape[-2:]
    if scores.shape[-2:] == like.shape[-2:]:
        return scores
    return scores[..., :height, :width]
