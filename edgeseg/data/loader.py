"""Labelled pictures as the tensors that training takes."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from edgeseg.card import ClassMap, InputSpec
from edgeseg.console import Track, silent
from edgeseg.data.borders import border_weights
from edgeseg.data.folders import Split
from edgeseg.data.instances import Touching, class_mask
from edgeseg.data.sample import Sample, load_instances, load_sample
from edgeseg.ops.preprocess import fit_mask, place, preprocess

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where processes hand tensors to each other."""

_AHEAD = 2

MEMORY_LIMIT = 1 << 30
"""Bytes of tensors up to which a split is prepared once and kept, 1 GiB."""


@dataclass(frozen=True)
class Objects:
    """What the labels say of single objects; see ``Recipe`` in :mod:`edgeseg.training.recipe`."""

    touching: Touching = "merged"
    border_weight: float = 0.0
    border_sigma: float = 5.0

    @property
    def needed(self) -> bool:
        """Whether object ids are read at all."""
        return self.touching != "merged" or self.border_weight > 0


class Example(NamedTuple):
    """One picture as training takes it.

    ``picture`` is float32 (C, H, W), ``mask`` uint8 (H, W), ``borders`` float32 (H, W).
    """

    picture: Tensor
    mask: Tensor
    borders: Tensor | None


class Batch(NamedTuple):
    """Several of them: float32 (N, C, H, W), integers (N, H, W) and float32 (N, H, W)."""

    pictures: Tensor
    masks: Tensor
    borders: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        borders = None if self.borders is None else self.borders.to(device)
        return Batch(self.pictures.to(device), self.masks.to(device), borders)


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


