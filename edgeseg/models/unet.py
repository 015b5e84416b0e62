"""The original U-Net, with valid convolutions.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (MICCAI 2015), figure 1. No output pixel depends on padding, so the label map is
smaller than the picture: 388 of 572 pixels.
:mod:`edgeseg.models.mirror` restores the picture's size; :mod:`edgeseg.tiling` implements the
overlap-tile strategy for pictures of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models.layers import double_conv, doubling_deconvolution, initialise


class UNet(nn.Module):
    """U-Net from float (N, in_channels, H, W) to logits (N, num_classes, H - 184, W - 184).

    The loss of 184 pixels, twice :attr:`margin`, applies to a depth of 4. Pooling must divide
    evenly at each level, so only every 16th size is valid: 188, 204, … 572, … (:meth:`valid_size`).

    Args:
        num_classes: Number of classes, the channels of the logits.
        in_channels: Number of picture channels; 1 in the paper.
        width: Channels at the highest resolution, a multiple of 8 up to 256; doubled by each
            level down, so that 64 ends at 1024.
        depth: Number of times the resolution is halved, 1…6.
        batch_norm: Add batch normalisation after each 3×3 convolution. The paper has none; it makes
            training from scratch less sensitive to the learning rate.
        dropout: Dropout probability at the lowest level (paper: "at the end of the contracting
            path"), 0 ≤ dropout < 1.

    Attributes:
        stride: ``2**depth``, the step between valid sizes.
        margin: Pixels by which the logits are smaller on each side, 92 for a depth of 4.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        width: int = 64,
        depth: int = 4,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if width % 8 or not 8 <= width <= 256:
            raise UsageError(f"unet: width is a multiple of 8 from 8 to 256, not {width}")
        if not 1 <= depth <= 6:
            raise UsageError(f"unet: depth is from 1 to 6, not {depth}")
        if not 0 <= dropout < 1:
            raise UsageError(f"unet: dropout is from 0 to below 1, not {dropout}")
        self.stride: int = 2**depth
        # Each level's four convolutions cost 8 of its pixels, of 2**level picture pixels
        # each; the lowest level has only two. Half the sum is lost on each side.
        self.margin: int = 6 * self.stride - 4
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem = double_conv(in_channels, width, padding=0, batch_norm=batch_norm)
        self.down = nn.ModuleList(
            double_conv(above, below, padding=0, batch_norm=batch_norm)
            for above, below in zip(widths, widths[1:], strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(
            _Up(below, above, batch_norm)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        self._check_size(picture)
        features = [self.stem(picture)]
        for block in self.down:
            features.append(block(functional.max_pool2d(features[-1], 2)))
        decoded = self.dropout(features.pop())
        for block in self.up:
            decoded = block(decoded, features.pop())
        logits: Tensor = self.head(decoded)
        return logits

    def valid_size(self, at_least: int) -> int:
        """Return the smallest size of at least ``at_least`` that all poolings halve evenly.

        The logits of such a size ``n`` are ``n - 2 * margin`` wide, one pixel or more.
        """
        least = max(at_least, 2 * self.margin + 1)
        return least + (2 * self.margin + 4 - least) % self.stride

    def _check_size(self, picture: Tensor) -> None:
        height, width = picture.shape[-2:]
        above = self.valid_size(height), self.valid_size(width)
        if above == (height, width):
            return
        smallest = self.valid_size(0)
        below = tuple(max(size - self.stride, smallest) for size in above)
        raise UsageError(
            f"a picture of {width}×{height} does not halve evenly {len(self.down)} times "
            f"without padding; the nearest valid sizes are {below[1]} or {above[1]} wide and "
            f"{below[0]} or {above[0]} high",
            hint="wrap the network in edgeseg.models.mirror.same_size for any size",
        )


class _Up(nn.Module):
    """Decoder level: up-convolution to half the channels, crop and concatenate, double conv."""

    def __init__(self, below: int, above: int, batch_norm: bool) -> None:
        super().__init__()
        self.deconvolution = doubling_deconvolution(below, above)
        self.refine = double_conv(2 * above, above, padding=0, batch_norm=batch_norm)

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        enlarged = self.deconvolution(decoded)
        refined: Tensor = self.refine(torch.cat([_crop(skip, enlarged), enlarged], dim=1))
        return refined


def _crop(skip: Tensor, like: Tensor) -> Tensor:
    """Crop the centre of ``skip`` to the height and width of ``like``."""
    top, left = (
        (outer - inner) // 2 for outer, inner in zip(skip.shape[-2:], like.shape[-2:], strict=True)
    )
    return skip[..., top : top + like.shape[-2], left : left + like.shape[-1]]
