"""Batches: what training sees is what ``preprocess`` makes, in a seeded order."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.data.folders import Split, bundled_sample, load_sample, read_split
from edgeseg.data.instances import border_weights, class_mask, with_boundary
from edgeseg.data.loader import LabelledTensors, Order, batches, training_tensor
from edgeseg.data.sample import Sample, load_instances
from edgeseg.errors import DatasetError
from edgeseg.ops.preprocess import fit_mask, preprocess
from edgeseg.options.training import Objects

SPEC = InputSpec(height=32, width=48)
TWO = ClassMap.model_validate({"names": ("background", "object")})


@pytest.fixture(scope="module")
def split() -> Split:
    return read_split(bundled_sample(), "val")


def tensors(split: Split, limit: int = 1 << 30, objects: Objects | None = None) -> LabelledTensors:
    return LabelledTensors(
        split, split.classes, SPEC, memory_limit=limit, objects=objects or Objects()
    )


def test_training_sees_preprocessed_pictures(split: Split) -> None:
    image, mask = load_sample(split.samples[3], split.classes)
    picture, fitted = training_tensor(split.samples[3], split.classes, SPEC)
    assert np.array_equal(picture, preprocess(image, SPEC))
    assert np.array_equal(fitted, fit_mask(mask, SPEC))


def test_workers_give_the_same_batches(split: Split) -> None:
    objects = Objects(border_weight=10)
    here, apart = (
        batches(tensors(split, limit, objects), Order(len(split), 4, seed=1))
        for limit in (1 << 30, 0)
    )
    assert here.num_workers == 0
    assert apart.num_workers > 0
    for ours, theirs in zip(here, apart, strict=True):
        pairs = list(zip(ours, theirs, strict=True))[:3]  # the last are a teacher's
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["kept", "reread"])
def test_tiles_are_of_the_pictures_own_scale(split: Split, limit: int) -> None:
    spec = InputSpec(height=160, width=192, tiles=True)
    objects = Objects("boundary", border_weight=10)
    classes = with_boundary(split.classes)
    pair = Split(Path(), "train", split.samples[:2], classes)
    tiles = LabelledTensors(pair, classes, spec, objects=objects, memory_limit=limit)
    image, _ = load_sample(split.samples[0], classes)
    height, width = image.shape[:2]
    counts = -(-height // 160), -(-width // 192)
    last = tiles[counts[0] * counts[1] - 1]  # the corner at the bottom and to the right
    rows, columns = slice(height - 160, height), slice(width - 192, width)
    assert np.array_equal(last.picture, preprocess(image[rows, columns].copy(), spec))
    ids = load_instances(split.samples[0])
    whole = class_mask(ids, classes)
    assert np.array_equal(last.mask, whole[rows, columns])
    expected = border_weights(np.where(whole == 1, ids, 0))
    assert np.array_equal(last.borders, expected[rows, columns])
    assert {tiles[number].mask.shape for number in range(len(tiles))} == {(160, 192)}


def test_loading_leaves_the_callers_random_numbers_alone(split: Split) -> None:
    """Augmentation draws from them, and a resumed training must draw the same."""
    loader = batches(tensors(split), Order(len(split), 4))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert len(list(loader)) == 3
    assert torch.equal(torch.rand(2), expected)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = Order(20, 4, seed=seed)
        batches.epoch = epoch
        return list(batches)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != order(0, 2)
    assert sorted(one for batch in order(0, 2) for one in batch) == list(range(20))
    assert order(-1, 1) != order(1, 1)


@pytest.mark.parametrize(
    ("order", "sizes", "passes"),
    [
        (Order(14, 4), [4, 4, 4], 1),
        (Order(14, 99), [14], 1),
        (Order(14, 4, parts=4), [4] * 14, 1),
        (Order(14, 3, accumulate=2), [3, 3, 3, 3], 2),
        (Order(14, 4, accumulate=99), [4, 4, 4, 2], 4),  # one step of all there is
    ],
)
def test_steps_of_several_batches(order: Order, sizes: list[int], passes: int) -> None:
    assert [len(batch) for batch in order] == sizes
    assert len(order) == len(sizes) == order.steps * passes
    assert order.passes == passes


def test_parts_show_each_picture_as_often() -> None:
    assert sorted(one for batch in Order(6, 4, parts=2) for one in batch) == sorted(
        [*range(6), *range(6)]
    )


def test_processes_divide_each_batch_among_them() -> None:
    whole = list(Order(14, 5, accumulate=2, seed=3))
    shares = [list(Order(14, 5, accumulate=2, seed=3, share=(rank, 3))) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert sorted(one for share in shares for one in share[number]) == sorted(batch)
        assert all(share[number] for share in shares)


def touching_pair(folder: Path, *, mask: bool = False) -> Sample:
    """Two squares side by side, 40 pixels wide each, in a picture of 64×96; one corner ignored."""
    ids = np.zeros((64, 96), np.uint16)
    ids[8:56, 8:48], ids[8:56, 48:88] = 1, 2
    classes = (ids > 0).astype(np.uint8)
    classes[:4, :4] = 255
    for name, pixels in (("i", np.zeros((64, 96, 3), np.uint8)), ("o", ids), ("m", classes)):
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    drawn = folder / "m.png" if mask else None
    return Sample(folder / "i.png", mask=drawn, instances=folder / "o.png")


def components(mask: torch.Tensor) -> int:
    return cv2.connectedComponents((mask == 1).numpy().astype(np.uint8))[0] - 1


def prepared(sample: Sample, objects: Objects, classes: ClassMap, spec: InputSpec = SPEC):  # type: ignore[no-untyped-def]
    split = Split(Path(), "train", (sample,), classes)
    return LabelledTensors(split, classes, spec, objects=objects)[0]


@pytest.mark.parametrize("mask", [False, True])
def test_touching_objects_are_parted_at_the_size_of_the_network(tmp_path: Path, mask: bool) -> None:
    """Half the size: a gap cut at the picture's own would be a line of half a pixel."""
    sample = touching_pair(tmp_path, mask=mask)
    merged = prepared(sample, Objects(), TWO).mask
    gap = prepared(sample, Objects("gap"), TWO).mask
    assert [components(merged), components(gap)] == [1, 2]
    changed = merged != gap
    assert set(torch.nonzero(changed)[:, 1].tolist()) == {23, 24}
    assert int(gap[changed].max()) == 0
    assert int((gap == 255).sum()) == (4 if mask else 0)


