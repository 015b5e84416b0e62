"""Hand-written loops around an engine, for comparison.

They use the same engine as edgeseg's stream and take labels from the graph.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import handwritten
from handwritten import Picture, Steps

from edgeseg.engines.base import Engine

Shown = Callable[[Picture, Picture], bool]
"""Takes each frame and its overlay; returns whether to go on."""


def as_people_write_it(source: str, engine: Engine, shown: Shown) -> None:
    """Loop over a source with the steps of tutorials."""
    _loop(handwritten.as_people_write_it, source, engine, shown)


def with_care(source: str, engine: Engine, shown: Shown) -> None:
    """Loop over a source with the best that OpenCV offers for each step."""
    _loop(handwritten.with_care, source, engine, shown)


def _loop(
    make: Callable[[Mapping[str, Any]], Steps], source: str, engine: Engine, shown: Shown
) -> None:
    steps = make(engine.card.input.model_dump() | {"palette": engine.card.classes.palette})
    capture = cv2.VideoCapture(source)
    while (frame := capture.read()[1]) is not None:
        labels = engine.infer(steps.prepare(frame))[0]
        if not shown(frame, steps.draw(frame, labels)):
            break
    capture.release()
