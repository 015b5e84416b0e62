"""Measure the value in a frame that an alert rule is compared with."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.components import components
from edgeseg.ops.zone import Zone
from edgeseg.stream.alerts.rule import Unit
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.jsonlines import least_area


@dataclass(frozen=True, eq=False)
class _Patch:
    """A zone in a frame: its smallest rectangle, the pixels inside, and how many they are."""

    window: tuple[slice, slice]
    inside: NDArray[np.bool_]
    pixels: int


class Measure:
    """Measures one class in one zone.

    Args:
        label: Class id.
        unit: Unit of the value: ``%`` of the zone's pixels, ``px``, or ``regions``, the number
            of connected regions within the zone.
        zone: Zone to measure in; None for the whole frame.
        min_region: Smallest region that counts, as a share of the frame from 0 to 1.
    """

    def __init__(self, label: int, unit: Unit, zone: Zone | None, min_region: float = 0.0) -> None:
        self._label, self._unit, self._zone = label, unit, zone
        self._min_region = min_region
        self._patch = functools.lru_cache(maxsize=8)(self._make_patch)

    def of(self, result: StreamResult) -> float:
        """Return the value in ``unit``; nan if the zone covers no pixel of the frame."""
        height, width = result.frame.shape[:2]
        pixels = height * width
        if self._zone is None and self._unit != "regions":
            return self._scaled(int(result.areas()[self._label]), pixels)
        found = result.mask() == self._label
        if self._zone is not None:
            patch = self._patch(height, width)
            if not patch.pixels:
                return float("nan")
            found, pixels = found[patch.window] & patch.inside, patch.pixels
        if self._unit == "regions":
            least = least_area(self._min_region, height * width)
            return int(np.count_nonzero(components(found.view(np.uint8), 0).areas >= least))
        return self._scaled(int(np.count_nonzero(found)), pixels)

    def _scaled(self, count: int, pixels: int) -> float:
        return 100 * count / pixels if self._unit == "%" else count

    def _make_patch(self, height: int, width: int) -> _Patch:
        assert self._zone is not None
        inside = self._zone.mask(height, width)
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        if not rows.size:
            return _Patch((slice(0), slice(0)), inside[:0, :0], 0)
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return _Patch(window, inside[window].copy(), int(inside.sum()))
