"""How many threads OpenCV uses while a stream's network has the cores."""

from __future__ import annotations

import cv2


def use_one_thread() -> None:
    """Let OpenCV compute in the thread that calls it.

    Its own threads spin before they sleep, which takes a core more time than the small label maps
    of a stream gain by them: 0.5 ms of 5.7 in a 720p frame.
    """
    cv2.setNumThreads(1)
