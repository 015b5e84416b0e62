"""The overlay in a window; without a display the stream goes on and says so once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence

import cv2

from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source, StopStream

_log = logging.getLogger(__name__)

_TRY = "import cv2; cv2.namedWindow('edgeseg', cv2.WINDOW_NORMAL); cv2.waitKey(1)"


class Window(Sink):
    """Shows overlays until ``q``, Escape or the window's close button.

    Must be written to from the main thread, as window systems ask. Where no window can be
    opened (no display, OpenCV without GUI) it logs that once and does nothing.
    """

    def __init__(self, title: str = "edgeseg") -> None:
        self.title = title
        self.shows_overlay = False

    def __str__(self) -> str:
        return "the window"

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002 - the sink protocol's
        """Open the window, or say why there is none."""
        why = why_no_window()
        if why is not None:
            _log.warning("no window: %s; the stream goes on without", why)
            return
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self.shows_overlay = True

    def write(self, result: StreamResult) -> None:
        """Raises StopStream when the user wants no more."""
        if not self.shows_overlay:
            return
        cv2.imshow(self.title, result.overlay())
        key = cv2.waitKey(1) & 0xFF
        if key in (ord("q"), 27) or cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1:
            raise StopStream

    def close(self) -> None:
        """Close the window."""
        if self.shows_overlay:
            cv2.destroyWindow(self.title)


def why_no_window() -> str | None:
    """Why no window can be opened here, None where one can.

    Qt ends the whole process when the display is not there or refuses it, so another process
    tries first.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    try:
        attempt = subprocess.run(
            [sys.executable, "-c", _TRY], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "the display does not answer"
    return None if attempt.returncode == 0 else "the display refuses, or OpenCV has no GUI"
