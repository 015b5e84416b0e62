"""Candidates for calibration from folders, videos and cameras, read one at a time.

Only the current picture is held in memory. Files in a folder stay where they are; a video is
decoded a second time for the chosen frames; a live source cannot be replayed, so a bounded number
of candidates is saved.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import list_images, load_image
from edgeseg.data.selection import spread
from edgeseg.errors import DatasetError, SourceError
from edgeseg.options.building import Select
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import SourceSpec

logger = logging.getLogger(__name__)

CANDIDATES = 4
"""Candidates per picture wanted."""

LIVE_CANDIDATES = 2
"""Candidates per picture wanted from a live source, which is slower."""

LIVE_STRIDE = 10
"""Take every tenth frame of a live source: neighbouring frames add nothing to the ranges."""

Picture = tuple[str, NDArray[np.uint8]]
"""Name, and pixels as uint8 (H, W, 3) BGR."""


class Pool(Protocol):
    """The candidates of one source."""

    def __len__(self) -> int:
        """Expected number of candidates; a video may end early."""

    def __iter__(self) -> Iterator[Picture]:
        """Iterate once over all candidates."""

    def keep(self, numbers: Sequence[int]) -> list[Path]:
        """Paths of the candidates with these ascending indices, in order of iteration."""


def open_pool(spec: SourceSpec, shop: Path, count: int, select: Select, seed: int) -> Pool:
    """Open the candidates of a source from which ``count`` will be chosen.

    They are spread over the source, or taken from its beginning if ``select`` is ``first``.

    Args:
        shop: Folder in which frames are saved.

    Raises:
        UsageError: A folder or glob holds no pictures.
        SourceError: A video cannot be opened.
    """
    if spec.kind == "pictures":
        paths = list_images(Path(spec.target))
        return _Files([paths[n] for n in _places(len(paths), count, select, seed)])
    declared = None if spec.live else _declared(spec)
    if declared is None:
        return _Frames(spec, shop, range(0, LIVE_CANDIDATES * count * LIVE_STRIDE, LIVE_STRIDE))
    return _Frames(spec, shop, _places(declared, count, select, seed))


def _declared(spec: SourceSpec) -> int | None:
    with contextlib.closing(open_frames(spec)) as frames:
        return frames.declared


def _places(total: int, count: int, select: Select, seed: int) -> Sequence[int]:
    wanted = CANDIDATES * count
    return range(min(total, wanted)) if select == "first" else spread(total, wanted, seed)


class _Files:
    """Picture files; unreadable ones are logged and skipped."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._read: list[Path] = []

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Picture]:
        self._read = []
        first: DatasetError | None = None
        for path in self._paths:
            try:
                image = load_image(path)
            except DatasetError as error:
                logger.warning("%s; it is left out", printable(error.message, 1000))
                first = first or error
                continue
            self._read.append(path)
            yield path.name, image
        if first and not self._read:
            more = f" (and {len(self._paths) - 1} more)" if len(self._paths) > 1 else ""
            raise DatasetError(first.message + more, hint=first.hint)

    def keep(self, numbers: Sequence[int]) -> list[Path]:
        return [self._read[number] for number in numbers]


class _Frames:
    """Frames of a video, which is decoded again, or of a live source, whose frames are saved."""

    def __init__(self, spec: SourceSpec, shop: Path, places: Sequence[int]) -> None:
        self._spec, self._shop, self._places = spec, shop, places
        self._found: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Picture]:
        self._found = []
        for place, frame in _frames(self._spec, self._places, warn=not self._spec.live):
            if self._spec.live:
                _save(self._shop, place, frame)
            self._found.append(place)
            yield f"{place:06d}", frame

    def keep(self, numbers: Sequence[int]) -> list[Path]:
        places = [self._found[number] for number in numbers]
        if self._spec.live:
            return [_saved(self._shop, place) for place in places]
        found = [_save(self._shop, place, frame) for place, frame in _frames(self._spec, places)]
        if len(found) < len(places):
            raise SourceError(
                f"{self._spec.label} gave {len(found)} of {len(places)} frames when it was read "
                "a second time",
                hint="copy the video again, or save frames as pictures and name their folder",
            )
        return found


def _frames(
    spec: SourceSpec, places: Sequence[int], *, warn: bool = False
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the frames at ascending positions, as many as the source has.

    An unreadable frame is replaced by the next one; with ``warn`` their number is logged at the
    end.
    """
    frames = open_frames(spec)
    try:
        wanted = iter(places)
        place, count = next(wanted, None), 0
        while place is not None:
            frame = frames.read()
            if frame is None:
                break
            number = count if frames.place is None else frames.place.index
            count += 1
            if number < place:
                continue
            while place is not None and place <= number:
                place = next(wanted, None)
            yield number, frame
        if not count:
            raise SourceError(f"{spec.label} was opened but delivered no frame")
        if frames.unreadable and warn:
            logger.warning(
                "%s: %d of %d frames could not be read; pictures are chosen from the others",
                *(spec.label, frames.unreadable, count + frames.unreadable),
            )
    finally:
        frames.close()


def _saved(folder: Path, place: int) -> Path:
    return folder / f"{place:06d}.png"


def _save(folder: Path, place: int, frame: NDArray[np.uint8]) -> Path:
    path = _saved(folder, place)
    write_atomic(path, cv2.imencode(".png", frame)[1].tobytes())
    return path
