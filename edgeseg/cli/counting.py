"""Count nuclei by a threshold and by networks, for the demo.

On the pixels of these pictures a threshold does nearly as well as a network. It cannot tell
touching nuclei apart, which shows when they are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.folders import load_image, load_instances, read_split
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
        The scores by name, ``threshold`` first, and a PNG of the picture with most objects: as
        it is, with the true outlines, and with those that each way found.

    Raises:
        EdgesegError: A network or picture cannot be read.
    """
    samples = [(load_image(s.image), load_instances(s)) for s in read_split(data, "val")]
    scores: dict[str, ObjectScores] = {}
    image, truth = max(samples, key=lambda sample: int(sample[1].max()))
    panels = [("picture", image), ("truth", _outlined(image, truth))]
    with ExitStack() as stack:
        for name, counter in _counters(networks, stack).items():
            found = [score_objects(ids, counter(picture)) for picture, ids in samples]
            scores[name] = sum(found[1:], start=found[0])
            panels.append((name, _outlined(image, counter(image))))
    return scores, _side_by_side(panels)


def _counters(networks: Mapping[str, Path], stack: ExitStack) -> dict[str, Counter]:
    counters: dict[str, Counter] = {"threshold": lambda picture: components(otsu(picture))}
    for name, path in networks.items():
        engine = stack.enter_context(load(path))
        counters[name] = lambda picture, engine=engine: predicted_objects(  # type: ignore[misc]
            engine.segment(picture), engine.card.classes
        )
    return counters


def _outlined(image: NDArray[np.uint8], ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Draw the outline of each object, so that touching ones are seen apart or as one."""
    drawn = image.copy()
    for each in range(1, int(ids.max()) + 1):
        lines, _ = cv2.findContours(
            (ids == each).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, lines, -1, (0, 220, 255), 1)
    return drawn


def _side_by_side(panels: list[tuple[str, NDArray[np.uint8]]], side: int = 300) -> bytes:
    """Draw titled panels in a row, each ``side`` pixels high, and encode them as PNG."""
    columns = []
    for title, image in panels:
        width = round(image.shape[1] * side / image.shape[0])
        panel = np.full((side + 24, width, 3), 255, np.uint8)
        panel[24:] = cv2.resize(image, (width, side), interpolation=cv2.INTER_CUBIC)
        cv2.putText(panel, title, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [panel, np.full((side + 24, 6, 3), 255, np.uint8)]
    return bytes(cv2.imencode(".png", np.hstack(columns[:-1]))[1].tobytes())