def test_the_boundary_is_a_class(tmp_path: Path) -> None:
    found = prepared(touching_pair(tmp_path), Objects("boundary"), with_boundary(TWO)).mask
    assert set(found.unique().tolist()) == {0, 1, 2}
    assert components(found) == 2


@pytest.mark.parametrize("touching", ["merged", "gap", "boundary"])
def test_border_weights_are_those_of_the_parted_objects(tmp_path: Path, touching: str) -> None:
    classes = with_boundary(TWO) if touching == "boundary" else TWO
    objects = Objects(touching, border_weight=10, border_sigma=3)  # type: ignore[arg-type]
    example = prepared(touching_pair(tmp_path), objects, classes)
    ids = np.zeros((32, 48), np.int32)
    ids[4:28, 4:24], ids[4:28, 24:44] = 1, 2
    expected = border_weights(np.where(example.mask.numpy() == 1, ids, 0), 10, 3)
    assert np.array_equal(example.borders, expected)
    # Between objects that touch there is something to weigh only when they are parted.
    middle = float(example.borders[16, 23])
    assert middle == 0 if touching == "merged" else middle > 5


def test_a_letterbox_is_no_border_and_stays_ignored(tmp_path: Path) -> None:
    spec = InputSpec(height=64, width=48, resize="letterbox")
    example = prepared(touching_pair(tmp_path), Objects("gap", border_weight=10), TWO, spec)
    assert bool((example.mask[:16] == 255).all() and (example.mask[48:] == 255).all())
    assert int((example.mask[16:48] == 255).sum()) == 0
    assert components(example.mask) == 2


def test_objects_are_needed_where_they_are_asked_for(tmp_path: Path) -> None:
    touching_pair(tmp_path)
    drawn = Sample(tmp_path / "i.png", mask=tmp_path / "m.png")
    assert prepared(drawn, Objects(), TWO).borders is None
    with pytest.raises(DatasetError, match="expected a map of objects"):
        prepared(drawn, Objects(border_weight=1), TWO)


@pytest.mark.parametrize("objects", [Objects(), Objects("gap", border_weight=10)])
def test_kept_and_reread_are_the_same(split: Split, objects: Objects) -> None:
    kept, reread = (tensors(split, limit, objects) for limit in (1 << 30, 0))
    assert kept.in_memory
    assert not reread.in_memory
    assert kept[0][0] is kept[0][0]
    assert reread[0][0] is not reread[0][0]
    for one, other in zip(kept[2], reread[2], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert (kept[2].borders is None) == (not objects.border_weight)
