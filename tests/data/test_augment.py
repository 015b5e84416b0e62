"""Augmentation: picture and mask move together, colour stays off the masks."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from edgeseg.card import InputSpec
from edgeseg.data.augment import Augment, Orientation

PLAIN = {"scale": 1 / 255, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def blocks(size: int = 64, count: int = 8) -> tuple[Tensor, Tensor]:
    """Pictures whose brightness tells the class of each pixel: 0 is 0.2, 1 is 0.8."""
    coarse = torch.rand(count, 1, size // 16, size // 16) > 0.5
    masks = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0].to(torch.uint8)
    pictures = (0.2 + 0.6 * masks.float())[:, None].repeat(1, 3, 1, 1)
    return pictures, masks


def agreement(pictures: Tensor, masks: Tensor) -> float:
    return float(((pictures.mean(dim=1) > 0.5) == (masks == 1)).float().mean())


@pytest.mark.parametrize("orientation", get_args(Orientation))
@pytest.mark.parametrize("crop", [None, (32, 32), (32, 48)])
def test_picture_and_mask_stay_aligned(
    orientation: Orientation, crop: tuple[int, int] | None
) -> None:
    torch.manual_seed(0)
    augment = Augment(InputSpec(height=64, width=64, **PLAIN), orientation, 255, crop)
    augment.colour = torch.nn.Identity()
    for _ in range(6):
        pictures, masks = augment(*blocks())
        assert pictures.shape[-2:] == masks.shape[-2:] == (crop or (64, 64))
        assert masks.dtype == torch.int64
        # Only pixels on an edge may differ: bilinear in the picture, nearest in the mask.
        assert agreement(pictures, masks) > 0.97
        assert set(masks.unique().tolist()) <= {0, 1}


def test_the_alignment_check_sees_a_mirrored_mask() -> None:
    pictures, masks = blocks()
    assert agreement(pictures, masks) == 1
    assert agreement(pictures, masks.flip(-1)) < 0.9


def test_colour_changes_pictures_only() -> None:
    torch.manual_seed(0)
    augment = Augment(InputSpec(height=64, width=64), "any", 255)
    augment.shape = _Same()
    pictures, masks = blocks()
    changed, same = augment(pictures, masks)
    assert torch.equal(same, masks.long())
    assert not torch.allclose(changed, pictures, atol=0.01)
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    values = changed * augment.std + augment.mean
    assert bool((values >= low - 1e-5).all() and (values <= high + 1e-5).all())


class _Same(torch.nn.Module):
    def forward(self, pictures: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        return pictures, planes


def test_a_letterbox_border_stays_ignored_and_neutral() -> None:
    torch.manual_seed(1)
    spec = InputSpec(height=64, width=64)
    augment = Augment(spec, "upright", 255)
    pictures, masks = blocks()
    pictures[..., :24], masks[..., :24] = 0, 255
    changed, moved = augment(pictures, masks)
    border = moved == 255
    assert set(moved.unique().tolist()) <= {0, 1, 255}
    neutral = (changed == 0).all(dim=1)
    # Bilinear pixels at the seam of border and picture are neither.
    assert float(neutral[border].float().mean()) > 0.9


def test_the_same_seed_gives_the_same_batch() -> None:
    augment = Augment(InputSpec(height=64, width=64), "any", 255, (32, 32))
    batch = blocks()

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        varied: Tensor = augment(*batch)[0]
        return varied

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_upright_never_turns_a_scene_over() -> None:
    torch.manual_seed(0)
    augment = Augment(InputSpec(height=32, width=32, **PLAIN), "upright", 255)
    augment.colour = torch.nn.Identity()
    pictures = torch.full((16, 3, 32, 32), 0.2)
    pictures[:, :, :16] = 0.8
    varied, _ = augment(pictures, torch.zeros(16, 32, 32, dtype=torch.uint8))
    assert bool((varied[:, :, 0].mean(dim=(1, 2)) >= varied[:, :, -1].mean(dim=(1, 2))).all())


def test_grey_pictures() -> None:
    spec = InputSpec(height=32, width=32, color="gray", mean=(0.4,), std=(0.2,))
    varied, _ = Augment(spec, "any", 255)(torch.zeros(2, 1, 32, 32), torch.ones(2, 32, 32))
    assert varied.shape == (2, 1, 32, 32)
