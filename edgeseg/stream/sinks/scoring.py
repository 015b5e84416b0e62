"""Score a stream against ground-truth masks while it runs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import plural
from edgeseg.data.decode import load_ids
from edgeseg.data.sample import same_name
from edgeseg.errors import DatasetError, UsageError
from edgeseg.evaluation import Scores
from edgeseg.ops.preprocess import restore_labels
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus

logger = logging.getLogger(__name__)

_SLACK = 0.01
"""Share by which the shape of frames, and the number that a file states, may differ."""

_EVERY_S = 10.0
"""Seconds between two log messages with the running score."""


class Scoring(Sink):
    """Compares each frame with its mask, at the mask's own size, as ``edgeseg eval`` does.

    A frame that is a picture file has the mask of the same name, ``street.jpg`` →
    ``street.png``. Frame n of a video or camera has the n-th mask in order of their names; a
    source that goes on after its last mask begins with the first again, as a video in a loop
    does. Frames whose mask is missing are counted and not scored. A camera that was lost and
    came back may have left out frames, so that its numbers say nothing any more: it is scored
    no further.

    Masks that do not fit end the run: a score over other frames is none.

    Args:
        folder: ``*.png``, grey or indexed, values are class ids or the ignore value.
        classes: Those of the network.
    """

    essential = True

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        self.folder = folder
        self.unlabelled = 0
        self._classes = classes
        self._scores = Scores(classes)
        self._masks: list[Path] = []
        self._by_name: dict[str, Path] = {}
        self._sources: Sequence[SourceStatus] = ()
        self._unsure: set[int] = set()
        self._counted: set[int] = set()
        self._said_at = 0.0

    def __str__(self) -> str:
        return f"the comparison with {self.folder}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Look at each mask; raises UsageError where there are none, DatasetError for a bad one."""
        self._sources = sources
        self._masks = sorted(self.folder.glob("*.png"))
        if not self._masks:
            raise UsageError(
                f"{self.folder}: no *.png masks for --ground-truth",
                hint="give the folder of masks whose values are class ids, e.g. data/val/masks",
            )
        self._by_name = {same_name(path.stem): path for path in self._masks}
        for path in self._masks:
            self._read(path)
        self._said_at = time.monotonic()

    def write(self, result: StreamResult) -> None:
        """Compare a frame.

        Raises:
            DatasetError: The mask has another shape than the frame, or the source states a
                number of frames that the masks do not make up, once or several times.
        """
        path = self._mask_of(result)
        if path is None:
            self.unlabelled += 1
            return
        if result.name is None:
            self._check_number(result.camera)
        mask = self._read(path)
        _check_shape(path, mask, result)
        labels = restore_labels(result.labels, (mask.shape[0], mask.shape[1]), result.input)
        self._scores.add(mask, labels)
        if time.monotonic() - self._said_at >= _EVERY_S:
            self._said_at = time.monotonic()
            self._log_score("so far")

    def close(self) -> None:
        """Log the score."""
        self._log_score("in the end")

    @property
    def mean_iou(self) -> float | None:
        """So far; None before a labelled pixel was compared. May be asked in any thread."""
        value = self._scores.confusion.mean_iou
        return None if math.isnan(value) else value

    def to_dict(self) -> dict[str, Any] | None:
        """The metrics so far, as ``edgeseg eval`` gives them; None where nothing was scored."""
        if not self._scores.confusion.matrix.any():
            return None
        figures = self._scores.evaluation().to_dict()
        frames = figures.pop("images")
        del figures["objects"]
        return figures | {"frames": frames, "unlabelled": self.unlabelled}

    def _mask_of(self, result: StreamResult) -> Path | None:
        if result.name is not None:
            return self._by_name.get(same_name(Path(result.name).stem))
        if self._is_unsure(result.camera):
            return None
        return self._masks[result.index % len(self._masks)]

    def _is_unsure(self, camera: int) -> bool:
        """Whether numbers of frames still say which mask is theirs."""
        source = self._sources[camera]
        if source.reconnects and camera not in self._unsure:
            self._unsure.add(camera)
            logger.warning(
                "%s: was lost for a while, so its frames cannot be told apart by number; it is "
                "compared with %s no further",
                *(source.label, self.folder),
            )
        return camera in self._unsure

    def _check_number(self, camera: int) -> None:
        if camera in self._counted:
            return
        self._counted.add(camera)
        source, masks = self._sources[camera], len(self._masks)
        frames = source.declared
        if frames is not None:
            rounds = max(1, round(frames / masks))
            if abs(frames - rounds * masks) > _SLACK * frames:
                raise DatasetError(
                    f"{self.folder}: {masks} masks do not fit the {frames} frames of "
                    f"{source.label}",
                    hint="give a folder with one mask a frame, named in the order of the frames",
                )

    def _log_score(self, when: str) -> None:
        if self.mean_iou is not None:
            logger.info(
                "mean IoU %.4f %s, over %s",
                *(self.mean_iou, when, plural(self._scores.images, "frame")),
            )

    def _read(self, path: Path) -> NDArray[np.uint8]:
        mask = load_ids(path)
        counted = mask[mask != self._classes.ignore]
        if counted.size and counted.max() >= len(self._classes):
            raise DatasetError(
                f"{path} holds {counted.max()}; the network's ids are "
                f"0…{len(self._classes) - 1}, and {self._classes.ignore} to ignore",
                hint="give masks of the classes that the network knows",
            )
        return mask.astype(np.uint8, copy=False)


def _check_shape(path: Path, mask: NDArray[np.uint8], result: StreamResult) -> None:
    height, width = result.frame.shape[:2]
    tall, wide = mask.shape
    if abs(width * tall / (height * wide) - 1) > _SLACK:
        raise DatasetError(
            f"{path} is {wide}×{tall}, which is not the shape of the {width}×{height} frames",
            hint="make the masks from the pictures that are streamed",
        )
