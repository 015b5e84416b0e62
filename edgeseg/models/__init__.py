"""Network architectures: ``torch.nn.Module`` from pictures (N, C, H, W) to logits of that size."""

from __future__ import annotations

import inspect
from types import MappingProxyType

from edgeseg.errors import UsageError, needed

with needed("training and checkpoints need", "train"):
    from torch import nn

from edgeseg.models.fcn import FCN8s, FCN16s, FCN32s
from edgeseg.models.unet import UNet
from edgeseg.models.unet_lite import UNetLite

ARCHITECTURES: MappingProxyType[str, type[nn.Module]] = MappingProxyType(
    {"unet-lite": UNetLite, "unet": UNet, "fcn8s": FCN8s, "fcn16s": FCN16s, "fcn32s": FCN32s}
)
"""Architecture classes by their name on the command line and in model cards."""


def build(
    arch: str, num_classes: int, in_channels: int = 3, **options: bool | int | float | str
) -> nn.Module:
    """Build a network with newly initialised weights.

    Args:
        arch: Architecture, a key of :data:`ARCHITECTURES`.
        num_classes: Number of classes, 2…255.
        in_channels: 3 for colour, 1 for grey.
        **options: Keyword arguments of the architecture's class, e.g. ``width=16``.

    Returns:
        A module from float (N, in_channels, H, W) to logits (N, num_classes, H, W).

    Raises:
        UsageError: Unknown architecture or option, or a value out of range.
    """
    defaults = default_options(arch)
    if not 2 <= num_classes <= 255:
        raise UsageError(f"{arch} needs 2…255 classes, not {num_classes}")
    if in_channels not in (1, 3):
        raise UsageError(f"{arch} takes 1 or 3 input channels, not {in_channels}")
    for name, value in options.items():
        if name not in defaults:
            raise UsageError(f"{arch} has no option {name!r}; it has {', '.join(defaults)}")
        if type(value) is not type(defaults[name]):
            expected = type(defaults[name]).__name__
            raise UsageError(f"{arch}: {name} is of type {expected}, not {value!r}")
    return ARCHITECTURES[arch](num_classes, in_channels, **options)


def default_options(arch: str) -> dict[str, bool | int | float | str]:
    """Return an architecture's options and defaults; raises UsageError if it is unknown."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"no architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
    parameters = inspect.signature(ARCHITECTURES[arch]).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is item.KEYWORD_ONLY}
