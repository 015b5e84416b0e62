"""Read video files with PyAV, if it is installed; frames are bit-identical to OpenCV's.

Unlike OpenCV, PyAV reports which packet a frame came from, which packets cannot be decoded, and
in which frames the decoder found errors.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.machine import physical_cores
from edgeseg.sources.decoding import CPU, decoder_of, open_input
from edgeseg.sources.places import FramePosition, Mark, Timeline, slack
from edgeseg.sources.spec import SourceSpec

logger = logging.getLogger(__name__)

_FAILED_READS = 100
"""So many in a row, and the file is over."""

_FULL_HD = 1920 * 1088
"""Larger frames may take one thread longer to decode than a network to segment."""

_DOUBTFUL = 5
"""Packets from a corrupt one on between which some may be missing: FFmpeg's MPEG-TS reader notices
a break before it has handed out the packets from ahead of it."""

_BETWEEN = 64
"""Bytes that a container puts between two packets, at most."""


class Packets:
    """Packets of a file's video, in the order of decoding, each with its mark.

    A hole is where packets are missing: bytes that belong to none (Matroska, AVI and FLV, which
    leave no room between packets), a packet that its container calls corrupt, a read that fails.

    Args:
        container: An open file; all of its streams are read.
        stream: Its video.

    Attributes:
        holes: Bytes of each hole so far.
        seen: Packets of the video so far.
        discarded: Those among them that are not to be shown.
        stamped: Whether packets state when their frame is shown; AVI and raw streams do not.
        indexed: Whether the file has an index that numbers its packets; looked for where they
            are not stamped.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.holes: list[int] = []
        self.seen = self.discarded = 0
        self.stamped = container.format.name != "avi"
        self._dense = container.format.name in ("avi", "flv", "matroska,webm")
        # Index entries point to the head of a chunk, packets to its content.
        entries = [] if self.stamped else getattr(stream, "index_entries", ())
        self._index = {entry.pos + 8: (rank, entry.timestamp) for rank, entry in enumerate(entries)}
        # Without an index FFmpeg makes one of what it has read.
        least = stream.frames - slack(stream.frames, exact=True)
        self.indexed = 0 < least <= len(self._index)
        self._end: int | None = None
        self._doubtful = 0
        self._epoch = 0
        self._latest: int | None = None

    def __iter__(self) -> Iterator[tuple[Any, Mark | None]]:
        """Each packet with its mark, None for those that give no frame; at last empty ones."""
        import av

        failed = 0
        packets = self._container.demux()
        while failed < _FAILED_READS:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError) as error:
                logger.debug("a read failed: %s", type(error).__name__)
                failed += 1
                self.holes.append(0)
                packets = self._container.demux()
                continue
            if packet is None:
                return
            failed = 0
            self._look_for_hole(packet)
            # The empty packets at the end state the number of no stream.
            if packet.stream.index == self._stream.index:
                yield packet, self._mark(packet)

    def _look_for_hole(self, packet: Any) -> None:
        if not packet.size:
            return
        if packet.is_corrupt:
            self._doubtful = _DOUBTFUL
        if self._doubtful and not self._dense:
            self._doubtful -= 1
            self.holes.append(packet.size)
        if self._dense and packet.pos is not None:
            hole = 0 if self._end is None else packet.pos - self._end
            self._end = packet.pos + packet.size
            if hole > _BETWEEN:
                self.holes.append(hole)

    def _mark(self, packet: Any) -> Mark | None:
        if not packet.size:
            return None
        self.seen += 1
        if packet.is_discard:
            self.discarded += 1
            return None
        if packet.dts is not None:
            if self._latest is not None and packet.dts < self._latest:
                self._epoch += 1
            self._latest = packet.dts
        if self.seen == 1 and packet.pts is None and packet.dts is None:
            self.stamped = False
        stamp = packet.pts if self.stamped else packet.dts
        rank = None
        if self.indexed:
            rank, stamp = self._index.get(packet.pos, (None, stamp))
        time = None if stamp is None else float(stamp * packet.time_base)
        key = time if self.stamped else float(self.seen)
        return Mark(self._epoch, key, self.seen, len(self.holes), rank, time)


