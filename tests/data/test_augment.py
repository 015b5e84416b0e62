"""Augmentation: picture and mask move together, colour stays off the masks."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from edgeseg.artifacts.card import InputSpec
from edgeseg.data.augment import Augment
from edgeseg.data.loader import Batch
from edgeseg.options.training import Augmentation, Orientation

PLAIN = {"scale": 1 / 255, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def blocks(size: int = 64, count: int = 8) -> Batch:
    """Pictures whose brightness tells the class of each pixel: 0 is 0.2, 1 is 0.8."""
    coarse = torch.rand(count, 1, size // 16, size // 16) > 0.5
    masks = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0].to(torch.uint8)
    pictures = (0.2 + 0.6 * masks.float())[:, None].repeat(1, 3, 1, 1)
    # The weight of a pixel tells its class too, and is no number that a mask could hold.
    return Batch(pictures, masks, 0.25 + masks.float())


def augment(spec: InputSpec, **options: Any) -> Augment:
    return Augment(spec, Augmentation(**options), 255)


def agreement(pictures: Tensor, masks: Tensor) -> float:
    labelled = masks != 255
    return float(((pictures.mean(dim=1) > 0.5) == (masks == 1))[labelled].float().mean())


@pytest.mark.parametrize("orientation", get_args(Orientation))
@pytest.mark.parametrize("crop", [None, (32, 32), (32, 48)])
@pytest.mark.parametrize("options", [{}, {"elastic": True}, {"scale": None}, {"scale": (0.3, 3.0)}])
def test_picture_and_labels_stay_aligned(
    orientation: Orientation, crop: tuple[int, int] | None, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    spec = InputSpec(height=64, width=64, **PLAIN)
    varied = augment(spec, orientation=orientation, crop=crop, **options)
    varied.colour = torch.nn.Identity()
    # Bent, a block has longer edges, and on an edge bilinear and nearest may differ.
    least = 0.95 if "elastic" in options else 0.97
    for _ in range(4):
        pictures, masks, borders, _ = varied(blocks())
        assert pictures.shape[-2:] == masks.shape[-2:] == (crop or (64, 64))
        assert masks.dtype == torch.int64
        assert agreement(pictures, masks) > least
        labelled = masks != 255
        assert set(masks.unique().tolist()) <= ({0, 1} if varied.zoom is None else {0, 1, 255})
        assert not pictures.movedim(1, -1)[~labelled].any()
        # Weights are never a mean of two, and go where the mask goes.
        assert torch.equal(borders[labelled], 0.25 + masks[labelled].float())


def test_a_crop_at_its_own_scale_is_a_piece_of_the_picture() -> None:
    torch.manual_seed(0)
    plain = augment(
        InputSpec(height=24, width=32, **PLAIN), crop=(8, 8), scale=None, colour=False, blur=False
    )
    picture = torch.rand(1, 3, 24, 32)
    whole = Batch(picture, (picture[:, 0] * 200).to(torch.uint8), None)
    places = set()
    for _ in range(8):
        cut = plain(whole)
        assert cut.borders is None
        found = [
            (row, column, flipped)
            for flipped in (False, True)
            for row in range(17)
            for column in range(25)
            if torch.allclose(
                picture[..., row : row + 8, column : column + 8],
                cut.pictures.flip(-1) if flipped else cut.pictures,
                atol=1e-5,
            )
        ]
        assert len(found) == 1
        assert torch.equal((cut.pictures[:, 0] * 200 + 1e-3).long(), cut.masks)
        places.add(found[0])
    assert len(places) > 4


@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (1.5, 1.5)])
def test_scales_are_those_of_the_range(low: float, high: float) -> None:
    """Pictures whose channels hold each pixel's column and row tell where a crop comes from."""
    torch.manual_seed(0)
    spec = InputSpec(height=48, width=64, **PLAIN)
    zoom = augment(spec, scale=(low, high), crop=(32, 40)).zoom
    assert zoom is not None
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    pictures = torch.stack([columns + 1, rows + 1]).expand(200, 2, 48, 64)
    cut, planes = zoom(pictures, torch.zeros(200, 1, 48, 64))
    found = []
    for values, mask in zip(cut, planes[:, 0], strict=True):
        inside = mask == 0
        assert not values[:, ~inside].any()
        ys, xs = inside.nonzero(as_tuple=True)
        box = inside[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert bool(box.all()), "the picture in its crop is a rectangle"
        # Away from the edge, where bilinear values end, the ramps are straight.
        middle = values[:, ys.min() + 4 : ys.max() - 3, xs.min() + 4 : xs.max() - 3]
        across = float(middle[0].diff(dim=1).mean())
        down = float(middle[1].diff(dim=0).mean())
        found.append((1 / (across * down) ** 0.5, down / across))
    scales, aspects = torch.tensor(found).T
    for drawn, bounds in ((scales, (low, high)), (aspects, (0.9, 1.1))):
        assert float(drawn.min()) == pytest.approx(bounds[0], rel=0.03)
        assert float(drawn.max()) == pytest.approx(bounds[1], rel=0.03)
    if low < high:
        # Log-uniform: a third of the scales in each third of the range.
        for third in range(3):
            bounds = low * (high / low) ** (third / 3), low * (high / low) ** ((third + 1) / 3)
            part = ((scales >= bounds[0]) & (scales < bounds[1])).float().mean()
            assert 0.2 < float(part) < 0.47
        assert 0.02 < float((planes == 255).float().mean()) < 0.5


def test_elastic_bends_by_the_papers_displacements() -> None:
    """Displacements of 10 pixels: a ramp of columns tells how far each pixel has come."""
    torch.manual_seed(0)
    bent = augment(
        InputSpec(height=256, width=256, **PLAIN), elastic=True, scale=None, colour=False
    )
    bent.shape = _Same()
    columns = torch.arange(256.0).expand(16, 1, 256, 256)
    pictures = (columns / 256).repeat(1, 3, 1, 1)
    masks = torch.zeros(16, 256, 256, dtype=torch.uint8)
    moved = bent(Batch(pictures, masks, None)).pictures[:, :1] * 256 - columns
    inside = moved[..., 40:216, 40:216]  # mirrored nowhere
    # Between the nodes of the grid, where its mean weighs, displacements are smaller.
    assert 4 < float(inside.std()) < 12
    assert abs(float(moved[..., 128, 128].std()) - 10) < 5
    # Smooth: neighbours come along.
    assert float(inside.diff(dim=-1).abs().max()) < 1.2


def test_what_is_off_is_off() -> None:
    plain = augment(InputSpec(height=64, width=64), scale=None, colour=False, blur=False)
    batch = blocks()
    same = plain(batch)
    for before, after, mask in zip(batch.pictures, same.pictures, same.masks, strict=True):
        mirrored = not torch.allclose(before, after, atol=1e-5)
        assert torch.allclose(before.flip(-1) if mirrored else before, after, atol=1e-5)
        assert mask.shape == (64, 64)


def test_the_alignment_check_sees_a_mirrored_mask() -> None:
    pictures, masks, *_ = blocks()
    assert agreement(pictures, masks) == 1
    assert agreement(pictures, masks.flip(-1)) < 0.9


def test_colour_changes_pictures_only() -> None:
    torch.manual_seed(0)
    varied = augment(InputSpec(height=64, width=64), orientation="any", scale=None)
    varied.shape = _Same()
    pictures, masks, borders, _ = blocks()
    changed, same, weights, _ = varied(Batch(pictures, masks, borders))
    assert torch.equal(same, masks.long())
    assert torch.equal(weights, borders)
    assert not torch.allclose(changed, pictures, atol=0.01)
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    values = changed * varied.std + varied.mean
    assert bool((values >= low - 1e-5).all() and (values <= high + 1e-5).all())


class _Same(torch.nn.Module):
    def forward(self, pictures: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        return pictures, planes


def test_a_letterbox_border_stays_ignored_and_neutral() -> None:
    torch.manual_seed(1)
    spec = InputSpec(height=64, width=64)
    pictures, masks, borders, _ = blocks()
    pictures[..., :24], masks[..., :24] = 0, 255
    changed, moved, *_ = augment(spec)(Batch(pictures, masks, borders))
    border = moved == 255
    assert set(moved.unique().tolist()) <= {0, 1, 255}
    neutral = (changed == 0).all(dim=1)
    # Bilinear pixels at the seam of border and picture are neither.
    assert float(neutral[border].float().mean()) > 0.9


def test_the_same_seed_gives_the_same_batch() -> None:
    varied = augment(InputSpec(height=64, width=64), orientation="any", crop=(32, 32), elastic=True)
    batch = blocks()

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        pictures: Tensor = varied(batch).pictures
        return pictures

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_upright_never_turns_a_scene_over() -> None:
    torch.manual_seed(0)
    upright = augment(InputSpec(height=32, width=32, **PLAIN), scale=(1, 1.5))
    upright.colour = torch.nn.Identity()
    pictures = torch.full((16, 3, 32, 32), 0.2)
    pictures[:, :, :16] = 0.8
    masks = torch.zeros(16, 32, 32, dtype=torch.uint8)
    varied = upright(Batch(pictures, masks, None)).pictures
    assert bool((varied[:, :, 0].mean(dim=(1, 2)) >= varied[:, :, -1].mean(dim=(1, 2))).all())


def test_grey_pictures() -> None:
    spec = InputSpec(height=32, width=32, color="gray", mean=(0.4,), std=(0.2,))
    batch = Batch(torch.zeros(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.uint8), None)
    varied = augment(spec, orientation="any")(batch).pictures
    assert varied.shape == (2, 1, 32, 32)
