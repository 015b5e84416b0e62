"""How results are drawn, as set by the stream's options and by keys in a window."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.errors import UsageError
from edgeseg.ops.names import draw_names, put, stamp, text_height
from edgeseg.ops.overlay import Look, draw_legend, overlay_restored
from edgeseg.ops.preprocess import inside


@dataclass(frozen=True)
class View:
    """Drawing settings.

    Attributes:
        opacity: Opacity of the classes, from 0 to 1.
        outline: Draw the outline of each region in its full colour.
        names: Write class names on regions that are large enough, if there are several classes
            besides the background.
        legend: Draw a legend of class colours and names in the upper left corner.
        hidden: Ids of classes that are not drawn.
        bare: Draw nothing at all.

    Raises:
        UsageError: ``opacity`` is not between 0 and 1.
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
        """Return a copy of the frame with these settings drawn on it.

        Args:
            frame: uint8 (H, W, 3) BGR; not modified.
            labels: Class ids, uint8 (height, width) at the size of ``spec``.
            classes: Class names and colours.
            spec: The network's input, which determines how ``labels`` map onto the frame.

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
        """Overlay settings for all classes; None if any class is hidden."""
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
        """Draw legend and names in place on a picture (H, W, 3) that shows the classes already."""
        taken = draw_legend(picture, classes, self.hidden) if self.legend else (0, 0)
        if self.names and len(classes) > 2:
            height, width = picture.shape[:2]
            draw_names(picture, inside(labels, (height, width), spec), classes.names, taken)
        return picture


def write_line(picture: NDArray[np.uint8], text: str, line: int = 0) -> None:
    """Write a line of text in place, ``line`` lines above the bottom."""
    written = stamp(text, text_height(picture))
    down = picture.shape[0] - (line + 1) * written[1].shape[0]
    put(picture, written, min(4, picture.shape[1] - 1), max(0, down))


def _table(hidden: AbstractSet[int]) -> NDArray[np.uint8]:
    """Lookup table that maps hidden ids to the background and keeps all others."""
    table = np.arange(256, dtype=np.uint8)
    table[list(hidden)] = 0
    return table
