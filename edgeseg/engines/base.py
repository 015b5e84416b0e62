"""Base class of all engines: context managers that turn float32 tensors into uint8 label maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.sidecar import ComputesIn
from edgeseg.engines.pipeline import CpuPipeline, FramePipeline
from edgeseg.errors import UsageError
from edgeseg.ops.preprocess import preprocess, restore_labels


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do.

    Attributes:
        batch: Fixed batch size; None if it is dynamic.
        largest_batch: Largest batch size if it is dynamic; None if there is no limit.
        frames_on_gpu: Whether it keeps whole frames on its GPU and paints them there. Set to
            False when :meth:`Engine.open_pipeline` finds no kernels for that GPU.
    """

    batch: int | None = None
    largest_batch: int | None = None
    frames_on_gpu: bool = False

    @property
    def max_batch(self) -> int | None:
        """Largest number of pictures per call; None if there is no limit."""
        return self.batch or self.largest_batch

    def takes(self, batch: int) -> bool:
        """Whether it accepts batches of this size."""
        if self.batch is not None:
            return batch == self.batch
        return self.largest_batch is None or batch <= self.largest_batch


class Engine(ABC):
    """A loaded network that turns preprocessed pictures into label maps.

    Not thread-safe: use one engine per thread, or call it from one thread at a time.

    Attributes:
        card: Description of the network; the only source of preprocessing parameters.
        path: The artefact it was loaded from.
        runtime: ``onnxruntime``, ``torch``, …
        capabilities: Batch sizes it takes, and whether it keeps whole frames on its GPU.
        computes_in: Actual precision of floating-point layers if the runtime chooses it, else
            None.
    """

    card: ModelCard
    path: Path
    runtime: str
    capabilities: Capabilities = Capabilities()
    computes_in: ComputesIn | None = None

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Compute the label maps of preprocessed pictures.

        Args:
            batch: float32 (N, C, height, width) as :func:`edgeseg.ops.preprocess` makes them;
                height and width may vary within the card's ``open_size``, if it has one.

        Returns:
            uint8 (N, height, width), class ids. Valid until the next call.

        Raises:
            UsageError: Shape or dtype does not match the card.
            InferenceError: The runtime failed.
        """
        spec, batch = self.card.input, np.asarray(batch)
        if batch.dtype != np.float32 or not spec.takes(batch.shape[1:]):
            others = f", or heights and widths in {spec.open_size}" if spec.open_size else ""
            raise UsageError(
                f"{self.path.name} takes float32 (N, {', '.join(map(str, spec.shape))}){others}, "
                f"not {batch.dtype} {batch.shape}"
            )
        fixed = self.capabilities.batch
        if fixed is not None and len(batch) != fixed:
            raise UsageError(f"{self.path.name} takes batches of {fixed}, not {len(batch)}")
        return self._infer(batch)

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute the label map of one picture at its original size.

        The picture is resized to the network's input, or cut into tiles if the card says so.

        Args:
            image: uint8 (H, W, 3) BGR or (H, W) grey, as OpenCV reads it.

        Returns:
            uint8 (H, W), class ids.
        """
        if self.card.input.tiles:
            from edgeseg.engines.tiles import segment_tiled  # which imports this module

            return segment_tiled(self, image)
        tensor = preprocess(image, self.card.input)
        # Repeated where the engine takes only batches.
        labels = self.infer(np.stack([tensor] * (self.capabilities.batch or 1)))[0]
        return restore_labels(labels, image.shape[:2], self.card.input)

    def open_pipeline(self) -> FramePipeline:
        """Open the stages around this engine, which turn frames into labels and painted frames.

        ``with engine.open_pipeline() as pipeline: result = pipeline.run([frame])``. Engines on a
        GPU keep the frame there where they can; the pipeline's ``on_gpu`` says whether.

        Raises:
            DeviceError: The GPU failed, or has not enough memory.
        """
        return CpuPipeline(self)

    def split(self, count: int, threads: int) -> Sequence[Engine]:  # noqa: ARG002
        """Open engines of the same network that run side by side; close each of them.

        Args:
            count: Number of engines; they share their weights.

        Returns:
            The engines; none if this one is not on the CPU, or was opened with a number of
            threads, which is then kept to.
        """
        return ()

    def warm_up(self, runs: int = 1) -> None:
        """Run on zeros, so that lazy allocations do not slow down the first picture."""
        zeros = np.zeros((self.capabilities.batch or 1, *self.card.input.shape), np.float32)
        for _ in range(runs):
            self.infer(zeros)

    @abstractmethod
    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Implement :meth:`infer` for a validated batch."""

    @abstractmethod
    def close(self) -> None:
        """Release the runtime's memory; calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
