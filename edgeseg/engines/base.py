"""What every engine is: a context manager from float32 tensors to uint8 label maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeseg.card import ModelCard
from edgeseg.engines.frames import CpuFrames, FrameJob, FrameRunner, check_job
from edgeseg.errors import UsageError
from edgeseg.ops.preprocess import preprocess, restore_labels
from edgeseg.sidecar import ComputesIn


class Engine(ABC):
    """A loaded network that turns preprocessed pictures into label maps.

    Not safe for concurrent calls: one thread at a time, or one engine a thread.

    Attributes:
        card: What the network is; the only source of preprocessing.
        path: The artefact it was loaded from.
        runtime: ``onnxruntime``, ``torch``, …
        batch: The only batch size it takes, None where any will do.
        largest_batch: The largest where it takes several, None where there is no limit.
        computes_in: What floating layers really compute in, where the runtime chooses that by
            itself; else None.
    """

    card: ModelCard
    path: Path
    runtime: str
    batch: int | None
    largest_batch: int | None = None
    computes_in: ComputesIn | None = None

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Label maps of preprocessed pictures.

        Args:
            batch: float32 (N, C, height, width) as :func:`edgeseg.ops.preprocess` makes them;
                of any height and width that the card's ``open_size`` allows, where it has one.

        Returns:
            uint8 (N, height, width), class ids. Valid until the next call.

        Raises:
            UsageError: Shape or dtype are not those of the card.
            InferenceError: The runtime failed.
        """
        spec = self.card.input
        if batch.dtype != np.float32 or not spec.takes(batch.shape[1:]):
            others = f", or heights and widths in {spec.open_size}" if spec.open_size else ""
            raise UsageError(
                f"{self.path.name} takes float32 (N, {', '.join(map(str, spec.shape))}){others}, "
                f"not {batch.dtype} {batch.shape}"
            )
        if self.batch is not None and len(batch) != self.batch:
            raise UsageError(f"{self.path.name} takes batches of {self.batch}, not {len(batch)}")
        return self._infer(batch)

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Label map of one picture at the picture's own size.

        Args:
            image: uint8 (H, W, 3) BGR or (H, W) grey, as OpenCV reads it.

        Returns:
            uint8 (H, W), class ids.
        """
        tensor = preprocess(image, self.card.input)
        labels = self.infer(tensor[np.newaxis])[0]
        return restore_labels(labels, image.shape[:2], self.card.input)

    def open_frames(self, job: FrameJob) -> FrameRunner:
        """Whole frames through this engine: labels, overlay and areas of batches of one size.

        ``with engine.open_frames(FrameJob(size=(720, 1280), look=look)) as frames:
        result = frames.run([frame])``. Engines on a GPU keep the frame there where they can;
        the runner's ``on_gpu`` says whether.

        Raises:
            UsageError: The engine takes no such batch.
            DeviceError: The GPU failed, or has not enough memory.
        """
        check_job(self, job)
        return CpuFrames(self, job)

    def warm_up(self, runs: int = 2) -> None:
        """Run on zeros, so that lazy allocations do not count against the first picture."""
        zeros = np.zeros((self.batch or 1, *self.card.input.shape), np.float32)
        for _ in range(runs):
            self.infer(zeros)

    @abstractmethod
    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        """:meth:`infer` for a batch that was checked."""

    @abstractmethod
    def close(self) -> None:
        """Release the runtime's memory; calling it twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
