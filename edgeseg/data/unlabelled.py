"""Training examples without labels, beside labelled ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
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
    frames: Iterable[NDArray[np.uint8]], spec: InputSpec, limit: int = MEMORY_LIMIT
) -> list[NDArray[np.uint8]]:
    """Keep frames evenly spread over a source, as many as fit in ``limit`` bytes.

    Frames larger than the network's input are scaled down to cover it.

    Args:
        frames: uint8 (H, W, 3) BGR each.
        spec: Input of the network.
        limit: Maximum bytes to keep.
    """
    kept: list[NDArray[np.uint8]] = []
    total, stride = 0, 1
    for number, frame in enumerate(frames):
        if number % stride:
            continue
        kept.append(_covering(frame, spec))
        total += kept[-1].nbytes
        while total > limit and len(kept) > 1:
            kept, stride = kept[::2], 2 * stride
            total = sum(each.nbytes for each in kept)
    return kept


def _covering(frame: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    factor = max(spec.height / height, spec.width / width)
    if factor >= 1:
        return frame
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


class WithUnlabelled(Dataset[Example]):
    """Labelled examples, followed by unlabelled frames.

    Args:
        labelled: The labelled examples.
        frames: uint8 (H, W, 3) BGR each.
        classes: Classes of the network.
        spec: Input of the network.
    """

    def __init__(
        self,
        labelled: LabelledTensors,
        frames: list[NDArray[np.uint8]],
        classes: ClassMap,
        spec: InputSpec,
    ) -> None:
        self._labelled, self._frames, self._spec = labelled, frames, spec
        self._classes = classes
        self._unlabelled = unlabelled_id(classes)
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
        return len(self._labelled) + len(self._frames)

    def __getitem__(self, number: int) -> Example:
        if number < len(self._labelled):
            return self._labelled[number]
        frame = self._frames[number - len(self._labelled)]
        mask = fit_mask(
            np.full(frame.shape[:2], self._unlabelled, np.uint8), self._spec, self._classes.ignore
        )
        return Example(
            torch.from_numpy(preprocess(frame, self._spec)),
            torch.from_numpy(mask),
            torch.zeros(mask.shape) if self._bordered else None,
        )

    def masks(self) -> Iterator[Tensor]:
        """Yield the mask of each labelled picture, uint8 (H, W)."""
        return self._labelled.masks()
