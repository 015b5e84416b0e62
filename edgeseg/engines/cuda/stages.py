"""The GPU work for a batch of frames before and after the network.

Upload → preprocess → network → argmax (where the network gives logits) → areas → overlay →
download, all with fixed addresses, so that a CUDA graph can hold it. Two slots of page-locked
memory take turns: the caller fills one while the GPU works from the other. A GPU that shares its
memory with the processor works in these slots and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.cuda import arguments
from edgeseg.engines.cuda.device import Cuda
from edgeseg.engines.cuda.kernels import Kernels
from edgeseg.engines.cuda.memory import DeviceMemory, Pinned
from edgeseg.engines.frames import IN_FLIGHT, FrameJob
from edgeseg.ops.preprocess import Placement, nearest_indices, place


@dataclass(frozen=True)
class Network:
    """The network between the kernels: addresses and dtypes of its tensors.

    Attributes:
        card: The only source of preprocessing.
        input: Address of the tensor, (N, C, height, width).
        input_dtype: float32, float16 or uint8.
        output: Address of the labels, uint8 (N, height, width), or of the logits.
        output_dtype: uint8 for labels; float32, float16 or int8 for logits.
        classes: Planes of logits; None for labels.
    """

    card: ModelCard
    input: int
    input_dtype: np.dtype[Any]
    output: int
    output_dtype: np.dtype[Any]
    classes: int | None


@dataclass(frozen=True)
class Place:
    """An array on the host and where the device has it; copied unless that is the same memory."""

    host: Pinned
    device: int

    @property
    def shared(self) -> bool:
        """Whether nothing needs copying."""
        return self.host.device is not None


@dataclass(frozen=True)
class Slot:
    """Memory of one batch under way."""

    frames: Place
    labels: Place
    shown: Place | None
    areas: Place | None


class Stages:
    """The kernels of one job around one network, with all the memory they need.

    Args:
        memory: Owner of the allocations; the caller closes it.
        kernels: Kernels loaded on that GPU.
        network: The network, whose addresses must stay valid.
        job: Frame format and the results to compute.
        stream: Stream on which the tables are uploaded.

    Raises:
        DeviceError: Not enough memory.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        kernels: Kernels,
        network: Network,
        job: FrameJob,
        stream: int,
    ) -> None:
        self._cuda: Cuda = memory.cuda
        self._kernels, self._network, self._job = kernels, network, job
        self.slots = _slots(memory, network, job)
        spec = network.card.input
        self._region: Placement = place(job.size, spec)
        part = (self._region.height, self._region.width)
        taken = nearest_indices(part, job.size)
        sizes = list(zip(job.size, part, strict=True))
        upload = _Upload(memory, stream)
        self._table = upload(arguments.value_table(spec, network.input_dtype))
        self._taps = [upload(arguments.taps(frame, there)) for frame, there in sizes]
        self._taken = [upload(each) for each in taken]
        self._counts = [
            upload(arguments.counts(each, there))
            for each, (_, there) in zip(taken, sizes, strict=True)
        ]
        self._colours = upload(arguments.colours(job.look)) if job.look else 0
        upload.wait()

    def queue_before(self, slot: Slot, stream: int) -> None:
        """Queue upload and preprocessing."""
        if not slot.frames.shared:
            source = slot.frames.host
            self._cuda.copy_in(slot.frames.device, source.address, source.array.nbytes, stream)
        self.preprocess(slot, stream)

    def queue_after(self, slot: Slot, stream: int) -> None:
        """Queue all that follows the network, and the download."""
        self.label(slot, stream)
        self.count(slot, stream)
        self.overlay(slot, stream)
        for each in (slot.labels, slot.shown, slot.areas):
            if each is not None and not each.shared:
                host = each.host
                self._cuda.copy_out(host.address, each.device, host.array.nbytes, stream)

    def preprocess(self, slot: Slot, stream: int) -> None:
        """Queue the preprocessing of frames to the network's input."""
        spec, region = self._network.card.input, self._region
        of = arguments.Preprocess(
            self._picture(slot),
            *self._taps,
            self._table,
            self._network.input,
            *spec.shape,
            *(region.top, region.left, region.height, region.width),
            spec.color == "rgb",
            spec.reduce == "area",
        )
        self._kernels.preprocess(of, self._network.input_dtype, self._job.batch, stream)

    def label(self, slot: Slot, stream: int) -> None:
        """Queue the conversion of the network's output to labels, if it is not labels already."""
        network, spec = self._network, self._network.card.input
        pixels = spec.height * spec.width
        if network.classes is None:
            target, nbytes = slot.labels.device, self._job.batch * pixels
            if target != network.output:
                self._cuda.copy_within(target, network.output, nbytes, stream)
            return
        of = arguments.Argmax(network.output, slot.labels.device, network.classes, pixels)
        self._kernels.argmax(of, network.output_dtype, self._job.batch, stream)

    def count(self, slot: Slot, stream: int) -> None:
        """Queue the areas of the labels, if requested."""
        if slot.areas is None:
            return
        self._cuda.clear(slot.areas.device, slot.areas.host.array.nbytes, stream)
        labels = self._labels(slot, self._counts)
        region = self._region
        of = arguments.Areas(labels, slot.areas.device, region.height, region.width)
        self._kernels.areas(of, self._job.batch, stream)

    def overlay(self, slot: Slot, stream: int) -> None:
        """Queue the overlay of labels on frames, if requested."""
        if slot.shown is None or self._job.look is None:
            return
        on = arguments.Overlay(
            self._picture(slot),
            self._labels(slot, self._taken),
            self._colours,
            slot.shown.device,
            self._job.look.weight,
            self._job.look.outline,
        )
        self._kernels.overlay(on, self._job.batch, stream)

    def _picture(self, slot: Slot) -> arguments.Picture:
        layout: arguments.Layout = "gray" if self._job.grey else "bgr"
        return arguments.picture(slot.frames.device, self._job.size, layout)

    def _labels(self, slot: Slot, tables: Sequence[int]) -> arguments.Labels:
        spec, region = self._network.card.input, self._region
        first = slot.labels.device + region.top * spec.width + region.left
        return arguments.Labels(first, spec.width, spec.height * spec.width, *tables)


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


def _slots(memory: DeviceMemory, network: Network, job: FrameJob) -> list[Slot]:
    """As many as may be under way: host memory of their own; the device's is shared in turn."""
    spec = network.card.input
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "frames": (job.shape, np.uint8),
        "labels": ((spec.height, spec.width), np.uint8),
    }
    if job.look is not None:
        shapes["shown"] = ((*job.size, 3), np.uint8)
    if job.areas:
        shapes["areas"] = ((256,), np.uint32)
    mapped = memory.cuda.facts.integrated
    hosts = [
        {
            name: memory.pinned((job.batch, *shape), dtype, mapped=mapped)
            for name, (shape, dtype) in shapes.items()
        }
        for _ in range(IN_FLIGHT)
    ]
    device = {}
    if not mapped:
        device = {name: memory.device(host.array.nbytes) for name, host in hosts[0].items()}
        if network.classes is None:
            device["labels"] = network.output  # which is downloaded from where it is
    slots = []
    for host in hosts:
        places = {name: Place(each, each.device or device[name]) for name, each in host.items()}
        slots.append(
            Slot(places["frames"], places["labels"], places.get("shown"), places.get("areas"))
        )
    return slots
