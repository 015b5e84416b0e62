"""Random variation of training batches, on the tensors that the network would get.

It comes after preprocessing, so that training without it sees bit for bit what evaluation,
calibration and the stream feed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edgeseg.card import InputSpec
from edgeseg.errors import RuntimeMissing

try:
    import kornia.augmentation as K
    from kornia.constants import DataKey
except ModuleNotFoundError as error:
    raise RuntimeMissing(
        "augmentation needs kornia, which is not installed",
        mend="pip install 'edgeseg[train]'",
    ) from error

Orientation = Literal["upright", "any"]
"""``upright``: mirrored left to right only, as for roads and rooms. ``any``: flips and quarter
turns, as for microscopes and cameras that look straight down."""


class Augment(nn.Module):
    """Geometry on pictures and masks alike, colour on pictures.

    Random numbers come from PyTorch's global generator; seed that.

    Args:
        spec: How the pictures were normalised.
        orientation: Which ways round a scene may be.
        ignore: Mask value of a letterbox border.
        crop: (height, width) of a random part to train on, None for the whole picture. A small
            network learns more from many parts than from few pictures in the same time.
    """

    def __init__(
        self,
        spec: InputSpec,
        orientation: Orientation,
        ignore: int,
        crop: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.ignore = ignore
        self.shape = _shape(spec, orientation, crop or (spec.height, spec.width))
        self.colour = _colour(spec)
        statistics = (spec.mean, spec.std)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.range = 255 * spec.scale

    @torch.no_grad()
    def forward(self, pictures: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Vary each picture of a batch on its own.

        Args:
            pictures: float32 (N, C, H, W) as ``preprocess`` makes them.
            masks: uint8 (N, H, W).

        Returns:
            Pictures float32 (N, C, h, w) of the same kind and masks int64 (N, h, w), where
            h, w is the size of ``crop``. A letterbox keeps its mean colour and ``ignore``.
        """
        pictures, planes = self.shape(pictures, masks[:, None].to(pictures.dtype))
        masks = planes[:, 0].round().long()
        plain = ((pictures * self.std + self.mean) / self.range).clamp(0, 1)
        varied = (self.colour(plain) * self.range - self.mean) / self.std
        border = (masks == self.ignore)[:, None] & (pictures == 0).all(dim=1, keepdim=True)
        return varied.masked_fill(border, 0), masks


def _shape(spec: InputSpec, orientation: Orientation, crop: tuple[int, int]) -> nn.Module:
    """A part of the picture at 0.8 to 1.5 times its scale, mirrored and turned."""
    part = crop[0] * crop[1] / (spec.height * spec.width)
    steps: list[K.GeometricAugmentationBase2D] = [
        K.RandomResizedCrop(
            crop,
            scale=(part / 1.5**2, min(1.0, part / 0.8**2)),
            ratio=(0.9 * crop[1] / crop[0], 1.1 * crop[1] / crop[0]),
            cropping_mode="resample",
        ),
        K.RandomHorizontalFlip(p=0.5),
    ]
    if orientation == "any":
        steps.append(K.RandomVerticalFlip(p=0.5))
        if crop[0] == crop[1]:
            # Of an oblong picture a quarter turn would cut the ends off.
            steps.append(K.RandomRotation90(times=(0, 3), p=0.5, resample="nearest"))
    return K.AugmentationSequential(
        *steps, data_keys=["input", "mask"], extra_args={DataKey.MASK: {"resample": "nearest"}}
    )


def _colour(spec: InputSpec) -> nn.Module:
    steps: list[nn.Module] = [
        K.RandomGamma(gamma=(0.7, 1.4), gain=(0.8, 1.2), p=0.5),
        K.RandomGaussianBlur((3, 3), sigma=(0.3, 1.0), p=0.1),
    ]
    if spec.channels == 3:
        # A shift of each channel: hue and saturation through HSV would take longer than a
        # training step of a small network.
        steps.append(K.RandomRGBShift(0.05, 0.05, 0.05, p=0.3))
    return nn.Sequential(*steps)
