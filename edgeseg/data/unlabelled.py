"""Training examples without labels, beside labelled ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.data.loader import MEMORY_LIMIT, Example, LabelledTensors
from edgeseg.errors import UsageError
from edgeseg.ops.preprocess import fit_mask, preprocess


def unlabelled_id(classes: ClassMap) -> int:
    """Mask value of pixels whose label a teacher has to give.

    Raises:
        UsageError: The classes use all values.
    """
    number = 254 if classes.ignore == 255 else 255
    if len(classes) > number:
        raise UsageError(f"unlabelled pictures need 254 classes or fewer, not {len(classes)}")
    return number


def thinned(
    frames: Iterable[NDArray[np.uint8]],
    classes: ClassMap,
    spec: InputSpec,
    limit: int = MEMORY_LIMIT,
) -> list[Example]:
    """Preprocess frames evenly spread over a source, as many as fit in ``limit`` bytes.

    Args:
        frames: uint8 (H, W, 3) BGR each.
        limit: Maximum bytes to keep.

    Returns:
        Pictures in float16, and masks of unlabelled pixels and of a letterbox border.
    """
    number = unlabelled_id(classes)
    kept: list[Example] = []
    stride = 1
    for place, frame in enumerate(frames):
        if place % stride:
            continue
        mask = fit_mask(np.full(frame.shape[:2], number, np.uint8), spec, classes.ignore)
        picture = torch.from_numpy(preprocess(frame, spec)).half()
        kept.append(Example(picture, torch.from_numpy(mask), None))
        if len(kept) > 1 and len(kept) * (picture.nbytes + mask.nbytes) > limit:
            kept, stride = kept[::2], 2 * stride
    return kept


class WithUnlabelled(Dataset[Example]):
    """Labelled examples, followed by unlabelled ones.

    Args:
        unlabelled: Result of :func:`thinned`.
    """

    def __init__(self, labelled: LabelledTensors, unlabelled: Sequence[Example]) -> None:
        self._labelled, self._unlabelled = labelled, unlabelled
        self._bordered = labelled[0].borders is not None

    @property
    def in_memory(self) -> bool:
        """Whether the labelled tensors are cached."""
        return self._labelled.in_memory

    @property
    def picture_bytes(self) -> int:
        """Bytes of one example."""
        return self._labelled.picture_bytes

    def __len__(self) -> int:
        return len(self._labelled) + len(self._unlabelled)

    def __getitem__(self, number: int) -> Example:
        if number < len(self._labelled):
            return self._labelled[number]
        picture, mask, _ = self._unlabelled[number - len(self._labelled)]
        borders = torch.zeros(mask.shape) if self._bordered else None
        return Example(picture.float(), mask, borders)

    def masks(self) -> Iterator[Tensor]:
        """Yield the mask of each labelled picture, uint8 (H, W)."""
        return self._labelled.masks()
