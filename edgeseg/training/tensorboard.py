"""Write scalars and one prediction per epoch for TensorBoard.

::

    edgeseg train --data data --tensorboard
    tensorboard --logdir runs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import RuntimeMissing
from edgeseg.evaluation import Labelled
from edgeseg.options.training import TrainConfig
from edgeseg.training.plots import panels
from edgeseg.training.predictor import TorchEngine
from edgeseg.training.state import EpochStats

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writer of event files in the run folder; create it with :func:`open_board`."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def add(self, stats: EpochStats, engine: TorchEngine, pair: Labelled) -> None:
        """Write an epoch's statistics and one validation picture with truth and prediction."""
        scalars = {
            "train/loss": stats.loss,
            "train/learning_rate": stats.learning_rate,
            "val/mean_iou": stats.mean_iou,
            "val/pixel_accuracy": stats.pixel_accuracy,
        }
        if stats.gradient_norm is not None:
            scalars["train/gradient_norm"] = stats.gradient_norm
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, stats.epoch)
        shown = np.hstack(panels(engine, pair))[..., ::-1]
        self._writer.add_image("val/prediction", shown.copy(), stats.epoch, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def open_board(config: TrainConfig, epochs_done: int) -> Board | None:
    """Open a board if the configuration asks for one, else return None.

    A resumed training overwrites entries of an epoch that was interrupted.

    Raises:
        RuntimeMissing: TensorBoard is requested but not installed.
    """
    if not config.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeMissing(
            f"--tensorboard needs TensorBoard, which is not installed ({error})",
            hint="pip install 'edgeseg[train]', or omit --tensorboard",
        ) from error
    return Board(SummaryWriter(str(config.run), purge_step=epochs_done + 1))
