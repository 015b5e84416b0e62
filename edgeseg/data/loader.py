"""Load labelled pictures as batches of training tensors."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.console import Track, silent
from edgeseg.data.decode import load_header, load_image
from edgeseg.data.folders import Split
from edgeseg.data.instances import border_weights, class_mask
from edgeseg.data.sample import Sample, load_instances, load_sample
from edgeseg.ops.preprocess import fit_mask, placement_of, preprocess
from edgeseg.options.training import Objects
from edgeseg.tiling import cover, cut

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Shared memory in which processes pass tensors."""

_AHEAD = 2

Corner = tuple[int, int]
"""(top, left) of a tile."""

MEMORY_LIMIT = 1 << 30
"""Maximum bytes of tensors to cache per split, 1 GiB."""


class Example(NamedTuple):
    """One training example.

    ``picture`` is float32 (C, H, W), ``mask`` uint8 (H, W), ``borders`` float32 (H, W).
    """

    picture: Tensor
    mask: Tensor
    borders: Tensor | None


class Batch(NamedTuple):
    """Several examples: float32 (N, C, H, W), integers (N, H, W) and float32 (N, H, W).

    ``scores`` are those of a teacher, float (N, classes, H, W).
    """

    pictures: Tensor
    masks: Tensor
    borders: Tensor | None
    scores: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to another device."""
        borders, scores = (
            None if each is None else each.to(device) for each in (self.borders, self.scores)
        )
        return Batch(self.pictures.to(device), self.masks.to(device), borders, scores)


def training_tensor(
    sample: Sample, classes: ClassMap, spec: InputSpec
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make the tensors of a sample, before augmentation.

    Returns:
        The picture after ``preprocess``, float32 (C, height, width), identical to that of
        evaluation, calibration and streaming; and the mask, uint8 (height, width).
    """
    image, mask = load_sample(sample, classes)
    return preprocess(image, spec), fit_mask(mask, spec, classes.ignore)


