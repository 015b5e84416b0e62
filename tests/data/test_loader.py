"""Batches: what training sees is what ``preprocess`` makes, in a seeded order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseg.card import InputSpec
from edgeseg.data.folders import Split, bundled_sample, load_sample, read_split
from edgeseg.data.loader import LabelledTensors, batches, training_tensor
from edgeseg.ops.preprocess import fit_mask, preprocess

SPEC = InputSpec(height=32, width=48)


@pytest.fixture(scope="module")
def split() -> Split:
    return read_split(bundled_sample(), "val")


def tensors(split: Split, limit: int = 1 << 30) -> LabelledTensors:
    return LabelledTensors(split, split.classes, SPEC, memory_limit=limit)


def test_training_sees_preprocessed_pictures(split: Split) -> None:
    image, mask = load_sample(split.samples[3], split.classes)
    picture, fitted = training_tensor(split.samples[3], split.classes, SPEC)
    assert np.array_equal(picture, preprocess(image, SPEC))
    assert np.array_equal(fitted, fit_mask(mask, SPEC))


def test_kept_and_reread_are_the_same(split: Split) -> None:
    kept, reread = tensors(split), tensors(split, limit=0)
    assert kept.in_memory
    assert not reread.in_memory
    assert kept[0][0] is kept[0][0]
    assert reread[0][0] is not reread[0][0]
    assert all(torch.equal(one, other) for one, other in zip(kept[2], reread[2], strict=True))


def test_workers_give_the_same_batches(split: Split) -> None:
    here, apart = (batches(tensors(split, limit), 4, seed=1) for limit in (1 << 30, 0))
    assert here.num_workers == 0
    assert apart.num_workers > 0
    for ours, theirs in zip(here, apart, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_order_depends_on_the_seed(split: Split) -> None:
    kept = tensors(split)
    first = [next(iter(batches(kept, 4, seed)))[0] for seed in (0, 0, 1)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_sizes(split: Split) -> None:
    kept = tensors(split)
    assert [len(masks) for _, masks in batches(kept, 4, 0)] == [4, 4, 4]
    assert [len(masks) for _, masks in batches(kept, 99, 0)] == [14]
    assert len(batches(kept, 4, 0, parts=4)) == 14
