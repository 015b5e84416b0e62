"""Number and presentation time of each frame of a video file, even if other frames were lost.

A frame's number is its place in the order of presentation, counted from 0. In an intact file it
is what counting gives, whatever the times are. Where a file is damaged, frames that were lost
keep their numbers: those whose packets are there and cannot be decoded are counted, and those
whose packets are gone are worked out from the gap in the presentation times.

Its time is in seconds from the first frame. Frames without a time stamp follow the one before
after the usual interval, and so do those whose time stamps step backwards.
"""

from __future__ import annotations

import bisect
import logging
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_USUAL = 32
"""Intervals of which the median is the usual one."""

_SAID = 10
"""Gaps that are logged one by one."""


_SLACK = 0.01
_SLACK_FRAMES = 2
"""Share and number of frames that may be missing at the end of a whole file: some count pictures
that repeat the last, or state only a length, with the delay of the decoder in it."""


def slack(stated: int, *, exact: bool) -> float:
    """Return how many of the declared frames may be missing at the end of a file.

    Args:
        stated: Declared number of frames.
        exact: True if the file declares the number; False if it was computed from a length.
    """
    return _SLACK * stated if exact else max(_SLACK * stated, _SLACK_FRAMES)


@dataclass(frozen=True)
class FramePosition:
    """Position of a frame within its video.

    Attributes:
        index: Number of the frame, from 0.
        media_time: Seconds since the first frame of the video; None if unknown.
        damaged: Whether the decoder found errors in the frame.
    """

    index: int
    media_time: float | None = None
    damaged: bool = False


class FrameLosses:
    """Counts frames that could not be read, and logs each gap.

    Args:
        label: Label of the source, for the log.
    """

    def __init__(self, label: str) -> None:
        self.count = 0
        self._label = label
        self._said = 0

    def add(self, first: int, count: int) -> None:
        """Record that frames ``first`` to ``first + count - 1`` are lost."""
        if count <= 0:
            return
        self.count += count
        self._said += 1
        if self._said > _SAID:
            return
        numbers = f"frame {first}" if count == 1 else f"frames {first} to {first + count - 1}"
        more = " (more gaps are counted and not listed)" if self._said == _SAID else ""
        logger.warning("%s: %s cannot be read%s", self._label, numbers, more)


class Clock:
    """Presentation times as seconds from the first frame that never step backwards.

    Args:
        rate: Frames a second that the video states, if it does.
    """

    def __init__(self, rate: float | None) -> None:
        self.now: float | None = None
        self._stated = 1 / rate if rate else 0.04
        self._intervals: deque[float] = deque(maxlen=_USUAL)
        self._offset = 0.0
        self._raw: float | None = None

    @property
    def interval(self) -> float:
        """The usual time between two frames, in seconds."""
        return statistics.median(self._intervals) if self._intervals else self._stated

    def start(self, seconds: float) -> None:
        """Set the presentation time of the video's first frame, even if it cannot be read."""
        self._offset = -seconds

    def left(self, seconds: float) -> float:
        """Time from the last frame to the presentation time ``seconds``, in seconds."""
        return seconds + self._offset - (self.now or 0.0)

    def skip(self, frames: int) -> None:
        """Advance past lost frames that the following time stamps do not account for."""
        self._offset += frames * self.interval

    def show(self, seconds: float | None) -> float:
        """Advance to the next frame, with presentation time ``seconds``; return its time."""
        if self.now is None:
            self.now = max(0.0, 0.0 if seconds is None else seconds + self._offset)
        elif seconds is None:
            self.now += self.interval
        elif seconds + self._offset < self.now:
            following = self.now + self.interval
            self._offset = following - seconds
            self.now = following
        else:
            at = seconds + self._offset
            # Over lost frames the interval is not the usual one; the median does not mind.
            if at > self.now:
                self._intervals.append(at - self.now)
            self.now = at
        return self.now


@dataclass(frozen=True, order=True)
class Mark:
    """What a packet says of the frame in it; marks sort as the frames are presented.

    Attributes:
        epoch: Number of times that the time stamps restarted before this packet.
        stamp: Its presentation time, in seconds; in a file without such times its number in
            the order of decoding. None where it has none, though others have.
        sequence: Its number in the order of decoding.
        segment: Number of holes in the file before it.
        rank: Its number in the file's index, where there is one.
        time: Its presentation time in seconds, as far as it is known.
    """

    epoch: int
    stamp: float | None
    sequence: int
    segment: int = field(default=0, compare=False)
    rank: int | None = field(default=None, compare=False)
    time: float | None = field(default=None, compare=False)