class RecordedVideo:
    """The video of a file. Belongs to the thread that opened it.

    Args:
        spec: Source of the kind ``file``.

    Raises:
        OSError: It cannot be opened, or holds no video.
    """

    name: str | None = None

    def __init__(self, spec: SourceSpec) -> None:
        import av
        from av.codec.context import Flags
        from av.video.reformatter import VideoReformatter

        self._spec = spec
        self._container, self._stream = open_video(Path(spec.target), spec.decode)
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        if self._stream.width * self._stream.height <= _FULL_HD:
            # Each thread takes memory and makes a frame dearer; the other cores are the network's.
            context.thread_count = max(1, physical_cores() // 2)
        context.flags |= Flags.copy_opaque
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self.fps = frame_rate(self._stream)
        self.declared = declared_frames(self._container, self._stream)
        self.place: FramePosition | None = None
        self.captured_at: float | None = None
        self._timeline = Timeline(spec.label, self.fps)
        self._packets = Packets(self._container, self._stream)
        self._count = 0
        self._frames = self._decoded(av.FFmpegError)

    @property
    def unreadable(self) -> int:
        """Number of frames that could not be read so far."""
        return self._timeline.losses.count

    @property
    def decoder(self) -> str:
        """The device that decodes, or ``cpu``."""
        return decoder_of(self._stream, self._spec.decode)

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR, rotated as declared; None at the end."""
        frame = next(self._frames, None)
        while frame is not None and not self._shuffled and self._timeline.is_late(frame.opaque):
            frame = next(self._frames, None)
        if frame is None:
            return None
        self._count += 1
        self._timeline.damage |= frame.is_corrupt
        if self._shuffled and frame.key_frame:
            self._timeline.settle(frame.opaque)
        index, seconds = self._timeline.place(frame.opaque, shuffled=self._shuffled)
        self.place = FramePosition(index, seconds, frame.is_corrupt)
        picture = self._picture(frame)
        before, self._size = self._size, (picture.shape[1], picture.shape[0])
        if before not in (None, self._size):
            logger.warning("%s: frames of %dx%d from here on", self._spec.label, *self._size)
        return picture

    def close(self) -> None:
        """Release the file and the decoder."""
        self._frames = iter(())
        self._container.close()

    @property
    def _shuffled(self) -> bool:
        return not self._packets.stamped and bool(self._stream.codec_context.has_b_frames)

    def _picture(self, frame: Any) -> NDArray[np.uint8]:
        # OpenCV's way of scaling, so that chroma planes of any size give its bits.
        bgr: Any = self._reformatter.reformat(
            frame, format="bgr24", interpolation="BICUBIC", **_alone()
        )
        return turned(bgr.to_ndarray(), frame.rotation)

    def _decoded(self, failure: type[Exception]) -> Iterator[Any]:
        for packet, mark in self._packets:
            if mark is not None:
                self._expect(mark)
                packet.opaque = mark
            try:
                yield from packet.decode()
            except failure as error:
                logger.debug("decoding failed: %s", type(error).__name__)
                self._timeline.damage = True
                if mark is not None and self._shuffled:
                    self._timeline.forget(mark)
        self._finish()

    def _expect(self, mark: Mark) -> None:
        timeline, packets = self._timeline, self._packets
        if mark.segment:
            timeline.damage = True
            if timeline.gone is None and not packets.stamped and not packets.indexed:
                timeline.gone = self._share_out()
        timeline.expect(mark)

    def _share_out(self) -> dict[int, int]:
        """Frames lost in each hole of a file without times and index, which is read for that."""
        container, stream = open_video(Path(self._spec.target))
        with container:
            packets = Packets(container, stream)
            for _ in packets:
                pass
        return lost_by_hole(packets, stream)

    def _finish(self) -> None:
        """Compare the number of frames found with the declared number."""
        timeline, stream = self._timeline, self._stream
        timeline.finish()
        found = timeline.following
        if stream.frames:
            missing = stream.frames - self._packets.discarded - found
            allowed = slack(stream.frames, exact=True)
        else:
            end = _end(self._container, stream)
            left = 0.0 if end is None else timeline.clock.left(end)
            shown = 0 if self.place is None else self.place.index + 1
            missing = shown + round(left / timeline.clock.interval) - 1 - found
            allowed = slack(found + missing, exact=False)
        if self._count and missing > allowed:
            timeline.losses.add(found, missing)
            found += missing
        self.declared = found


@functools.cache
def _alone() -> dict[str, int]:
    """Arguments that let PyAV convert in the calling thread; it does since 17 only if asked.

    More threads would make a frame no cheaper, and the cores are the network's.
    """
    import av

    return {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


def open_video(path: Path, decode: str = CPU) -> tuple[Any, Any]:
    """An open container and its video stream, cover pictures left out.

    Raises:
        OSError: It cannot be opened, or holds no video.
    """
    import av
    from av.stream import Disposition

    try:
        # FFmpeg takes what stands before a colon for a protocol.
        container = open_input(str(path.absolute()), decode)
    except (av.FFmpegError, ValueError) as error:
        raise OSError(type(error).__name__) from None
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        container.close()
        raise OSError("no video")
    return container, stream


def lost_by_hole(packets: Packets, stream: Any) -> dict[int, int]:
    """Frames lost in each hole of a file that was read to its end, where no times tell.

    They are those that are missing in all, shared out by the bytes of the holes.
    """
    missing = max(0, stream.frames - packets.seen)
    shares, done, total = {}, 0, sum(packets.holes) or 1
    for number, size in enumerate(packets.holes, 1):
        before, done = round(missing * done / total), done + size
        shares[number] = round(missing * done / total) - before
    return shares


def frame_rate(stream: Any) -> float | None:
    """Return the declared frames per second; None if the stream declares no plausible rate."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and 0 < rate <= 1000 else None


def declared_frames(container: Any, stream: Any) -> int | None:
    """How many frames a file states to hold, worked out from its length where it states that.

    None where nothing is stated, or the length says nothing since frames come at odd times.
    """
    if stream.frames:
        # An edit list leaves frames out that the file holds, to begin between two key frames.
        cut = sum(bool(entry.is_discard) for entry in getattr(stream, "index_entries", ()))
        return int(stream.frames) - cut
    rate, end = frame_rate(stream), _end(container, stream)
    if rate is None or end is None or stream.average_rate not in (None, stream.guessed_rate):
        return None
    start = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base)
    return max(0, round((end - start) * rate)) or None


def turned(picture: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate a picture counterclockwise as declared by the display matrix of its file."""
    turns = round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _end(container: Any, stream: Any) -> float | None:
    """Declared end of the video, in seconds of its presentation times."""
    import av

    if stream.duration:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if not container.duration or stream.start_time is None:
        return None
    # Matroska states the end, others the time from the first picture or sound to the end.
    start = container.start_time or 0
    start = min(start, 0) if container.format.name == "matroska,webm" else start
    return float((container.duration + start) / av.time_base)
