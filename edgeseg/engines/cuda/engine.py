"""Base class of engines on a GPU, whose pipelines keep whole frames there."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from edgeseg.engines.base import Engine
from edgeseg.engines.cuda.device import Cuda
from edgeseg.engines.cuda.pipeline import GpuPipeline
from edgeseg.engines.cuda.stages import DeviceTensors
from edgeseg.engines.pipeline import FramePipeline
from edgeseg.errors import DeviceError, RuntimeMissing

logger = logging.getLogger(__name__)


class DeviceNetwork(Protocol):
    """A network between kernels, with fixed memory on the device.

    Attributes:
        stream: Stream on which it runs.
        graph: Whether a CUDA graph may capture it.
    """

    stream: int
    graph: bool

    def device_tensors(self, batch: int) -> DeviceTensors:
        """Input and output on the device; valid as long as the network is open."""

    def settle(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Prepare for an input of ``shape``; returns what a captured graph depends on."""

    def enqueue(self) -> bool:
        """Queue the network on ``stream``; returns False if its runtime refuses."""


class GpuEngine(Engine):
    """An engine on the first GPU.

    Attributes:
        cuda: The GPU.
    """

    cuda: Cuda
    _pipelines: tuple[FramePipeline, ...] = ()

    @abstractmethod
    def device_network(self, shape: tuple[int, ...]) -> DeviceNetwork:
        """Return the network for an input of ``shape`` (N, C, height, width).

        Raises:
            UsageError: The engine was closed, or takes no such input.
        """

    def open_pipeline(self) -> FramePipeline:
        """Like :meth:`Engine.open_pipeline`, on the GPU if there are kernels for it.

        Raises:
            UsageError: The engine was closed.
            DeviceError: The GPU failed, or has not enough memory.
        """
        self.device_network((self.capabilities.max_batch or 1, *self.card.input.shape))
        if not self.capabilities.frames_on_gpu:
            return super().open_pipeline()
        try:
            pipeline = GpuPipeline(self)
        except RuntimeMissing as error:
            self.capabilities = replace(self.capabilities, frames_on_gpu=False)
            logger.warning(
                "frames of %s are preprocessed and drawn on the processor, not on the GPU: %s",
                *(self.path.name, error.message),
            )
            return super().open_pipeline()
        self._pipelines = (*(each for each in self._pipelines if not each.closed), pipeline)
        return pipeline

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """Make the device current, and name the engine in its errors."""
        try:
            with self.cuda.current():
                yield
        except DeviceError as error:
            raise DeviceError(f"{self.path}: {error.message}", hint=error.hint) from error

    def _close_pipelines(self) -> None:
        """Close them before the memory that they use."""
        pipelines, self._pipelines = self._pipelines, ()
        for pipeline in pipelines:
            pipeline.close()
