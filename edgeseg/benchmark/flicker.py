"""Flicker of engines on a video, or on pictures in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.benchmark.cases import label_one
from edgeseg.benchmark.document import SequenceSummary
from edgeseg.console import Track, silent
from edgeseg.engines.base import Engine
from edgeseg.errors import SourceError
from edgeseg.ops.preprocess import preprocess
from edgeseg.sources.capture import Frames, open_frames
from edgeseg.sources.spec import parse_source
from edgeseg.stream.flicker import Flicker

_LEAST = 3
"""Frames in which a label can change and change back."""


def measure_flicker(
    engines: Sequence[Engine], sequence: Path, most: int, track: Track = silent
) -> tuple[dict[Path, float | None], SequenceSummary]:
    """Segment the first ``most`` frames with each engine, at the network's size.

    Returns:
        Share of pixels that flickered by path, see :class:`~edgeseg.stream.flicker.Flicker`; and
        what it was measured on.

    Raises:
        SourceError: The frames cannot be read, or are fewer than three.
    """
    found = {engine.path: Flicker() for engine in engines}
    frames, count = open_sequence(sequence), 0
    try:
        total = min(most, frames.declared or most)
        for frame in track(islice(_read(frames), most), "Measuring flicker", total):
            count += 1
            for engine in engines:
                labels = label_one(engine, preprocess(frame, engine.card.input))
                found[engine.path].add(labels, frame.shape)
    finally:
        frames.close()
    if count < _LEAST:
        raise SourceError(
            f"{sequence}: expected at least {_LEAST} frames in the order of time, found {count}",
            hint="give a video, or a folder with the pictures of one",
        )
    summary = SequenceSummary(name=sequence.resolve().name, frames=count)
    return {path: flicker.share for path, flicker in found.items()}, summary


def open_sequence(sequence: Path) -> Frames:
    """Open a video, or a folder or pattern of pictures.

    Raises:
        OpenFailed: It does not exist or cannot be read.
    """
    return open_frames(parse_source(sequence))


def _read(frames: Frames) -> Iterator[NDArray[np.uint8]]:
    while (frame := frames.read()) is not None:
        yield frame
