"""Count nuclei by a threshold and by networks, for the demo.

On the pixels of these pictures a threshold does nearly as well as a network. It cannot tell
touching nuclei apart, which shows when they are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.folders import load_image, load_instances, read_split
from edgeseg.engines.base import Engine
from edgeseg.loading import load
from edgeseg.objects import ObjectScores, components, predicted_objects, score_objects

Counter = Callable[[NDArray[np.uint8]], NDArray[np.int32]]
"""Finds the objects in a picture uint8 (H, W, 3) BGR: ids int32 (H, W), 0 for the background."""


def otsu(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Segment a picture by its own threshold (Otsu 1979), after a slight blur.

    Args:
        image: uint8 (H, W, 3), BGR.

    Returns:
        uint8 (H, W): 1 on the side of the threshold that has fewer pixels.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.5)
    _, bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(1 - bright if bright.mean() > 0.5 else bright, np.uint8)


def count(networks: Mapping[str, Path], data: Path) -> tuple[dict[str, ObjectScores], bytes]:
    """Count the objects of the validation pictures by Otsu's threshold and by ``networks``.

    Args:
        networks: Name and file of each network.
        data: Data set with maps of its objects.

    Returns:
        The scores by name, ``threshold`` first, and a PNG: the most crowded part of a picture, as
        it is, with the true outlines, and with those that each way found, counted.

    Raises:
        EdgesegError: A network or picture cannot be read.
    """
    samples = [(load_image(s.image), load_instances(s)) for s in read_split(data, "val")]
    scores: dict[str, ObjectScores] = {}
    image, truth = max(samples, key=lambda sample: int(sample[1].max()))
    window = _most_crowded(truth)
    part = _stretched(image[window])
    panels = [_panel("picture", part), _panel("truth", part, truth[window])]
    with ExitStack() as stack:
        for name, counter in _counters(networks, stack).items():
            found = [score_objects(ids, counter(picture)) for picture, ids in samples]
            scores[name] = sum(found[1:], start=found[0])
            panels.append(_panel(name, part, counter(image)[window]))
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    row = [each for panel in panels for each in (panel, gap)][:-1]
    return scores, cv2.imencode(".png", np.hstack(row))[1].tobytes()


def _counters(networks: Mapping[str, Path], stack: ExitStack) -> dict[str, Counter]:
    engines = {name: stack.enter_context(load(path)) for name, path in networks.items()}
    counters: dict[str, Counter] = {"threshold": lambda picture: components(otsu(picture))}
    return counters | {name: partial(_found, engine) for name, engine in engines.items()}


def _found(engine: Engine, picture: NDArray[np.uint8]) -> NDArray[np.int32]:
    return predicted_objects(engine.segment(picture), engine.card.classes)


def _most_crowded(ids: NDArray[np.int32]) -> tuple[slice, slice]:
    """Return the square with most objects, of half the picture's shorter side."""
    height, width = ids.shape
    side = min(height, width) // 2
    steps = range(0, max(height, width) - side + 1, max(1, side // 8))
    corners = [(y, x) for y in steps for x in steps if y + side <= height and x + side <= width]
    windows = [np.s_[top : top + side, left : left + side] for top, left in corners]
    return max(windows, key=lambda window: np.unique(ids[window]).size)


def _stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spread the brightness over the whole range; fluorescent pictures are dark."""
    low, high = np.percentile(image, (1, 99.8))
    spread = (image - low) * (255 / max(high - low, 1))
    return np.asarray(spread.clip(0, 255), np.uint8)


def _panel(
    title: str, image: NDArray[np.uint8], ids: NDArray[np.int32] | None = None, side: int = 260
) -> NDArray[np.uint8]:
    """Draw a titled square of ``side`` pixels, with the outline of each of the objects ``ids``."""
    drawn = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    if ids is not None:
        found = np.unique(ids[ids > 0])
        title = f"{title}: {found.size}"
        large = cv2.resize(ids.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
        for each in found:
            lines, _ = cv2.findContours(
                (large == each).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(drawn, lines, -1, (0, 220, 255), 1, cv2.LINE_AA)
    panel = np.full((side + 24, side, 3), 255, np.uint8)
    panel[24:] = drawn
    cv2.putText(panel, title, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return panel
