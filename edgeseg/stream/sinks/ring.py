"""The newest pictures of a source, compressed, within a limit of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RingPicture:
    """A picture that is kept as JPEG.

    Attributes:
        at: Time in the scene, seconds.
        jpeg: The picture.
        captured_at: Capture time, in seconds of the monotonic clock.
        media_time: Seconds since the first frame of the video; None if unknown.
    """

    at: float
    jpeg: bytes
    captured_at: float
    media_time: float | None

    def decode(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 (H, W, 3) BGR."""
        data = np.frombuffer(self.jpeg, np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


class Ring:
    """Pictures in the order of their times; the oldest make room for new ones.

    Args:
        limit: Maximum bytes of all pictures. A picture larger than that is not kept.

    Attributes:
        used: Bytes of the pictures.
    """

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit
        self._pictures: deque[RingPicture] = deque()

    def __iter__(self) -> Iterator[RingPicture]:
        return iter(self._pictures)

    def push(self, picture: RingPicture) -> list[RingPicture]:
        """Add a picture, and return those that had to go for the limit.

        A picture from before the last, of a file that begins again, empties the ring first.
        """
        if self._pictures and picture.at < self._pictures[-1].at:
            self._pictures.clear()
            self.used = 0
        self._pictures.append(picture)
        self.used += len(picture.jpeg)
        evicted = []
        while self.used > self._limit:
            evicted.append(self._drop())
        return evicted

    def trim(self, since: float) -> None:
        """Forget pictures from before ``since``."""
        while self._pictures and self._pictures[0].at < since:
            self._drop()

    def first(self, since: float, after: float) -> RingPicture | None:
        """Return the first picture from ``since`` on and later than ``after``; None for none."""
        rest = dropwhile(lambda each: each.at < since or each.at <= after, self._pictures)
        return next(rest, None)

    def _drop(self) -> RingPicture:
        picture = self._pictures.popleft()
        self.used -= len(picture.jpeg)
        return picture
