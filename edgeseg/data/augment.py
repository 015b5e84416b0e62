"""Random augmentation of training batches, applied to preprocessed tensors.

It runs after preprocessing, so that without it training gets exactly the same tensors as
evaluation, calibration and streaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.artifacts.card import InputSpec
from edgeseg.data.loader import Batch
from edgeseg.errors import needed
from edgeseg.options.parsing import Range, Size
from edgeseg.options.training import Augmentation

with needed("augmentation needs", "train"):
    import kornia.augmentation as K
    from kornia.constants import DataKey

ELASTIC_PIXELS = 10.0
"""Standard deviation of the displacements on a grid of 3 by 3: U-Net paper, section 3.1."""
ASPECT = (0.9, 1.1)
"""Change of the aspect ratio of pictures that are scaled."""


class Augment(nn.Module):
    """Augment batches: geometry for pictures and labels together, colour for pictures only.

    Crops are taken last, from border weights of the whole picture, so that objects outside a crop
    still affect the weights inside. Random numbers come from PyTorch's global generator.

    Args:
        spec: Input specification by which the pictures were normalised.
        ignore: Mask value of a letterbox border.
    """

    def __init__(self, spec: InputSpec, augmentation: Augmentation, ignore: int) -> None:
        super().__init__()
        self.ignore = ignore
        self.bend = _Elastic() if augmentation.elastic else None
        self.zoom = _zoom(spec, augmentation, ignore)
        self.shape = _shape(spec, augmentation)
        self.colour = _colour(spec, augmentation)
        statistics = (spec.mean, spec.std)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.range = 255 * spec.scale

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Augment each picture of a batch independently.

        Args:
            batch: Pictures from ``preprocess`` and uint8 masks.

        Returns:
            Pictures float32 (N, C, h, w), masks int64 and borders float32 (N, h, w), where h, w is
            the size of ``crop``. Labels are resampled to the nearest. A letterbox border keeps its
            mean colour and ``ignore``, which also surround a picture that was scaled down.
        """
        pictures, planes = self._move(batch.pictures, _planes(batch))
        masks = planes[:, 0].round().long()
        plain = ((pictures * self.std + self.mean) / self.range).clamp(0, 1)
        varied = (self.colour(plain) * self.range - self.mean) / self.std
        border = (masks == self.ignore)[:, None] & (pictures == 0).all(dim=1, keepdim=True)
        return Batch(
            varied.masked_fill(border, 0), masks, None if batch.borders is None else planes[:, 1]
        )

    def _move(self, pictures: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        if self.bend is not None:
            pictures, planes = self.bend(pictures, planes)
        if self.zoom is not None:
            pictures, planes = self.zoom(pictures, planes)
        moved: tuple[Tensor, Tensor] = self.shape(pictures, planes)
        return moved


class _Elastic(nn.Module):
    """Elastic deformation of the U-Net paper (Ronneberger et al. 2015, section 3.1).

    Displacements on a coarse 3×3 grid are Gaussian with a standard deviation of 10 pixels of the
    network's input and interpolated bicubically. Pixels beyond the edge are mirrored.
    """

    def forward(self, pictures: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        count, _, height, width = pictures.shape
        coarse = torch.randn(count, 2, 3, 3, device=pictures.device) * ELASTIC_PIXELS
        shift = functional.interpolate(
            coarse, (height, width), mode="bicubic", align_corners=True
        ).movedim(1, -1)
        # grid_sample takes coordinates from -1 to 1 over width and height.
        shift = shift * shift.new_tensor([2 / width, 2 / height])
        straight = torch.eye(2, 3, device=pictures.device).expand(count, 2, 3)
        grid = shift + functional.affine_grid(straight, list(pictures.shape), align_corners=False)
        return _sampled(pictures, grid, "bilinear"), _sampled(planes, grid, "nearest")


class _Zoom(nn.Module):
    """Random scale and crop in one resampling.

    Scales and aspect ratios are log-uniform, so that half the size is as likely as twice. The crop
    lies anywhere in the scaled picture; a picture smaller than the crop lies anywhere in it, and
    the rest has the mean colour and is ignored.

    Args:
        size: (height, width) of the crops.
        ignore: Mask value outside the picture.
    """

    def __init__(self, size: Size, scale: Range, ignore: int) -> None:
        super().__init__()
        self.size, self.scale, self.ignore = size, scale, ignore

    def forward(self, pictures: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        count, _, height, width = pictures.shape
        drawn = torch.rand(count, 4, device=pictures.device)
        scale = _log_uniform(drawn[:, 0], self.scale)
        aspect = _log_uniform(drawn[:, 1], ASPECT).sqrt()
        # Sides of the crop as parts of the picture's; affine_grid's coordinates are -1 to 1.
        sides = torch.stack(
            [self.size[1] / (width * scale * aspect), self.size[0] / (height * scale / aspect)], 1
        )
        centres = (2 * drawn[:, 2:] - 1) * (1 - sides)
        affine = torch.cat([torch.diag_embed(sides), centres[..., None]], dim=2)
        grid = functional.affine_grid(affine, [count, 1, *self.size], align_corners=False)
        outside = (grid.abs() > 1).any(dim=-1)
        pictures = _sampled(pictures, grid, "bilinear", "border")
        masks, *borders = _sampled(planes, grid, "nearest", "border").unbind(1)
        planes = torch.stack([masks.masked_fill(outside, self.ignore), *borders], dim=1)
        return pictures.masked_fill(outside[:, None], 0), planes


def _log_uniform(drawn: Tensor, limits: Range) -> Tensor:
    low, high = limits
    return low * (high / low) ** drawn


def _zoom(spec: InputSpec, augmentation: Augmentation, ignore: int) -> _Zoom | None:
    if augmentation.scale is None:
        return None
    return _Zoom(augmentation.crop or (spec.height, spec.width), augmentation.scale, ignore)


def _sampled(values: Tensor, grid: Tensor, mode: str, padding: str = "reflection") -> Tensor:
    return functional.grid_sample(
        values, grid, mode=mode, padding_mode=padding, align_corners=False
    )


def _planes(batch: Batch) -> Tensor:
    """Stack masks and border weights as planes (N, 1 or 2, H, W), to be transformed together."""
    masks = batch.masks.to(batch.pictures.dtype)
    return torch.stack([masks] if batch.borders is None else [masks, batch.borders], dim=1)


def _shape(spec: InputSpec, augmentation: Augmentation) -> nn.Module:
    """Flips and quarter turns, and crops of pictures that are not scaled."""
    height, width = augmentation.crop or (spec.height, spec.width)
    steps: list[K.GeometricAugmentationBase2D] = [K.RandomHorizontalFlip(p=0.5)]
    if augmentation.crop is not None and augmentation.scale is None:
        steps.insert(0, K.RandomCrop((height, width), cropping_mode="slice"))
    if augmentation.orientation == "any":
        steps.append(K.RandomVerticalFlip(p=0.5))
        if height == width:
            # A quarter turn of an oblong picture would cut off its ends.
            steps.append(K.RandomRotation90(times=(0, 3), p=0.5, resample="nearest"))
    return K.AugmentationSequential(
        *steps, data_keys=["input", "mask"], extra_args={DataKey.MASK: {"resample": "nearest"}}
    )


def _colour(spec: InputSpec, augmentation: Augmentation) -> nn.Module:
    steps: list[nn.Module] = []
    if augmentation.colour:
        steps.append(K.RandomGamma(gamma=(0.7, 1.4), gain=(0.8, 1.2), p=0.5))
    if augmentation.blur:
        steps.append(K.RandomGaussianBlur((3, 3), sigma=(0.3, 1.0), p=0.1))
    if augmentation.colour and spec.channels == 3:
        # Shift each channel: hue and saturation through HSV would take longer than a
        # training step of a small network.
        steps.append(K.RandomRGBShift(0.05, 0.05, 0.05, p=0.3))
    return nn.Sequential(*steps)
