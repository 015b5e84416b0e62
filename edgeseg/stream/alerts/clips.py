"""Write a video clip of the seconds before and after each alert.

Pictures are those of the results, as the other outputs get them: each is compressed as JPEG into a
ring, and decoded and encoded again only where it belongs to a clip. The compressed packets of a
camera cost less, but show what the privacy filter obscures and no overlay. So they are copied into
clips of the original frames only, and a stream that obscures anything does not offer them.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf, nextafter
from pathlib import Path
from typing import Literal

import cv2

from edgeseg.options.clips import ClipOptions
from edgeseg.options.streaming import Codec
from edgeseg.sources.packets import COPIED, Packet, PacketStream, PacketTap
from edgeseg.stream.alerts.rule import AlertRule
from edgeseg.stream.result import StreamResult, moment
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.encoded import choose_codec
from edgeseg.stream.sinks.health import Health, SinkReport
from edgeseg.stream.sinks.recording import Recording
from edgeseg.stream.sinks.retention import Budget, Shelf
from edgeseg.stream.sinks.ring import Kept, Ring, RingPicture
from edgeseg.stream.sinks.snapshots import local_time

logger = logging.getLogger(__name__)

_PER_NEW = 2
"""Pictures written for each new one: a clip catches up, and no new one waits for long."""

_PER_IDLE = 4

_LONGEST_S = 600.0
"""An alert later than that does not extend a clip, but begins the next."""

_LOST_S = 10.0
"""How long after the end of a clip a camera's frame from before it may arrive."""


@dataclass(eq=False)
class _Clip:
    """A clip that is being written, or will be.

    Attributes:
        since: Time of the first picture at the earliest.
        until: Time of the last picture at the latest.
        written_to: Time of the last picture written; -inf for none.
        holds: What is in the open file: the packets of this connection, or ``pictures``; None if
            no file is open.
        over: Whether it is complete, or what is missing is lost.
    """

    path: Path
    since: float
    until: float
    raised_at: float
    recording: Recording
    written_to: float = -inf
    touched: bool = False
    holds: PacketStream | Literal["pictures"] | None = None
    over: bool = False

    def lacks(self, picture: Kept) -> bool:
        """Whether a picture belongs to it and has not been written."""
        return self.since <= picture.at <= self.until and picture.at > self.written_to

    def close_file(self) -> None:
        """Write the index of the file that is open, if one is."""
        if self.holds is not None:
            self.holds = None
            self.recording.close()


@dataclass(eq=False)
class _Camera:
    """A source, its newest pictures, and its clips that are not complete.

    ``tap`` is where its packets come from, if they may be copied; ``copies`` is whether they do.
    """

    source: SourceStatus
    ring: Ring
    shelf: Shelf
    tap: PacketTap | None
    copies: bool = False
    clips: deque[_Clip] = field(default_factory=deque)
    newest: _Clip | None = None
    warned: bool = False


