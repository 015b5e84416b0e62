"""Building blocks shared by several networks, their initialisation and a size check."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError


class PaddedConv2d(nn.Conv2d):
    """A convolution with correct gradients in reduced precision on maps of any size.

    Under autocast on a CPU it is computed in float32 if some tap of the kernel only ever falls on
    padding and never on a pixel of the map.

    oneDNN does not write the bfloat16 gradient of such a tap on CPUs, so it holds old memory,
    sometimes NaN. Measured with PyTorch 2.13 on Sapphire Rapids against float32, with
    ``MALLOC_PERTURB_=128``: kernels of 2…9 pixels, maps of 1…12, 3…512 channels, with AMX and
    capped to AVX512_CORE_BF16, which is what AMD Zen 4 has. Wrong were, among others, 7×7 kernels
    of stride 1 on maps of height 1 and 2 without AMX, and 2×2…9×9 kernels of stride 2 on narrow
    maps with or without it. All had such a tap; of the cases without one none was wrong.
    """

    def forward(self, input: Tensor) -> Tensor:
        autocast = input.is_cpu and torch.is_autocast_enabled("cpu")
        if autocast and self._has_taps_on_padding_only(input):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)

    def _has_taps_on_padding_only(self, picture: Tensor) -> bool:
        if isinstance(self.padding, str):
            return True
        sides = zip(*(picture.shape[-2:], self.kernel_size, self.stride, self.padding), strict=True)
        return any(_misses(*side) for side in sides)


def _misses(size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether the first or last tap of a kernel never falls on a pixel of a row of ``size``."""
    last_place = (size + 2 * padding - kernel) // stride * stride
    return last_place < padding or kernel - 1 - padding >= size


def double_conv(
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    padding: int = 1,
    batch_norm: bool = True,
    depthwise: bool = False,
) -> nn.Sequential:
    """Create two 3×3 convolutions, each followed by a ReLU: one level of a U-Net.

    Args:
        outputs: Number of output channels of both convolutions.
        padding: 1 keeps the size; 0 removes one pixel per convolution on each side.
        batch_norm: Add batch normalisation before each ReLU; the convolutions then have no bias.
        depthwise: Divide each convolution into a 3×3 one of single channels and a 1×1 one of all,
            as in MobileNet (Howard et al. 2017, section 3.1).
    """
    layers: list[nn.Module] = []
    for source, step in ((inputs, stride), (outputs, 1)):
        if depthwise:
            convolutions = [
                PaddedConv2d(source, source, 3, step, padding, groups=source, bias=not batch_norm),
                PaddedConv2d(source, outputs, 1, bias=not batch_norm),
            ]
        else:
            convolutions = [PaddedConv2d(source, outputs, 3, step, padding, bias=not batch_norm)]
        for convolution in convolutions:
            layers.append(convolution)
            if batch_norm:
                layers.append(nn.BatchNorm2d(convolution.out_channels))
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def doubling_deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Create the U-Net paper's up-convolution: 2×2 with stride 2, so kernels do not overlap.

    Each output value is a weighted sum of one pixel's ``inputs`` channels, so ``inputs`` is the
    fan-in for He initialisation.
    """
    layer = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def initialise(module: nn.Module) -> None:
    """Apply He initialisation to every convolution except transposed ones.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015), equation 10.
    """
    for layer in module.modules():
        # Meta tensors have nothing to fill, and trying to would import torch's compiler.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_size(picture: Tensor, smallest: int) -> None:
    """Reject a picture that is too small for a network; the error names the size to pad to.

    Args:
        picture: (N, C, H, W).
        smallest: Minimum height and width of the network.

    Raises:
        UsageError: The picture is too small.
    """
    height, width = picture.shape[-2:]
    if height < smallest or width < smallest:
        raise UsageError(
            f"a picture of {width}×{height} is too small for this network; "
            f"pad it to {max(width, smallest)}×{max(height, smallest)} at least"
        )
