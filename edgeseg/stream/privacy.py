"""Obscure what must not be recognised in a result before any output receives it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import UsageError
from edgeseg.ops.obscure import cover, obscure
from edgeseg.ops.preprocess import inside
from edgeseg.ops.zone import Zone, load_zone
from edgeseg.options.privacy import Privacy
from edgeseg.stream.result import Clocked, StreamResult, moment


class PrivacyFilter:
    """Changes frames in place: zones before the network, classes as results leave the stream.

    The network sees zones black as well, so that nothing behind one reaches label maps, regions or
    alerts.

    A place stays obscured for ``blur_hold`` seconds after the last label map that demands it, and
    in the following frame in any case, so that one map that misses a region does not uncover it.
    Pictures in a folder do not follow one another and hold nothing.

    A result without a label map of the network's size is black.

    Args:
        sources: The sources, in the order of ``StreamResult.camera``.

    Raises:
        UsageError: A class or a source does not exist, or a zone's file is missing.
        CorruptArtifact: A file holds no zone.
    """

    def __init__(self, options: Privacy, classes: ClassMap, sources: Sequence[Clocked]) -> None:
        self._sources = sources
        self._margin = options.blur_margin
        self._styles = options.styles(classes)
        self._held = [
            {style: _Held(ids, options.blur_hold) for style, ids in self._styles.items()}
            for _ in sources
        ]
        self._zones = [(load_zone(path), number) for path, number in options.zones()]
        self._covered = functools.lru_cache(maxsize=16)(self._make_covered)
        for _, number in self._zones:
            if number is not None and number >= len(sources):
                raise UsageError(
                    f"a zone to cover is on source {number}; the last one is {len(sources) - 1}",
                    hint="sources count from 0, in the order in which they were given",
                )

    @property
    def active(self) -> bool:
        """Whether there is anything to obscure."""
        return bool(self._styles or self._zones)

    def cover(self, result: StreamResult) -> None:
        """Paint the zones of a captured frame black; callable from several threads at once."""
        covered = self._covered(result.camera, *result.frame.shape[:2])
        if covered is not None:
            cover(_writable(result), covered)

    def apply(self, result: StreamResult) -> None:
        """Obscure the classes in a result, and discard the overlay that a GPU drew from it.

        What its label map demands is obscured, before it was smoothed or after.
        """
        if not self.active:
            return
        result.shown = None
        if result.card is None or result.labels.shape != result.input.shape[1:]:
            cover(_writable(result))
            return
        if not self._styles:
            return
        height, width = _writable(result).shape[:2]
        maps = [each for each in (result.labels, result.unsmoothed) if each is not None]
        labels = [inside(each, (height, width), result.input) for each in maps]
        now = None if result.name else moment(self._sources[result.camera], result)
        for style, held in self._held[result.camera].items():
            obscure(result.frame, held.update(labels, now), style, self._margin)

    def _make_covered(self, camera: int, height: int, width: int) -> NDArray[np.uint8] | None:
        """Mask of the zones on a source, uint8 (H, W); None without any."""
        zones: list[Zone] = [zone for zone, number in self._zones if number in (None, camera)]
        masks = [zone.mask(height, width) for zone in zones]
        return np.logical_or.reduce(masks).view(np.uint8) if masks else None


def _writable(result: StreamResult) -> NDArray[np.uint8]:
    if not result.frame.flags.carray:  # cannot be written to, or not by OpenCV
        result.frame = result.frame.copy()
    return result.frame


class _Held:
    """Where classes were seen of late, on the label map of one source."""

    def __init__(self, ids: Sequence[int], seconds: float) -> None:
        self._table = np.zeros(256, np.uint8)
        self._table[list(ids)] = 255
        self._seconds = seconds
        self._seen = np.empty((0, 0))
        self._before = np.inf

    def update(self, maps: Sequence[NDArray[np.uint8]], now: float | None) -> NDArray[np.uint8]:
        """Return what to obscure in a frame, uint8, not 0 there, at the size of the labels.

        Args:
            maps: Class ids, uint8 (h, w), of the part that the frame fills, each of which counts.
            now: Time of the frame in seconds; None if no frame comes before it.
        """
        wanted = [cv2.LUT(labels, self._table) for labels in maps]
        found = np.asarray(np.bitwise_or.reduce(wanted), np.uint8)
        if now is None:
            return found
        if self._seen.shape != found.shape:
            self._seen = self._fitted(found.shape)
        if now < self._before:  # a file that begins again: nothing may stay for ever
            np.minimum(self._seen, now, out=self._seen)
            self._before = now
        np.copyto(self._seen, now, where=found != 0)
        least = min(now - self._seconds, self._before)
        self._before = now
        return (self._seen >= least).view(np.uint8)

    def _fitted(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """What was seen, for frames of another shape from here on."""
        if not self._seen.size:
            return np.full(shape, -np.inf)
        resized = cv2.resize(self._seen, shape[::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, np.float64)
