"""What several networks are made of: blocks, their initialisation, and the check of sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError


class PaddedConv2d(nn.Conv2d):
    """A convolution whose gradients are right in reduced precision on maps of any size.

    Under autocast on a CPU it is computed in float32 where some tap of the kernel lies on padding
    wherever the kernel is put, so that no pixel of the map ever meets it.

    oneDNN leaves the bfloat16 gradient of such a tap unwritten on CPUs, so it is what the memory
    held before, NaN at times. Measured with PyTorch 2.13 on Sapphire Rapids against float32, with
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
    """Whether the first or the last tap of a kernel meets no pixel of a row of ``size``."""
    last_place = (size + 2 * padding - kernel) // stride * stride
    return last_place < padding or kernel - 1 - padding >= size


def double_conv(
    inputs: int, outputs: int, *, stride: int = 1, padding: int = 1, batch_norm: bool = True
) -> nn.Sequential:
    """Two 3×3 convolutions, each with its non-linearity: the step of every U-Net level.

    Args:
        inputs: Channels in.
        outputs: Channels out, after the first convolution already.
        stride: Of the first convolution.
        padding: 1 keeps the size, 0 takes a pixel a convolution off each side.
        batch_norm: Normalise before each ReLU; the convolutions then need no bias.
    """
    layers: list[nn.Module] = []
    for source, step in ((inputs, stride), (outputs, 1)):
        layers.append(
            PaddedConv2d(source, outputs, 3, stride=step, padding=padding, bias=not batch_norm)
        )
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def doubling_deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """The U-Net paper's up-convolution: 2×2 of stride 2, so no two kernels overlap.

    Each value it makes is the weighted sum of one pixel's ``inputs`` channels, which is the
    number that He initialisation asks for.
    """
    layer = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution; transposed ones are left as they are.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015), equation 10.
    """
    for layer in module.modules():
        # On the meta device there is nothing to fill, and trying to imports torch's compiler.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_size(picture: Tensor, smallest: int) -> None:
    """Refuse a picture that would shrink to nothing, naming the size to pad to.

    Args:
        picture: (N, C, H, W).
        smallest: Height and width that the network needs.

    Raises:
        UsageError: The picture is smaller.
    """
    height, width = picture.shape[-2:]
    if height < smallest or width < smallest:
        raise UsageError(
            f"a picture of {width}×{height} is too small for this network; "
            f"pad it to {max(width, smallest)}×{max(height, smallest)} at least"
        )
