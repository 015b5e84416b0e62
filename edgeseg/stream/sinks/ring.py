"""The newest pictures or packets of a source, compressed, within a limit of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.sources.packets import Packet


@dataclass(frozen=True)
class RingPicture:
    """A picture that is kept as JPEG.

    Attributes:
        at: Time in the scene, seconds.
        data: The picture.
        captured_at: Capture time, in seconds of the monotonic clock.
        media_time: Seconds since the first frame of the video; None if unknown.
    """

    at: float
    data: bytes = field(repr=False)
    captured_at: float
    media_time: float | None
    key: ClassVar[bool] = True

    def decode(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 (H, W, 3) BGR."""
        data = np.frombuffer(self.data, np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


Kept: TypeAlias = RingPicture | Packet


class Ring:
    """Pictures and packets in the order of their times; the oldest make room for new ones.

    A key frame and the packets that need it are forgotten together.

    Args:
        limit: Maximum bytes of all pictures. A picture larger than that is not kept.

    Attributes:
        used: Bytes of the pictures.
    """

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit
        self._groups: deque[list[Kept]] = deque()  # each begins with a key frame

    def __iter__(self) -> Iterator[Kept]:
        return chain.from_iterable(self._groups)

    def push(self, picture: Kept) -> list[Kept]:
        """Add a picture, and return those that had to go for the limit.

        A picture from before the last, of a file that begins again, empties the ring first.
        """
        if self._groups and picture.at < self._groups[-1][-1].at:
            self._groups.clear()
            self.used = 0
        if picture.key:
            self._groups.append([])
        elif not self._groups:
            return [picture]
        self._groups[-1].append(picture)
        self.used += len(picture.data)
        evicted = []
        while self.used > self._limit:
            evicted += self._drop()
        return evicted

    def trim(self, since: float) -> None:
        """Forget all that is not needed to show the pictures from ``since`` on."""
        while len(self._groups) > 1 and self._groups[1][0].at <= since:
            self._drop()

    def first(self, since: float, after: float) -> Kept | None:
        """Return the first picture from ``since`` on and later than ``after``; None for none."""
        for group in self._groups:
            if group[-1].at >= since and group[-1].at > after:
                return next(each for each in group if each.at >= since and each.at > after)
        return None

    def key_of(self, picture: Kept) -> Kept:
        """Return the key frame that a picture of the ring needs: itself, or one before it."""
        return next(group[0] for group in reversed(self._groups) if group[0].at <= picture.at)

    def _drop(self) -> list[Kept]:
        group = self._groups.popleft()
        self.used -= sum(len(picture.data) for picture in group)
        return group
