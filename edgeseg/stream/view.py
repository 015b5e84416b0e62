"""How results are drawn, as set by the stream's options and by keys in a window."""

from __future__ import annotations

from dataclasses import dataclass

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
            spec: The network's input, which determines how ``labels`` map onto the frame.

        Returns:
            uint8 (H, W, 3) BGR, a new array.
        """
        look = self.look(classes)
        if look is None:
            return frame.copy()
        return self.write(overlay_restored(frame, labels, spec, look), labels, classes, spec)

    def look(self, classes: ClassMap) -> Look | None:
        """Return the style of the overlay; None if nothing is drawn."""
        if self.bare:
            return None
        return Look(classes.palette, self.opacity, self.outline, classes.clear | self.hidden)

    def write(
        self,
        picture: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        classes: ClassMap,
        spec: InputSpec,
    ) -> NDArray[np.uint8]:
        """Draw legend and names in place on a picture (H, W, 3) that shows the classes already."""
        taken = draw_legend(picture, classes, self.hidden) if self.legend else (0, 0)
        if self.names and len(classes) - len(classes.clear) > 1:
            height, width = picture.shape[:2]
            part = inside(labels, (height, width), spec)
            draw_names(picture, part, classes.names, taken, classes.clear | self.hidden)
        return picture


def write_line(picture: NDArray[np.uint8], text: str, line: int = 0) -> None:
    """Write a line of text in place, ``line`` lines above the bottom."""
    written = stamp(text, text_height(picture))
    down = picture.shape[0] - (line + 1) * written[1].shape[0]
    put(picture, written, min(4, picture.shape[1] - 1), max(0, down))
