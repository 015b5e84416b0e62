"""UNetLite: a small U-Net for CPUs and edge devices.

Based on Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (MICCAI 2015), with these changes (for the original see :mod:`edgeseg.models.unet`):

- same padding instead of valid convolutions, so the label map has the size of the picture;
- batch normalisation, which export folds into the convolution before it, so it costs nothing;
- 16 channels at full resolution instead of 64, 1.8 M parameters instead of 31 M;
- the decoder narrows with a 1×1 convolution and then enlarges bilinearly: 1.1–1.2× faster on
  CPUs than a transposed convolution, and without an operator that int8 runtimes leave in float;
- an optional first convolution of stride 2: a quarter of the arithmetic, 3.4× faster, for a
  little accuracy at thin rims;
- an optional encoder of timm in place of its own, for weights learnt on ImageNet.

Two options exist to reproduce experiments: no skip connections, and two other upsampling methods,
the paper's learnt deconvolution and SegNet's unpooling.

All channel counts but the input's, the classes' and an encoder's are multiples of 8, the width of
int8 and half-precision vector instructions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models.encoders import STRIDES, Encoder
from edgeseg.models.layers import check_size, double_conv, doubling_deconvolution, initialise


def unpool(small: Tensor, features: Tensor) -> Tensor:
    """Unpool ``small`` to the size of ``features``; all but the 2×2 maxima become zero.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014), section
    2.1; as a decoder: Badrinarayanan, Kendall and Cipolla, "SegNet" (PAMI 2017). Among equal maxima
    the first in row-major order wins, as in PyTorch's pooling; such ties are common after ReLU.

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


UPSAMPLINGS = ("bilinear", "deconvolution", "unpooling")
"""Upsampling methods: interpolation, transposed convolution, or SegNet's unpooling."""


class UNetLite(nn.Module):
    """U-Net from float (N, in_channels, H, W) to logits (N, num_classes, H, W).

    Height and width must be at least :attr:`stride`; multiples of it need no padding and export to
    the simplest graph.

    Args:
        num_classes: Number of classes, the channels of the logits.
        width: Channels at the highest resolution, a multiple of 8 up to 256; doubled by each
            level down.
        depth: Number of times the resolution is halved, 1…6.
        stem_stride: Stride of the first convolution, 1 or 2. With 2 the network works at half the
            resolution and upsamples the logits.
        skips: Concatenate encoder features to the decoder's (skip connections).
        upsampling: Upsampling method, one of :data:`UPSAMPLINGS`. ``unpooling`` takes the positions
            of the maxima from the encoder, even without skips.
        decoder_width: Channels of the decoder at the highest resolution, a multiple of 8 up to 256,
            doubled by each level down; 0 for ``width``.
        depthwise: Divide each 3×3 convolution after the first two into a depthwise and a pointwise
            one.
        encoder: Name of a timm network, see :class:`edgeseg.models.encoders.Encoder`; ``none`` for
            UNetLite's own encoder. The decoder is that of ``stem_stride=2`` and ``depth=4``, with
            ``width`` channels at stride 2.

    Attributes:
        stride: Downsampling factor of the lowest resolution.
        margin: Pixels lost on each side, always 0.
        size_may_vary: Whether an exported graph can take pictures of several sizes; False for
            ``unpooling``, whose graph holds constants of one size.

    Raises:
        RuntimeMissing: An encoder is requested, but timm is not installed.
        UsageError: An option is out of range, or none of an encoder's.
    """

    margin = 0

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        width: int = 16,
        depth: int = 4,
        stem_stride: int = 1,
        skips: bool = True,
        upsampling: str = "bilinear",
        decoder_width: int = 0,
        depthwise: bool = False,
        encoder: str = "none",
    ) -> None:
        super().__init__()
        decoder_width = decoder_width or width
        for name, value in (("width", width), ("decoder_width", decoder_width)):
            if value % 8 or not 8 <= value <= 256:
                raise UsageError(f"unet-lite: {name} is a multiple of 8 from 8 to 256, not {value}")
        if not 1 <= depth <= 6:
            raise UsageError(f"unet-lite: depth is from 1 to 6, not {depth}")
        if stem_stride not in (1, 2):
            raise UsageError(f"unet-lite: stem_stride is 1 or 2, not {stem_stride}")
        if upsampling not in UPSAMPLINGS:
            raise UsageError(
                f"unet-lite: upsampling is {', '.join(UPSAMPLINGS)}, not {upsampling!r}"
            )
        self.size_may_vary = upsampling != "unpooling"
        features = None
        if encoder == "none":
            self.stride = stem_stride * 2**depth
            widths = [width * 2**level for level in range(depth + 1)]
            channels = tuple(widths)
            self.stem = double_conv(in_channels, width, stride=stem_stride)
            self.down = nn.ModuleList(
                double_conv(above, below, depthwise=depthwise)
                for above, below in zip(widths, widths[1:], strict=False)
            )
        else:
            if (depth, stem_stride, upsampling) != (4, 1, "bilinear"):
                raise UsageError(
                    "unet-lite: an encoder has its own depth and stem, and the decoder after it "
                    "upsamples bilinearly",
                    hint="omit depth, stem_stride and upsampling, or the encoder",
                )
            features = Encoder(encoder, in_channels)
            self.stride, channels = STRIDES[-1], features.channels
        widths = [*(decoder_width * 2**level for level in range(depth)), channels[-1]]
        self.up = nn.ModuleList(
            _Up(below, above, skip if skips else 0, upsampling, depthwise)
            for below, above, skip in zip(
                widths[:0:-1], widths[-2::-1], channels[-2::-1], strict=True
            )
        )
        self.head = nn.Conv2d(decoder_width, num_classes, kernel_size=1)
        initialise(self)
        # Last, so that it keeps the initial weights of its authors.
        self.encoder = features

    def forward(self, picture: Tensor) -> Tensor:
        check_size(picture, self.stride)
        features = self._contract(picture) if self.encoder is None else self.encoder(picture)
        decoded = features.pop()
        for block in self.up:
            decoded = block(decoded, features.pop())
        return _interpolate(self.head(decoded), picture)

    def _contract(self, picture: Tensor) -> list[Tensor]:
        """Compute the features of UNetLite's own encoder, one per level."""
        features = [self.stem(picture)]
        for block in self.down:
            features.append(block(functional.max_pool2d(features[-1], 2)))
        return features