class Timeline:
    """Places of decoded frames among all packets of the file.

    Packets that no frame came of are lost frames only in a file in which damage was seen:
    there are codecs with packets that show nothing.

    Args:
        label: Label of the source, for the log.
        rate: Frames a second that the video states, if it does.

    Attributes:
        losses: Frames that could not be read so far.
        damage: Whether anything in the file was damaged so far.
        known: Packets so far that should give a frame.
        gone: Frames lost in each hole, in a file without times; None until there is one.
    """

    def __init__(self, label: str, rate: float | None) -> None:
        self.losses = FrameLosses(label)
        self.damage = False
        self.known = 0
        self.gone: dict[int, int] | None = None
        self.clock = Clock(rate)
        self.following = 0
        self._pending: list[Mark] = []
        self._first: Mark | None = None
        self._before: Mark | None = None
        self._unstamped = 0

    def expect(self, mark: Mark) -> None:
        """A packet was read that should give a frame."""
        self.known += 1
        if mark.stamp is not None:
            bisect.insort(self._pending, mark)
            if self._before is None:
                self._first = min(mark, self._first or mark)

    def forget(self, mark: Mark) -> None:
        """The packet gives no frame, in a file where only that tells."""
        if mark in self._pending:
            self._pending.remove(mark)
            self._lose(1)

    def settle(self, mark: Mark) -> None:
        """A key frame is shown: what was to be decoded before it is shown by now, or lost."""
        if self.damage:
            left = [each for each in self._pending if each.sequence >= mark.sequence]
            self._lose(len(self._pending) - len(left))
            self._pending = left

    def is_late(self, mark: Mark) -> bool:
        """Whether the frame of ``mark`` comes after one that is shown later, behind damage.

        Its place was passed, and it counts as lost already.
        """
        return (
            self.damage
            and mark.stamp is not None
            and self._before is not None
            and mark < self._before
        )

    def place(self, mark: Mark, *, shuffled: bool = False) -> tuple[int, float]:
        """Number and time of the frame that came of a packet.

        Args:
            mark: Mark of the packet.
            shuffled: Time stamps are those of decoding, in another order than the frames: the
                frame has the least that is left.
        """
        if mark.stamp is None:
            self._unstamped += 1
            return self._take(mark)
        if shuffled and self._pending:
            mark = self._pending[0]
        until = bisect.bisect_left(
            self._pending,
            (mark.epoch, mark.stamp),
            key=lambda each: (each.epoch, each.stamp or 0.0),
        )
        missed = self._pending[:until]
        del self._pending[:until]
        if mark in self._pending:
            self._pending.remove(mark)
        if self._before is None:
            first = self._first if self.damage and self._first else mark
            self.clock.start(first.time or 0.0)
        began = self.following
        self._count(missed if self.damage else (), mark)
        self.losses.add(began, self.following - began)
        return self._take(mark)

    def finish(self) -> None:
        """The file is over: what is left of its packets gave no frame."""
        if self.damage:
            self._lose(len(self._pending))
        self._pending.clear()

    def _count(self, missed: Iterable[Mark], mark: Mark) -> None:
        """Go past the frames that were lost before that of ``mark``."""
        for each in (*missed, mark):
            if each.rank is not None:
                self.following = max(self.following, each.rank)
            elif self._before is not None and each.segment > self._before.segment:
                self.following += self._gone_between(self._before, each)
            self._before, self._unstamped = each, 0
            self.following += each is not mark

    def _gone_between(self, before: Mark, after: Mark) -> int:
        holes = range(before.segment + 1, after.segment + 1)
        if self.gone is not None:
            gone = sum(self.gone.get(hole, 0) for hole in holes)
            self.clock.skip(gone)
            return gone
        if before.epoch != after.epoch or before.time is None or after.time is None:
            return 0
        frames = round((after.time - before.time) / self.clock.interval) - 1
        return max(0, frames - self._unstamped)

    def _take(self, mark: Mark) -> tuple[int, float]:
        number = self.following
        self.following += 1
        return number, self.clock.show(mark.time)

    def _lose(self, count: int) -> None:
        self.losses.add(self.following, count)
        self.following += count