def object_labels(
    sample: Sample, mask: NDArray[np.uint8], classes: ClassMap, spec: InputSpec, objects: Objects
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """The labels of a picture that knows its objects, worked out at the network's size.

    There, since a gap of a pixel would be lost when a large mask is made smaller, and since
    ``border_sigma`` is in the pixels that the network sees.

    Args:
        sample: Has ``instances``.
        mask: Of :func:`training_tensor`.
        classes: Classes of the network.
        spec: Input of the network.
        objects: What to say of them.

    Returns:
        The mask, uint8 (height, width), with touching objects parted as asked; and the border
        weights, float32 (height, width), None where their weight is 0.

    Raises:
        DatasetError: The sample has no objects, or their file is bad.
    """
    ids = _fit_ids(load_instances(sample), spec)
    labels = class_mask(ids, classes, objects.touching)
    if sample.mask is None:
        mask = np.where(mask == classes.ignore, mask, labels)
    elif objects.touching != "merged":
        between = (ids > 0) & (labels != 1) & (mask != classes.ignore)
        mask = np.where(between, labels, mask)
    if objects.border_weight <= 0:
        return mask, None
    # What was taken off the objects lies between them now, where the weights are highest.
    parted = np.where(labels == 1, ids, 0)
    return mask, border_weights(parted, objects.border_weight, objects.border_sigma)


class LabelledTensors(Dataset[Example]):
    """The training tensors of a split: kept in memory if they fit, else made at each access.

    Args:
        split: Pictures and masks.
        classes: Classes of the network.
        spec: Input of the network.
        objects: What the labels say of single objects.
        memory_limit: Bytes up to which all are kept.
        track: Progress of preparing them.
    """

    def __init__(
        self,
        split: Split,
        classes: ClassMap,
        spec: InputSpec,
        *,
        objects: Objects = Objects(),
        memory_limit: int = MEMORY_LIMIT,
        track: Track = silent,
    ) -> None:
        self._samples = split.samples
        self._classes = classes
        self._spec = spec
        self._objects = objects
        channels, height, width = spec.shape
        self.picture_bytes = height * width * (4 * channels + (5 if objects.border_weight else 1))
        self._kept: list[Example] | None = None
        if len(split) * self.picture_bytes <= memory_limit:
            numbers = track(range(len(split)), "prepare pictures", len(split))
            self._kept = [self._make(number) for number in numbers]

    @property
    def in_memory(self) -> bool:
        """Whether all were prepared once and are kept."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Example:
        return self._make(number) if self._kept is None else self._kept[number]

    def masks(self) -> Iterator[Tensor]:
        """Each picture's mask, uint8 (H, W)."""
        return (self[number].mask for number in range(len(self)))

    def _make(self, number: int) -> Example:
        sample = self._samples[number]
        picture, mask = training_tensor(sample, self._classes, self._spec)
        borders = None
        if self._objects.needed:
            mask, borders = object_labels(sample, mask, self._classes, self._spec, self._objects)
        return Example(
            torch.from_numpy(picture),
            torch.from_numpy(mask),
            None if borders is None else torch.from_numpy(borders),
        )


class Order(Sampler[list[int]]):
    """Which pictures make which batch: shuffled anew each epoch, by seed and epoch alone.

    An epoch is a number of steps of ``accumulate`` batches each. Pictures that do not fill a
    last step are left out, unless it is the only one.

    Args:
        pictures: How many there are.
        batch_size: Pictures a batch, over all processes together.
        accumulate: Batches a step.
        parts: How often a picture comes in an epoch.
        seed: Of the order.
        share: (rank, number of processes): each takes its part of every batch.
    """

    def __init__(
        self,
        pictures: int,
        batch_size: int,
        *,
        accumulate: int = 1,
        parts: int = 1,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.epoch = 1
        self._pictures = pictures
        self._total = pictures * parts
        self._batch_size = min(batch_size, self._total)
        self._step = min(batch_size * accumulate, self._total)
        self._seed = seed
        self._share = share

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self._total // self._step

    @property
    def passes(self) -> int:
        """Batches a step."""
        return -(-self._step // self._batch_size)

    @property
    def largest(self) -> int:
        """Pictures of the largest batch, the largest part that a process takes of it."""
        return -(-self._batch_size // self._share[1])

    @property
    def smallest(self) -> int:
        """Pictures of the smallest batch, the part of this process."""
        rank, processes = self._share
        last = self._step - (self.passes - 1) * self._batch_size
        return len(range(rank, last, processes))

    def __len__(self) -> int:
        return self.steps * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        rank, processes = self._share
        numbers = list(range(self._total))
        random.Random(f"{self._seed} {self.epoch}").shuffle(numbers)
        order = [number % self._pictures for number in numbers]
        for start in range(0, self.steps * self._step, self._step):
            step = order[start : start + self._step]
            for first in range(0, self._step, self._batch_size):
                yield step[first : first + self._batch_size][rank::processes]


def batches(tensors: LabelledTensors, order: Order) -> DataLoader[Batch]:
    """The batches of one epoch after the other; the same with worker processes or without."""
    workers = 0 if tensors.in_memory else _workers(tensors.picture_bytes * order.largest)
    return DataLoader(
        tensors,  # type: ignore[arg-type]  # what collate makes of the examples are batches
        batch_sampler=order,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_single_threaded,
        pin_memory=torch.cuda.is_available(),
        # Its own, since it draws a seed for workers, with or without any; the order needs none.
        generator=torch.Generator(),
    )


def _workers(batch_bytes: int) -> int:
    """How many processes read pictures: as many as there are cores for, and shared memory.

    Without the latter the main process reads them itself, which takes longer and ends.
    """
    wanted = min(4, os.cpu_count() or 1)
    if not SHARED_MEMORY.is_dir():
        return wanted
    free = shutil.disk_usage(SHARED_MEMORY).free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # PyTorch has each of them make two batches ahead, and one more is in use.
    fitting = (free // batch_bytes - 1) // _AHEAD
    if fitting >= wanted:
        return wanted
    log.warning(
        "%s has %d MiB free, and a batch takes %d MiB: %d of %d processes read pictures ahead, so "
        "the training takes longer; give it more with `docker run --shm-size 1g`, or with `mount "
        "-o remount,size=1G %s`",
        *(SHARED_MEMORY, free >> 20, -(-batch_bytes >> 20), max(0, fitting), wanted, SHARED_MEMORY),
    )
    return max(0, fitting)


def _collate(examples: Sequence[Example]) -> Batch:
    pictures, masks, borders = zip(*examples, strict=True)
    weighted = None if borders[0] is None else torch.stack(borders)
    batch = Batch(torch.stack(pictures), torch.stack(masks), weighted)
    if get_worker_info() is not None:
        # Here, where the main process hears of a lack of shared memory. The thread that sends
        # the batch would move it there as well, and what fails in it keeps all waiting for ever.
        for tensor in batch:
            if tensor is not None:
                tensor.share_memory_()
    return batch


def _fit_ids(ids: NDArray[np.int32], spec: InputSpec) -> NDArray[np.int32]:
    """Object ids at the network's size, as ``fit_mask`` does classes; 0 on a letterbox."""
    placement = place(ids.shape[:2], spec)
    fitted = np.zeros((spec.height, spec.width), np.int32)
    size = (placement.width, placement.height)
    fitted[placement.region] = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return fitted


def _single_threaded(_worker: int) -> None:
    """Workers are as many as cores already; OpenCV's threads would contend with them."""
    cv2.setNumThreads(0)
