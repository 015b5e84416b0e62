"""The PyTorch engine, which is the reference for all other engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg.artifacts.card import ModelCard
from edgeseg.engines.base import Engine
from edgeseg.errors import DeviceError, InferenceError, NonFiniteOutput
from edgeseg.models.mirror import same_size_logits
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.memory import out_of_memory


class TorchEngine(Engine):
    """Run a network in float32 with PyTorch, on the device of its weights.

    Each call switches the network to evaluation mode and back, so that a network can be evaluated
    during training.
    """

    runtime = "torch"

    def __init__(self, model: nn.Module, card: ModelCard, path: Path) -> None:
        self.card = card
        self.path = path
        self._model: nn.Module | None = model

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self._model is None:
            raise InferenceError(f"{self.path.name} was closed; open it again")
        device = next(self._model.parameters()).device
        training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                pictures = torch.from_numpy(np.ascontiguousarray(batch)).to(
                    device, memory_format=torch.channels_last
                )
                logits = same_size_logits(self._model, pictures)
                finite = bool(torch.isfinite(logits).all())
                labels = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        except RuntimeError as error:
            if out_of_memory(error):
                raise DeviceError(
                    f"{self.path.name} on {device}: a picture of {batch.shape[3]}x{batch.shape[2]} "
                    "needs more memory than is left",
                    hint="train again with a smaller --size, or with a smaller network (--width)",
                ) from error
            raise DeviceError(f"{self.path.name} on {device}: {error}") from error
        finally:
            self._model.train(training)
        if not finite:
            # argmax would turn NaN into a plausible class id.
            raise NonFiniteOutput(
                f"{self.path.name}: the logits hold NaN or infinity",
                hint="check the pictures; train again with a lower --learning-rate",
            )
        return np.asarray(labels, np.uint8)

    def close(self) -> None:
        """Release the network."""
        self._model = None


def open_torch(path: Path) -> TorchEngine:
    """Load a checkpoint onto the default device; raises the errors of ``load_checkpoint``."""
    model, card = load_checkpoint(path)
    return TorchEngine(to_default_device(model), card, Path(path))


def to_default_device(model: nn.Module) -> nn.Module:
    """Move a network to the default device, in the faster channels-last memory format."""
    model = model.to(default_device())
    # The stubs of Module.to lack this argument.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
