"""What was seen in each frame, as lines of JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from edgeseg.ops.regions import Region, check_min_region, least_area
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus, StateChange, StateChanges, StopStream
from edgeseg.stream.sinks.lines import Lines, time_stamp
from edgeseg.stream.sinks.retention import Budget, Rotation


class JsonLines(Sink):
    """A line of JSON a frame, and one a change of a source's state.

    Of a frame:

    =============== ====================================================================
    ``frame``       number in the source, from 0, in a file its place; gaps are frames that were
                    dropped or could not be read
    ``source``      label of the source, passwords masked
    ``camera``      its number in the stream, from 0
    ``state``       where the source stood when the line was written
    ``name``        of the picture file; not there for video
    ``time``        when the frame came: ISO 8601, UTC; compare it with other logs
    ``captured_at`` the same in seconds of the monotonic clock; take durations from it
    ``media_time``  seconds from the first frame of the video; of files, where durations are
                    differences of this; not there for cameras and pictures
    ``damaged``     true where the decoder met errors in the frame; else not there
    ``age_ms``      from then until its labels were there
    ``width``       of the frame, pixels
    ``height``      of the frame, pixels
    ``areas_px``    pixels of each class by its name
    ``share``       the same as fractions of the frame
    ``regions``     connected parts of a class, the largest first, the background left out:
                    ``class``, ``area_px``, ``share`` of the frame, ``box`` [x, y, width,
                    height] and ``centroid`` [x, y] in pixels of the frame
    ``stages_ms``   ``capture``, ``preprocess``, ``infer``, ``postprocess``
    =============== ====================================================================

    Of a change: ``event`` (``"state"``), ``time``, ``captured_at`` (when it was noticed),
    ``camera``, ``source``, ``before`` and ``state``, ``reconnects`` so far.

    Args:
        target: A path, which is gone on with, or an open text stream, which stays open.
        min_region: Share of the frame, 0…1, below which a region is left out; 1 leaves
            out all that do not fill the frame.
        rotation: When ``NAME.jsonl`` becomes ``NAME-0001.jsonl`` and a new file begins.
        budget: Budget that the parts of all runs count towards.
        overwrite: Replace a file that exists.

    Raises:
        UsageError: ``min_region`` is out of its range.
    """

    retry = "later"

    def __init__(
        self,
        target: Path | TextIO,
        min_region: float = 0.001,
        rotation: Rotation | None = None,
        budget: Budget | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        check_min_region(min_region)
        self._lines = Lines(target, rotation, budget, overwrite=overwrite)
        self._min_region = min_region
        self._sources: dict[int, SourceStatus] = {}
        self._changes = StateChanges(())

    def __str__(self) -> str:
        return f"the JSON lines to {self._lines}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Raises UsageError or OutputError if the file cannot be written."""
        self._lines.open()
        if not self._sources:  # when reopened it continues with the states already written
            self._changes = StateChanges(sources)
        self._sources = {source.index: source for source in sources}

    def write(self, result: StreamResult) -> None:
        """Write a line; raises StopStream if the pipe was closed, OSError on a full disk."""
        self.idle()
        self._write(describe(result, self._sources[result.camera].state, self._min_region))

    def idle(self) -> None:
        """Write what changed of the sources; raises as :meth:`write`."""
        for change in self._changes.poll():
            self._write(describe_change(change))

    def close(self) -> None:
        """Write how the sources ended and close the file, unless it was given open."""
        with contextlib.suppress(StopStream), contextlib.closing(self._lines):
            self.idle()

    def _write(self, document: dict[str, Any]) -> None:
        try:
            self._lines.write(document)
        except BrokenPipeError as error:
            raise StopStream from error


def describe(result: StreamResult, state: str, min_region: float) -> dict[str, Any]:
    """What :class:`JsonLines` writes of a result of a source in ``state``."""
    height, width = result.frame.shape[:2]
    pixels = height * width
    areas = dict(zip(result.classes.names, result.areas().tolist(), strict=True))
    found = result.regions(least_area(min_region, pixels))
    return {
        "frame": result.index,
        "source": result.source,
        "camera": result.camera,
        "state": state,
        **({} if result.name is None else {"name": result.name}),
        "time": time_stamp(result.captured_at),
        "captured_at": round(result.captured_at, 6),
        **({} if result.media_time is None else {"media_time": round(result.media_time, 6)}),
        **({"damaged": True} if result.damaged else {}),
        "age_ms": round(result.age_ms, 3),
        "width": width,
        "height": height,
        "areas_px": areas,
        "share": {name: round(area / pixels, 6) for name, area in areas.items()},
        "regions": [_region(region, result.classes.names, pixels) for region in found],
        "stages_ms": {name: round(value, 3) for name, value in result.stages_ms.items()},
    }


def describe_change(change: StateChange) -> dict[str, Any]:
    """What :class:`JsonLines` writes of a source that changed its state."""
    now = time.monotonic()
    return {
        "event": "state",
        "time": time_stamp(now),
        "captured_at": round(now, 6),
        "camera": change.source.index,
        "source": change.source.label,
        "before": change.before,
        "state": change.now,
        "reconnects": change.source.reconnects,
    }


def _region(region: Region, names: Sequence[str], pixels: int) -> dict[str, Any]:
    return {
        "class": names[region.label],
        "area_px": region.area,
        "share": round(region.area / pixels, 6),
        "box": list(region.box),
        "centroid": [round(value, 1) for value in region.centroid],
    }