def object_labels(
    sample: Sample, mask: NDArray[np.uint8], classes: ClassMap, spec: InputSpec, objects: Objects
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Compute mask and border weights from a sample's object map, at the network's size.

    Not at the picture's size: a gap of one pixel would be lost when a large mask is scaled down,
    and ``border_sigma`` is in pixels of the network's input.

    Args:
        sample: Sample with ``instances``.
        mask: Mask from :func:`training_tensor`.
        objects: Settings for labels of single objects.

    Returns:
        The mask, uint8 (height, width), with touching objects separated as requested; and the
        border weights, float32 (height, width), or None if their weight is 0.

    Raises:
        DatasetError: The sample has no object map, or the file is invalid.
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
    # Pixels removed from objects now lie between them, where the weights are highest.
    parted = np.where(labels == 1, ids, 0)
    return mask, border_weights(parted, objects.border_weight, objects.border_sigma)


class LabelledTensors(Dataset[Example]):
    """The training tensors of a split, cached if they fit in memory, else made on each access.

    Each picture is one example, or several if the network takes ``tiles``: as few as cover it.

    Args:
        objects: Settings for labels of single objects.
        memory_limit: Maximum bytes to cache.
        track: Progress callback while filling the cache.
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
        self._classes = classes
        self._spec = spec
        self._objects = objects
        channels, height, width = spec.shape
        self.picture_bytes = height * width * (4 * channels + (5 if objects.border_weight else 1))
        # Tiles are kept as uint8, since those of large pictures are many.
        kept_bytes = self.picture_bytes - (4 * channels - 3) * height * width * spec.tiles
        self._places = [(sample, corner) for sample in split for corner in _corners(sample, spec)]
        self._kept: list[Example] | None = None
        if len(self._places) * kept_bytes <= memory_limit:
            samples = track(split, "prepare pictures", len(split))
            self._kept = [made for sample in samples for made in self._make(sample)]

    @property
    def in_memory(self) -> bool:
        """Whether all tensors are cached."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Example:
        example = self._make(*self._places[number])[0] if self._kept is None else self._kept[number]
        if not self._spec.tiles:
            return example
        pixels = np.ascontiguousarray(example.picture.permute(1, 2, 0).numpy())
        return example._replace(picture=torch.from_numpy(preprocess(pixels, self._spec)))

    def masks(self) -> Iterator[Tensor]:
        """Yield each picture's mask, uint8 (H, W)."""
        return (self[number].mask for number in range(len(self)))

    def _make(self, sample: Sample, corner: Corner | None = None) -> list[Example]:
        """Make the example of a picture, or those of its tiles: the one at ``corner``, or all."""
        spec = self._spec
        if not spec.tiles:
            picture, mask = training_tensor(sample, self._classes, spec)
            return [_example(picture, *self._labels(sample, mask, spec))]
        image, mask = load_sample(sample, self._classes)
        whole = spec.model_copy(update={"height": image.shape[0], "width": image.shape[1]})
        mask, borders = self._labels(sample, mask, whole)
        pixels, tile = np.moveaxis(image, -1, 0), (spec.height, spec.width)
        corners = _corners(sample, spec) if corner is None else [corner]
        return [
            _example(
                cut(pixels, each, tile),
                cut(mask, each, tile),
                None if borders is None else cut(borders, each, tile),
            )
            for each in corners
        ]

    def _labels(
        self, sample: Sample, mask: NDArray[np.uint8], spec: InputSpec
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        if not self._objects.needed:
            return mask, None
        return object_labels(sample, mask, self._classes, spec, self._objects)


def _example(
    picture: NDArray[Any], mask: NDArray[np.uint8], borders: NDArray[np.float32] | None
) -> Example:
    weights = None if borders is None else torch.from_numpy(borders)
    return Example(torch.from_numpy(picture), torch.from_numpy(mask), weights)


def _corners(sample: Sample, spec: InputSpec) -> list[Corner]:
    """Corners of the tiles of a picture; one where pictures are resized."""
    if not spec.tiles:
        return [(0, 0)]
    header = load_header(sample.image)
    size = header.shown if header else load_image(sample.image).shape[:2]
    return cover(size, (spec.height, spec.width))


class Order(Sampler[list[int]]):
    """Batch sampler that reshuffles each epoch, depending only on seed and epoch.

    An epoch consists of steps of ``accumulate`` batches each. An incomplete last step is dropped,
    unless it is the only one.

    Args:
        batch_size: Pictures per batch, summed over all processes.
        parts: Number of times each picture occurs per epoch.
        seed: Random seed of the order.
        share: (rank, number of processes); each process takes its share of every batch.
        unlabelled: Number of unlabelled pictures, which are numbered after the labelled ones. Each
            epoch draws as many of them as there are labelled ones, at most.
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
        unlabelled: int = 0,
    ) -> None:
        self.epoch = 1
        self._pictures = pictures
        self._unlabelled = unlabelled
        self._parts = parts
        self._total = (pictures + min(pictures, unlabelled)) * parts
        self._batch_size = min(batch_size, self._total)
        self._step = min(batch_size * accumulate, self._total)
        self._seed = seed
        self._share = share

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self._total // self._step

    @property
    def passes(self) -> int:
        """Batches per step."""
        return -(-self._step // self._batch_size)

    @property
    def largest(self) -> int:
        """Size of the largest batch of any process."""
        return -(-self._batch_size // self._share[1])

    @property
    def smallest(self) -> int:
        """Size of this process's smallest batch."""
        rank, processes = self._share
        last = self._step - (self.passes - 1) * self._batch_size
        return len(range(rank, last, processes))

    def __len__(self) -> int:
        return self.steps * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        rank, processes = self._share
        drawing = random.Random(f"{self._seed} {self.epoch}")
        others = range(self._pictures, self._pictures + self._unlabelled)
        drawn = drawing.sample(others, min(self._pictures, self._unlabelled))
        order = [*range(self._pictures), *drawn] * self._parts
        drawing.shuffle(order)
        for start in range(0, self.steps * self._step, self._step):
            step = order[start : start + self._step]
            for first in range(0, self._step, self._batch_size):
                yield step[first : first + self._batch_size][rank::processes]


class Examples(Protocol):
    """Examples that :func:`batches` loads, such as :class:`LabelledTensors`."""

    @property
    def in_memory(self) -> bool: ...  # noqa: D102 - as there

    @property
    def picture_bytes(self) -> int: ...  # noqa: D102 - as there

    def __getitem__(self, number: int) -> Example: ...


def batches(tensors: Examples, order: Order) -> DataLoader[Batch]:
    """Make a data loader; worker processes are used if the tensors are not cached."""
    workers = 0 if tensors.in_memory else _workers(tensors.picture_bytes * order.largest)
    return DataLoader(
        tensors,  # type: ignore[arg-type]  # collate turns examples into batches
        batch_sampler=order,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_single_threaded,
        pin_memory=torch.cuda.is_available(),
        # A private one: DataLoader draws a worker seed from it even without workers.
        generator=torch.Generator(),
    )


def _workers(batch_bytes: int) -> int:
    """Choose the number of reader processes, limited by cores and shared memory.

    If shared memory is too small, the main process reads the pictures itself, more slowly.
    """
    wanted = min(4, os.cpu_count() or 1)
    if not SHARED_MEMORY.is_dir():
        return wanted
    free = shutil.disk_usage(SHARED_MEMORY).free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # PyTorch makes each worker prefetch two batches, and one more is in use.
    fitting = (free // batch_bytes - 1) // _AHEAD
    if fitting >= wanted:
        return wanted
    logger.warning(
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
        # Here, so that the main process sees an error if shared memory is full. The sender thread
        # would do it otherwise, and a failure there would hang all processes.
        for tensor in batch:
            if tensor is not None:
                tensor.share_memory_()
    return batch


def _fit_ids(ids: NDArray[np.int32], spec: InputSpec) -> NDArray[np.int32]:
    """Resize object ids to the network's size like ``fit_mask``; 0 on a letterbox border."""
    placement = placement_of(ids.shape[:2], spec)
    fitted = np.zeros((spec.height, spec.width), np.int32)
    size = (placement.width, placement.height)
    fitted[placement.region] = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return fitted


def _single_threaded(_worker: int) -> None:
    """Turn off OpenCV's threads, as there are already as many workers as cores."""
    cv2.setNumThreads(0)
