"""What several networks are made of: blocks, their initialisation, and the check of sizes."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.errors import UsageError


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
            nn.Conv2d(source, outputs, 3, stride=step, padding=padding, bias=not batch_norm)
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
