"""How results are drawn: what the stream's options say, and what a user switches in a window."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.card import ClassMap, InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops.names import draw_names, put, stamp, text_height
from edgeseg.ops.overlay import Look, draw_legend, overlay_restored
from edgeseg.ops.preprocess import inside


@dataclass(frozen=True)
class View:
    """What is drawn on a picture.

    Attributes:
        opacity: Of the classes, 0…1.
        outline: Draw the rim of each region in its full colour.
        names: Write the class names on the regions that have room, where there are several
            classes beside the background.
        legend: Names beside colours in the upper left corner.
        hidden: Class ids that are not drawn.
        bare: Nothing at all is drawn.

    Raises:
        UsageError: ``opacity`` is not within 0…1.
    """

    opacity: float = 0.5
    outline: bool = False
    names: bool = True
    legend: bool = True
    hidden: frozenset[int] = frozenset()
    bare: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"opacity is within 0 and 1, not {self.opacity}")

    def draw(
        self,
        frame: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        classes: ClassMap,
        spec: InputSpec,
    ) -> NDArray[np.uint8]:
        """The frame with all of this on it.

        Args:
            frame: uint8 (H, W, 3) BGR; stays as it is.
            labels: uint8 (height, width) of ``spec``, class ids.
            classes: Names and colours of the ids.
            spec: The network's input, which says how ``labels`` lie on the frame.

        Returns:
            uint8 (H, W, 3) BGR, a new array.
        """
        if self.bare:
            return frame.copy()
        if self.hidden:
            labels = np.asarray(cv2.LUT(labels, _table(self.hidden)), np.uint8)
        look = Look(classes.palette, self.opacity, self.outline)
        return self.write(overlay_restored(frame, labels, spec, look), labels, classes, spec)

    def look(self, classes: ClassMap) -> Look | None:
        """How all classes are laid over a frame; None where some or all are not."""
        if self.bare or self.hidden:
            return None
        return Look(classes.palette, self.opacity, self.outline)

    def write(
        self,
        picture: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        classes: ClassMap,
        spec: InputSpec,
    ) -> NDArray[np.uint8]:
        """Legend and names on a picture (H, W, 3) that has the classes on it already; in place."""
        taken = draw_legend(picture, classes, self.hidden) if self.legend else (0, 0)
        if self.names and len(classes) > 2:
            height, width = picture.shape[:2]
            draw_names(picture, inside(labels, (height, width), spec), classes.names, taken)
        return picture


def write_line(picture: NDArray[np.uint8], text: str, line: int = 0) -> None:
    """Write a line of text at the bottom, ``line`` lines up, in place."""
    written = stamp(text, text_height(picture))
    down = picture.shape[0] - (line + 1) * written[1].shape[0]
    put(picture, written, min(4, picture.shape[1] - 1), max(0, down))


def _table(hidden: AbstractSet[int]) -> NDArray[np.uint8]:
    """Ids to ids, hidden ones to the background."""
    table = np.arange(256, dtype=np.uint8)
    table[list(hidden)] = 0
    return table
