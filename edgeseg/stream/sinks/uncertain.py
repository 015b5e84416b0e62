"""Keep the frames worth labelling: those on which the network agrees least with itself.

Engines give labels without scores, so no entropy can be taken. The uncertainty of a frame is the
share of its pixels whose label differs from that in the frame before, or in the frame after,
whichever is less. The successive frames are the members of a committee (Seung, Opper and
Sompolinsky, "Query by committee", COLT 1992; Dagan and Engelson, "Committee-based sampling", ICML
1995), as in Bengar et al., "Temporal coherence for active learning in videos" (ICCV workshops
2019), but without optical flow: labels that follow what moves count as well. The lesser of both
shares keeps a cut from counting.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import load, printable
from edgeseg.data.decode import load_image
from edgeseg.data.selection import Description, describe, near_duplicates, sort_out
from edgeseg.errors import EdgesegError, OutputError, UsageError
from edgeseg.ops.preprocess import inside
from edgeseg.stream.result import StreamResult, moment
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.files import lock_folder, make_folder, write_new, write_refusal
from edgeseg.stream.sinks.health import Health, SinkReport
from edgeseg.stream.sinks.snapshots import local_time

logger = logging.getLogger(__name__)

_SPLITS = ("train", "val")
_VALIDATION = 5
"""Of so many frames one goes to ``val``."""

_REMEMBERED = 200
"""Number of kept frames with which new ones are compared, the newest."""


@dataclass(frozen=True)
class _Waiting:
    """A frame that is saved until a better one comes or its hour ends."""

    name: str
    score: float
    seen: Description


@dataclass(eq=False)
class _Camera:
    """A source, its newest result and how much its labels changed, and what waits of its hour."""

    source: SourceStatus
    newest: StreamResult | None = None
    change: float = 0.0
    hour: str = ""
    room: int = 0
    waiting: list[_Waiting] = field(default_factory=list)


class UncertainFrames(Sink):
    """The most uncertain frames of each hour, and their label maps, as a data set to correct.

    Frames are written as PNG to ``FOLDER/{train,val}/images``, every fifth to ``val``, label maps
    to ``masks`` beside them, and the classes to ``FOLDER/classes.json``. Files of earlier runs stay
    and are never replaced; cameras continue with what is left of the hour on the clock. An hour of
    a file is one of its own time.

    Uniform frames, blurred ones, near duplicates of better ones, and frames with decoder errors
    are left out. Until its hour ends, or the stream, a frame waits in ``FOLDER/.pending``, so that
    memory holds only two frames and a few kilobytes per kept frame of each source; what a killed
    process leaves there is kept by the next.

    Args:
        folder: Folder of the data set; created if missing, and locked to one stream at a time.
        classes: Classes of the network.
        per_hour: Number of frames to keep of an hour of each source, at least 1.
        now: Function that returns the local time.
    """

    supervised = True

    def __init__(
        self,
        folder: Path,
        classes: ClassMap,
        per_hour: int = 20,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        if per_hour < 1:
            raise UsageError(f"at least 1 frame is kept per hour, not {per_hour}")
        self._folder, self._pending = folder, folder / ".pending"
        self._classes, self._per_hour, self._now = classes, per_hour, now
        self._cameras: dict[int, _Camera] = {}
        self._kept: deque[Description] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self._handle: int | None = None
        self._health = Health(str(self), type(self).__name__)

    def __str__(self) -> str:
        return f"the uncertain frames in {printable(str(self._folder))}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Lock the folder, and keep what a killed process left.

        Raises:
            UsageError: The folder cannot be made, or holds something else.
            CorruptArtifact: Its ``classes.json`` is invalid.
            OutputError: The disk is full or gone, or another process writes into the folder.
        """
        self._cameras = {source.index: _Camera(source) for source in sources}
        try:
            self._prepare()
        except OutputError as error:
            if not self.context.patient:
                raise
            self._health.fails(error, lost=0)

    def write(self, result: StreamResult) -> None:
        """Judge the source's result before this one, and save it if it may be kept."""
        camera = self._cameras[result.camera]
        before, change = camera.newest, camera.change
        camera.newest, camera.change = result, _change(before, result)
        score = min(change, camera.change)
        try:
            self._begin_hour(camera, self._hour_of(camera, result))
            if before is not None and score > 0 and not before.damaged:
                self._offer(camera, before, score)
        except Exception as error:
            self._health.fails(error)

    def idle(self) -> None:
        """Keep the frames of an hour that ended, for cameras that were lost."""
        for camera in self._cameras.values():
            if camera.waiting and camera.source.live:
                self._begin_hour(camera, local_time(self._now)[:11])

    def close(self) -> None:
        """Keep the frames that wait, and let others have the folder."""
        for camera in self._cameras.values():
            self._keep_waiting(camera)
        if self._handle is not None:
            with suppress(OSError):
                for folder in (*_parts(self._pending), self._pending):
                    folder.rmdir()
            os.close(self._handle)
            self._handle = None

    def reports(self) -> Sequence[SinkReport]:
        """Of the frames: kept, and lost while the disk was full."""
        return (self._health.report(),)

    def _prepare(self) -> None:
        make_folder(self._folder)
        handle = lock_folder(self._folder)
        try:
            self._check_classes()
            for parent in (*(self._folder / split for split in _SPLITS), self._pending):
                for folder in _parts(parent):
                    make_folder(folder)
            kept = [path for split in _SPLITS for path in _pictures(self._folder / split)]
            self._count = len(kept)
            self._remember(sorted(kept, key=lambda path: path.name)[-_REMEMBERED:])
            for path in _pictures(self._pending):
                self._keep(path.name)
            for mask in (self._pending / "masks").iterdir():  # of a picture that was not written
                mask.unlink()
        except OSError as error:
            os.close(handle)
            raise write_refusal(self._folder, error) from error
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def _check_classes(self) -> None:
        """Write the classes, or compare them with those that are there."""
        path = self._folder / "classes.json"
        if path.exists():
            names = load(ClassMap, path).names
            if names != self._classes.names:
                raise UsageError(
                    f"{printable(str(path))}: expected the classes "
                    f"{', '.join(self._classes.names)}, found {', '.join(names)}",
                    hint="choose another folder for --keep-uncertain",
                )
        elif any(not entry.name.startswith(".") for entry in self._folder.iterdir()):
            raise UsageError(
                f"{printable(str(self._folder))}: expected an empty folder, or one with a "
                "classes.json, found other files",
                hint="choose another folder for --keep-uncertain",
            )
        else:
            self._classes.save(path)

    def _remember(self, pictures: Sequence[Path]) -> None:
        """Describe pictures that are there, so that none is kept twice."""
        for path in pictures:
            with suppress(EdgesegError):  # someone has changed it
                seen = describe(path.name, load_image(path))
                if seen.fingerprint is not None:
                    self._kept.append(seen)

    def _hour_of(self, camera: _Camera, result: StreamResult) -> str:
        if camera.source.live:
            return local_time(self._now)[:11]
        return str(int(moment(camera.source, result) // 3600))

    def _begin_hour(self, camera: _Camera, hour: str) -> None:
        """Keep what waits of another hour, and count what was kept of this one."""
        if hour == camera.hour:
            return
        self._keep_waiting(camera)
        camera.hour, camera.room = hour, self._per_hour
        if camera.source.live:
            names = f"{hour}????-{camera.source.index}-*.png"
            camera.room -= sum(
                1 for split in _SPLITS for _ in (self._folder / split / "images").glob(names)
            )

    def _offer(self, camera: _Camera, result: StreamResult, score: float) -> None:
        """Save a frame if it is among the best of its hour; raises OSError or EdgesegError."""
        waiting = sorted(camera.waiting, key=lambda each: each.score)
        full = len(waiting) >= camera.room
        if full and (not waiting or score <= waiting[0].score):
            return
        seen = describe("", result.frame)
        if seen.fingerprint is None or near_duplicates(seen, self._kept):
            return
        alike = [waiting[n] for n in near_duplicates(seen, [each.seen for each in waiting])]
        if any(each.score >= score for each in alike):
            return
        if not self._health.due:
            self._health.loses()
            return
        if self._handle is None:
            self._prepare()
        camera.waiting.append(_Waiting(self._save(result), score, seen))
        self._health.works(0)
        for each in alike or waiting[:full]:
            camera.waiting.remove(each)
            self._discard(each.name)

    def _save(self, result: StreamResult) -> str:
        """Write a frame and its label map where they wait, and return their name."""
        stem = f"{local_time(self._now)}-{result.camera}-{result.index:06d}"
        names = (f"{stem}-{number}.png" if number > 1 else f"{stem}.png" for number in count(1))
        folders = (self._pending, *(self._folder / split for split in _SPLITS))
        name = next(n for n in names if not any((f / "images" / n).exists() for f in folders))
        # A picture always has a mask: it comes later, and goes earlier.
        for part, pixels in (("masks", result.mask()), ("images", result.frame)):
            write_new(self._pending / part / name, cv2.imencode(".png", pixels)[1].tobytes())
        return name

    def _discard(self, name: str) -> None:
        for part in ("images", "masks"):
            (self._pending / part / name).unlink(missing_ok=True)

    def _keep(self, name: str) -> None:
        """Move a frame and its label map into the data set; raises OSError."""
        split = "val" if self._count % _VALIDATION == 1 else "train"
        for part in ("masks", "images"):
            path = self._pending / part / name
            if path.exists():  # not so if it was moved before the process was killed
                path.rename(self._folder / split / part / name)
        self._count += 1
        self._health.works()

    def _keep_waiting(self, camera: _Camera) -> None:
        """Keep the frames that wait, save for blurred ones."""
        waiting, camera.waiting = camera.waiting, []
        blurred = sort_out([each.seen for each in waiting])
        for number, each in enumerate(waiting):
            try:
                if number in blurred:
                    self._discard(each.name)
                else:
                    self._keep(each.name)
                    self._kept.append(each.seen)
            except OSError as error:
                self._health.fails(error)


def _change(before: StreamResult | None, result: StreamResult) -> float:
    """Share of pixels whose labels differ; 0 between frames that cannot be compared."""
    if before is None or before.reconnects != result.reconnects:
        return 0.0
    one, other = _network_labels(before), _network_labels(result)
    if one is None or other is None or before.frame.shape != result.frame.shape:
        return 0.0
    return np.count_nonzero(one != other) / one.size


def _network_labels(result: StreamResult) -> NDArray[np.uint8] | None:
    """The network's label map of the part that the frame fills, before it was smoothed."""
    if result.card is None or result.labels.shape != result.input.shape[1:]:
        return None
    labels = result.labels if result.unsmoothed is None else result.unsmoothed
    return inside(labels, result.frame.shape[:2], result.input)


def _parts(folder: Path) -> tuple[Path, Path]:
    return folder / "images", folder / "masks"


def _pictures(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*.png"))
