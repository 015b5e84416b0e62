"""The GPU work for a batch of frames before and after the network.

Upload → preprocess → network → argmax (if the network gives logits) → overlay → download, all
with fixed addresses, so that a CUDA graph can hold it. Two sets of page-locked buffers take turns:
the caller fills one while the GPU works from the other. A GPU that shares its memory with the
processor works in these buffers and copies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.cuda.device import Cuda
from edgeseg.engines.cuda.kernels import (
    Argmax,
    FrameBatch,
    Kernels,
    LabelMaps,
    Overlay,
    Preprocess,
    colours,
    packed_frames,
    taps,
    value_table,
)
from edgeseg.engines.cuda.memory import DeviceMemory, Pinned
from edgeseg.ops.overlay import Look
from edgeseg.ops.preprocess import Placement, nearest_indices, placement_of

IN_FLIGHT = 2
"""Number of batches that may be submitted before the first is collected."""


@dataclass(frozen=True)
class FrameJob:
    """What the kernels and their memory are for.

    Attributes:
        size: (H, W) of each frame.
        look: Style of the overlay; None for labels only.
    """

    size: tuple[int, int]
    batch: int = 1
    look: Look | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one frame, uint8 (H, W, 3) BGR."""
        return (*self.size, 3)


@dataclass(frozen=True)
class DeviceTensors:
    """Input and output of the network between the kernels.

    Attributes:
        card: The only source of preprocessing.
        input: Address of the input, float32 (N, C, height, width).
        output: Address of the labels, uint8 (N, height, width), or of the logits, float32
            (N, classes, height, width).
        classes: Planes of logits; None for labels.
    """

    card: ModelCard
    input: int
    output: int
    classes: int | None


@dataclass(frozen=True)
class MirroredBuffer:
    """An array on the host, and its address on the device; ``shared`` if both are one memory."""

    host: Pinned
    device: int

    @property
    def shared(self) -> bool:
        """Whether nothing needs copying."""
        return self.host.device is not None


@dataclass(frozen=True)
class BatchBuffers:
    """Memory of one batch in flight."""

    frames: MirroredBuffer
    labels: MirroredBuffer
    painted: MirroredBuffer | None


class Stages:
    """The kernels of one job around one network, with all the memory they need.

    Args:
        memory: Owner of the allocations; the caller closes it.
        network: Tensors of the network, whose addresses must stay valid.
        job: Frame format and the results to compute.
        stream: Stream on which the tables are uploaded.

    Raises:
        DeviceError: Not enough memory.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        kernels: Kernels,
        network: DeviceTensors,
        job: FrameJob,
        stream: int,
    ) -> None:
        self._cuda: Cuda = memory.cuda
        self._kernels, self._network, self._job = kernels, network, job
        self.buffers = _buffers(memory, network, job)
        spec = network.card.input
        self._region: Placement = placement_of(job.size, spec)
        part = (self._region.height, self._region.width)
        taken = nearest_indices(part, job.size)
        sizes = list(zip(job.size, part, strict=True))
        upload = _Upload(memory, stream)
        self._table = upload(value_table(spec))
        self._taps = [upload(taps(frame, there)) for frame, there in sizes]
        self._taken = [upload(each) for each in taken]
        self._colours = upload(colours(job.look)) if job.look else 0
        upload.wait()

    def queue_before(self, buffers: BatchBuffers, stream: int) -> None:
        """Queue upload and preprocessing."""
        if not buffers.frames.shared:
            source = buffers.frames.host
            self._cuda.copy_in(buffers.frames.device, source.address, source.array.nbytes, stream)
        self.preprocess(buffers, stream)

    def queue_after(self, buffers: BatchBuffers, stream: int) -> None:
        """Queue all that follows the network, and the download."""
        self.label(buffers, stream)
        self.overlay(buffers, stream)
        for each in (buffers.labels, buffers.painted):
            if each is not None and not each.shared:
                host = each.host
                self._cuda.copy_out(host.address, each.device, host.array.nbytes, stream)

    def preprocess(self, buffers: BatchBuffers, stream: int) -> None:
        """Queue the preprocessing of frames to the network's input."""
        spec, region = self._network.card.input, self._region
        of = Preprocess(
            self._frames(buffers),
            *self._taps,
            self._table,
            self._network.input,
            *spec.shape,
            *(region.top, region.left, region.height, region.width),
            spec.color == "rgb",
            spec.reduce == "area",
        )
        self._kernels.preprocess(of, self._job.batch, stream)

    def label(self, buffers: BatchBuffers, stream: int) -> None:
        """Queue the conversion of the network's output to labels, if it is not labels already."""
        network, spec = self._network, self._network.card.input
        pixels = spec.height * spec.width
        if network.classes is None:
            target, nbytes = buffers.labels.device, self._job.batch * pixels
            if target != network.output:
                self._cuda.copy_within(target, network.output, nbytes, stream)
            return
        of = Argmax(network.output, buffers.labels.device, network.classes, pixels)
        self._kernels.argmax(of, self._job.batch, stream)

    def overlay(self, buffers: BatchBuffers, stream: int) -> None:
        """Queue the overlay of labels on frames, if requested."""
        if buffers.painted is None or self._job.look is None:
            return
        on = Overlay(
            self._frames(buffers),
            self._labels(buffers),
            self._colours,
            buffers.painted.device,
            self._job.look.weight,
            self._job.look.outline,
        )
        self._kernels.overlay(on, self._job.batch, stream)

    def _frames(self, buffers: BatchBuffers) -> FrameBatch:
        return packed_frames(buffers.frames.device, self._job.size)

    def _labels(self, buffers: BatchBuffers) -> LabelMaps:
        spec, region = self._network.card.input, self._region
        first = buffers.labels.device + region.top * spec.width + region.left
        return LabelMaps(first, spec.width, spec.height * spec.width, *self._taken)


class _Upload:
    """Copies tables to the device; their page-locked copies are held until all are there."""

    def __init__(self, memory: DeviceMemory, stream: int) -> None:
        self._memory, self._stream = memory, stream
        self._held: list[Pinned] = []

    def __call__(self, table: NDArray[Any]) -> int:
        host = self._memory.pinned(table.shape, table.dtype)
        self._held.append(host)
        np.copyto(host.array, table)
        address = self._memory.device(table.nbytes)
        self._memory.cuda.copy_in(address, host.address, table.nbytes, self._stream)
        return address

    def wait(self) -> None:
        self._memory.cuda.synchronize(self._stream)
        self._held.clear()


def _buffers(memory: DeviceMemory, network: DeviceTensors, job: FrameJob) -> list[BatchBuffers]:
    """Buffers for all batches in flight: host memory of their own; the device's is shared."""
    spec = network.card.input
    shapes = {"frames": job.shape, "labels": (spec.height, spec.width)}
    if job.look is not None:
        shapes["painted"] = job.shape
    mapped = memory.cuda.facts.integrated
    hosts = [
        {
            name: memory.pinned((job.batch, *shape), np.uint8, mapped=mapped)
            for name, shape in shapes.items()
        }
        for _ in range(IN_FLIGHT)
    ]
    device = {}
    if not mapped:
        device = {name: memory.device(host.array.nbytes) for name, host in hosts[0].items()}
        if network.classes is None:
            device["labels"] = network.output  # which is downloaded from where it is
    found = []
    for host in hosts:
        pairs = {
            name: MirroredBuffer(each, each.device or device[name]) for name, each in host.items()
        }
        found.append(BatchBuffers(pairs["frames"], pairs["labels"], pairs.get("painted")))
    return found
