"""Labelled pictures as the tensors that training takes."""

from __future__ import annotations

import os

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from edgeseg.card import ClassMap, InputSpec
from edgeseg.console import Track, silent
from edgeseg.data.folders import Sample, Split, load_sample
from edgeseg.ops.preprocess import fit_mask, preprocess

MEMORY_LIMIT = 1 << 30
"""Bytes of tensors up to which a split is prepared once and kept, 1 GiB."""


def training_tensor(
    sample: Sample, classes: ClassMap, spec: InputSpec
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What training sees of a picture before augmentation.

    Returns:
        ``preprocess`` of the picture, float32 (C, height, width), the very tensor that
        evaluation, calibration and the stream make of it; and the mask, uint8 (height, width).
    """
    image, mask = load_sample(sample, classes)
    return preprocess(image, spec), fit_mask(mask, spec, classes.ignore)


class LabelledTensors(Dataset[tuple[Tensor, Tensor]]):
    """The training tensors of a split: kept in memory if they fit, else made at each access.

    Args:
        split: Pictures and masks.
        classes: Classes of the network.
        spec: Input of the network.
        memory_limit: Bytes up to which all are kept.
        track: Progress of preparing them.
    """

    def __init__(
        self,
        split: Split,
        classes: ClassMap,
        spec: InputSpec,
        *,
        memory_limit: int = MEMORY_LIMIT,
        track: Track = silent,
    ) -> None:
        self._samples = split.samples
        self._classes = classes
        self._spec = spec
        channels, height, width = spec.shape
        picture_bytes = height * width * (4 * channels + 1)
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        if len(split) * picture_bytes <= memory_limit:
            numbers = track(range(len(split)), "prepare pictures", len(split))
            self._kept = [self._make(number) for number in numbers]

    @property
    def in_memory(self) -> bool:
        """Whether all were prepared once and are kept."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self._make(number) if self._kept is None else self._kept[number]

    def _make(self, number: int) -> tuple[Tensor, Tensor]:
        picture, mask = training_tensor(self._samples[number], self._classes, self._spec)
        return torch.from_numpy(picture), torch.from_numpy(mask)


def batches(
    tensors: LabelledTensors, batch_size: int, seed: int, parts: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches: pictures float32 (N, C, H, W) and masks uint8 (N, H, W).

    Each picture comes ``parts`` times an epoch, for training on a random part of it each time.
    The order depends on ``seed`` alone, with worker processes or without. A last batch that is
    not full is left out, unless it is the only one.
    """
    workers = 0 if tensors.in_memory else min(4, os.cpu_count() or 1)
    return DataLoader(
        ConcatDataset([tensors] * parts),
        batch_size=min(batch_size, parts * len(tensors)),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_single_threaded,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )


def _single_threaded(_worker: int) -> None:
    """Workers are as many as cores already; OpenCV's threads would contend with them."""
    cv2.setNumThreads(0)