class _Up(nn.Module):
    """Decoder level: reduce channels, upsample to the skip's size, concatenate, double conv."""

    def __init__(self, below: int, above: int, skip: int, upsampling: str, depthwise: bool) -> None:
        super().__init__()
        self.skips = skip > 0
        self.upsampling = upsampling
        if upsampling == "deconvolution":
            self.deconvolution = doubling_deconvolution(below, above)
        else:
            self.narrow = nn.Conv2d(below, above, kernel_size=1)
        self.refine = double_conv(skip + above, above, depthwise=depthwise)

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        enlarged = self._enlarge(decoded, skip)
        joined = torch.cat([skip, enlarged], dim=1) if self.skips else enlarged
        refined: Tensor = self.refine(joined)
        return refined

    def _enlarge(self, decoded: Tensor, skip: Tensor) -> Tensor:
        if self.upsampling == "deconvolution":
            return _repeat_rim(self.deconvolution(decoded), skip)
        if self.upsampling == "unpooling":
            return unpool(self.narrow(decoded), skip)
        return _interpolate(self.narrow(decoded), skip)


def _interpolate(small: Tensor, like: Tensor) -> Tensor:
    """Resize ``small`` to the size of ``like``, bilinear with half-pixel centres."""
    size, target = small.shape[-2:], like.shape[-2:]
    if size == target:
        return small
    if (2 * size[0], 2 * size[1]) == tuple(target):
        # A constant scale instead of a size, so that exporters need no Shape nodes.
        return functional.interpolate(small, scale_factor=2.0, mode="bilinear")
    return functional.interpolate(small, size=target, mode="bilinear")


def _repeat_rim(doubled: Tensor, like: Tensor) -> Tensor:
    """Repeat the last row and column, which pooling drops if a size is odd."""
    below, right = (a - b for a, b in zip(like.shape[-2:], doubled.shape[-2:], strict=True))
    if not (below or right):
        return doubled
    return functional.pad(doubled, [0, right, 0, below], mode="replicate")