class Clips(Sink):
    """Clips of the seconds around alerts, each in a file named by time, source and class.

    :class:`~edgeseg.stream.alerts.Alerts` begins them and passes on results, in a thread of their
    own; pass it ``AlertOutputs(clips=...)``. The files are written by
    :class:`~edgeseg.stream.Recording`: H.264 in MP4 where PyAV has an encoder, otherwise MJPEG in
    Matroska, each frame at its own time. A clip whose file fails continues in ``NAME-0001.mp4``.

    Clips of original frames hold the packets of a network camera as they are if PyAV reads it,
    nothing is obscured, and ``codec`` is ``auto`` or the camera's. Such a clip begins with the last
    key frame before the time asked for; MJPEG is written as Matroska. After a reconnection it goes
    on in the next file.

    An alert before the end of a clip extends it, up to ten minutes after its first alert.

    Args:
        folder: Folder of the files; created if missing.
        options: Length, memory, and number of clips.
        overlay: Show overlays instead of the original frames.
        codec: As of a recording.
        budget: Budget that the clips of all runs count towards.
    """

    supervised = True

    def __init__(
        self,
        folder: Path,
        options: ClipOptions | None = None,
        *,
        overlay: bool = True,
        codec: Codec = "auto",
        budget: Budget | None = None,
    ) -> None:
        self.shows_overlay = overlay
        self._folder, self._codec, self._budget = folder, codec, budget
        self._options = options or ClipOptions()
        self._suffix = ".mkv"
        self._cameras: dict[int, _Camera] = {}
        self._health = Health(f"the alert clips in {folder}", "Clips")

    def __str__(self) -> str:
        return f"the alert clips in {self._folder}"

    @property
    def memory(self) -> int:
        """Bytes of the pictures and packets that wait for an alert."""
        return sum(camera.ring.used for camera in self._cameras.values())

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Count what is there; raises RuntimeMissing if an encoder is missing for the codec."""
        encoded = choose_codec(self._codec, Path("clip.mkv"))
        self._suffix = ".mp4" if encoded else ".mkv"
        with suppress(OSError):  # reported with the first write
            self._folder.mkdir(parents=True, exist_ok=True)
        limit = self._options.clip_memory
        for source in sources:
            tap = None if self.shows_overlay else source.packets
            codecs = COPIED if self._codec == "auto" else (self._codec,)
            if tap is not None and not tap.open(limit // 4, codecs):
                tap = None
            name = re.compile(rf"(\d{{8}}-\d{{6}})-{source.index}-[\w-]+\.(?:mkv|mp4)", re.ASCII)
            shelf = Shelf(self._folder, name, self._budget, self._options.clip_keep)
            with suppress(OSError):
                shelf.scan()
            ring = Ring(limit if tap is None else limit - limit // 4)
            self._cameras[source.index] = _Camera(source, ring, shelf, tap)

    def begin(self, rule: AlertRule, result: StreamResult) -> Path:
        """Begin or extend a clip for an alert that a result raised, and return its path.

        Called before :meth:`write` of that result, in any thread.
        """
        camera = self._cameras[result.camera]
        at = moment(camera.source, result)
        since, until = at - self._options.clip_before, at + self._options.clip_after
        last = camera.newest
        if last is not None and not last.over and last.raised_at <= at <= last.until:
            if at - last.raised_at < _LONGEST_S:
                last.until = until
                return last.path
            last.until, since = nextafter(at, -inf), at
        path = self._free_path(rule, camera)
        recording = Recording(path, overlay=False, codec=self._codec)
        camera.newest = _Clip(path, since, until, at, recording)
        camera.clips.append(camera.newest)
        return path

    def write(self, result: StreamResult) -> None:
        """Keep the picture or the packets, and write to the clip that is in progress."""
        camera = self._cameras[result.camera]
        at = moment(camera.source, result)
        clip = camera.clips[0] if camera.clips else None
        if clip is not None and at < clip.written_to:  # the file begins again
            clip.until = -inf
        new = _packets(camera, at)
        if not camera.copies:
            new.append(self._compressed(result, at))
        self._keep(camera, new, at)
        self._advance(camera, _PER_NEW * max(1, len(new)), at)

    def idle(self) -> None:
        """Write what waits, and end the clip of a camera that was lost."""
        for camera in self._cameras.values():
            now = time.monotonic() - _LOST_S if camera.source.live else -inf
            if packets := _packets(camera, now):
                self._keep(camera, packets, now)
            self._advance(camera, _PER_IDLE, now)

    def close(self) -> None:
        """Write the clips in progress as far as there are pictures."""
        for camera in self._cameras.values():
            if camera.clips:
                self._keep(camera, _packets(camera, inf), inf)
            while camera.clips:
                clip = camera.clips[0]
                try:
                    self._step(camera, clip, inf)
                except Exception as error:
                    self._fails(clip, error)
                    camera.clips.popleft()
                    for _ in filter(clip.lacks, camera.ring):
                        self._health.loses()
            if camera.tap is not None:
                camera.tap.close()

    def reports(self) -> Sequence[SinkReport]:
        """Of all clips; results are pictures in clips."""
        return (self._health.report(),)

    def _keep(self, camera: _Camera, new: Sequence[Kept], now: float) -> None:
        """Add pictures to the ring, and forget what is too old or too much."""
        clip = camera.clips[0] if camera.clips else None
        for picture in new:
            for evicted in camera.ring.push(picture):
                if clip is not None and clip.touched and clip.lacks(evicted):
                    self._health.loses()
                elif picture.at - evicted.at < self._options.clip_before:
                    self._warn(camera, picture.at - evicted.at)
        kept = now - self._options.clip_before
        camera.ring.trim(kept if clip is None else min(kept, max(clip.since, clip.written_to)))

    def _compressed(self, result: StreamResult, at: float) -> RingPicture:
        frame = result.overlay() if self.shows_overlay else result.frame
        jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
        return RingPicture(at, jpeg, result.captured_at, result.media_time)

    def _advance(self, camera: _Camera, most: int, now: float) -> None:
        """Write at most so many pictures, and end the clips that end before ``now``."""
        for _ in range(most):
            if not camera.clips or not self._health.due:
                return
            clip = camera.clips[0]
            try:
                if not self._step(camera, clip, now):
                    return
            except Exception as error:
                self._fails(clip, error)

    def _step(self, camera: _Camera, clip: _Clip, now: float) -> bool:
        """Write the next picture of a clip, or end it; False if it waits for a picture."""
        clip.touched = True
        picture = camera.ring.first(clip.since, clip.written_to)
        if picture is not None and picture.at <= clip.until:
            self._append(camera, clip, picture)
        elif picture is not None or now > clip.until:
            self._end(camera, clip)
        else:
            return False
        return True

    def _append(self, camera: _Camera, clip: _Clip, picture: Kept) -> None:
        kind: PacketStream | Literal["pictures"] = "pictures"
        if isinstance(picture, Packet):
            kind = picture.stream
        if clip.holds != kind:
            clip.close_file()
            camera.shelf.room()
            clip.recording.open([camera.source])
            clip.holds = kind
            picture = camera.ring.key_of(picture)
            clip.since = min(clip.since, picture.at)
        self._record(clip.recording, picture, camera.source.label)
        clip.written_to = picture.at
        self._health.works()
        with suppress(OSError):  # someone has removed it
            camera.shelf.grow(clip.recording.path, clip.recording.path.stat().st_size)

    def _record(self, recording: Recording, picture: Kept, label: str) -> None:
        if isinstance(picture, Packet):
            recording.copy(picture)
            return
        result = StreamResult(
            0, label, picture.decode(), picture.captured_at, media_time=picture.media_time
        )
        recording.write(result)

    def _end(self, camera: _Camera, clip: _Clip) -> None:
        clip.close_file()
        clip.over = True
        camera.clips.popleft()
        for path in clip.recording.files():
            camera.shelf.put(path, path.stat().st_size)

    def _fails(self, clip: _Clip, error: Exception) -> None:
        """Close the file; what was not written is tried again in the next one."""
        with suppress(OSError):
            clip.close_file()
        self._health.fails(error, lost=0)

    def _free_path(self, rule: AlertRule, camera: _Camera) -> Path:
        label = re.sub(r"[^A-Za-z0-9]+", "-", rule.label).strip("-")[:40] or "alert"
        stem = f"{local_time()}-{camera.source.index}-{label}"
        names = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
        mjpeg = camera.tap is not None and camera.tap.codec == "mjpeg"
        paths = (self._folder / f"{name}{'.mkv' if mjpeg else self._suffix}" for name in names)
        taken = {clip.path for clip in camera.clips}
        return next(path for path in paths if path not in taken and not path.exists())

    def _warn(self, camera: _Camera, seconds: float) -> None:
        if not camera.warned:
            camera.warned = True
            logger.warning(
                "%s: %.1f s of pictures of %s fill the memory for clips; they begin later than "
                "--clip-before says: increase --clip-memory",
                *(self, seconds, camera.source.label),
            )


def _packets(camera: _Camera, until: float) -> list[Kept]:
    """Take the packets that arrived by ``until``, and set whether the camera's are copied."""
    if camera.tap is None:
        return []
    taken: list[Kept] = [*camera.tap.take(until)]
    camera.copies = camera.tap.codec is not None and (camera.copies or bool(taken))
    return taken
