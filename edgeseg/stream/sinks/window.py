"""Show overlays in a window, several sources as a mosaic, controlled by keys."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus, StopStream
from edgeseg.stream.sinks.snapshots import save_snapshot
from edgeseg.stream.view import View, write_line

_WIDTH = 1280
"""Of the whole, in pixels."""


class Mosaic:
    """Tiles in rows, letterboxed; a single one has the size of its picture."""

    def __init__(self, count: int) -> None:
        self._columns = math.ceil(math.sqrt(count))
        self._rows = math.ceil(count / self._columns)
        self._single = count == 1
        width = _WIDTH // self._columns
        self.tile = (width * 9 // 16, width)
        self.picture = np.zeros((self.tile[0] * self._rows, width * self._columns, 3), np.uint8)

    def fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture, uint8 (H, W, 3), at the size of a tile, black beside it; always a copy."""
        if self._single:
            return picture.copy()
        height, width = self.tile
        scale = min(height / picture.shape[0], width / picture.shape[1])
        inner = (
            max(1, min(height, round(picture.shape[0] * scale))),
            max(1, min(width, round(picture.shape[1] * scale))),
        )
        tile = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        tile[top : top + inner[0], left : left + inner[1]] = cv2.resize(
            picture, inner[::-1], interpolation=cv2.INTER_LINEAR
        )
        return tile

    def put(self, place: int, tile: NDArray[np.uint8]) -> None:
        """Show what :meth:`fitted` made as tile number ``place``."""
        if self._single:
            self.picture = tile
            return
        row, column = divmod(place, self._columns)
        height, width = self.tile
        top, left = row * height, column * width
        self.picture[top : top + height, left : left + width] = tile


HELP = (
    "+ -    more, less of the classes",
    "0      picture alone, and back",
    "n p    next, previous class",
    "c      that class off, on",
    "a      all classes on",
    "o      outlines",
    "l      names on regions",
    "k      legend",
    "space  freeze the picture; the stream continues",
    "s      save picture and mask",
    "h      this help",
    "q Esc  quit",
)

_STEP = 0.1
_ESCAPE = 27

Wish = Literal["quit", "snapshot"]


@dataclass
class Controls:
    """Settings that the user chose with the keyboard.

    Attributes:
        view: Current drawing settings; None until something was changed.
        helping: Whether the list of keys is shown on the picture.
        selected: Id of the class that ``c`` toggles; None before one was chosen.
        message: Message about the last key, shown on the picture; empty if its effect is visible.
    """

    view: View | None = None
    paused: bool = False
    helping: bool = False
    selected: int | None = None
    message: str = ""

    def press(self, key: int, view: View, classes: ClassMap) -> Wish | None:
        """Act on a key.

        Args:
            key: Key code as returned by OpenCV.
            classes: Class names, and which of them is the background.

        Returns:
            Action that the window must carry out; None if there is none.
        """
        character = chr(key) if 0 <= key < 0x110000 else ""
        if key == _ESCAPE or character == "q":
            return "quit"
        if character == "s":
            return "snapshot"
        self.message = ""
        if character == " ":
            self.paused = not self.paused
        elif character == "h":
            self.helping = not self.helping
        elif character in ("n", "p"):
            self._select(1 if character == "n" else -1, view, classes)
        else:
            self._change(character, view, classes)
        return None

    def _select(self, by: int, view: View, classes: ClassMap) -> None:
        """Select the next class, skipping the background, which is never drawn."""
        drawn = _drawn(classes)
        place = (0 if by > 0 else -1) if self.selected is None else drawn.index(self.selected) + by
        self.selected = drawn[place % len(drawn)]
        self._show_selected(view, classes)

    def _change(self, character: str, view: View, classes: ClassMap) -> None:
        """Change the view for a key that affects drawing."""
        if character in ("+", "="):
            self.view = replace(view, opacity=min(1.0, round(view.opacity + _STEP, 2)))
        elif character == "-":
            self.view = replace(view, opacity=max(0.0, round(view.opacity - _STEP, 2)))
        elif character == "0":
            self.view = replace(view, bare=not view.bare)
        elif character == "o":
            self.view = replace(view, outline=not view.outline)
        elif character == "l":
            self.view = replace(view, names=not view.names)
        elif character == "k":
            self.view = replace(view, legend=not view.legend)
        elif character == "a":
            self.view = replace(view, hidden=frozenset())
        elif character == "c":
            if self.selected is None:
                self.selected = _drawn(classes)[0]
            self.view = replace(view, hidden=view.hidden ^ {self.selected})
            self._show_selected(self.view, classes)

    def _show_selected(self, view: View, classes: ClassMap) -> None:
        assert self.selected is not None
        off = " (off)" if self.selected in view.hidden else ""
        self.message = f"class {self.selected}: {classes.names[self.selected]}{off}"


def _drawn(classes: ClassMap) -> list[int]:
    return [label for label in range(len(classes)) if label not in classes.clear]


logger = logging.getLogger(__name__)

_TRY = "import cv2; cv2.namedWindow('edgeseg', cv2.WINDOW_NORMAL); cv2.waitKey(1)"
_TRY_S = 20.0

_STALE_S = 1.0
"""Without a frame for so long, a picture is greyed: it must not be mistaken for a live one."""

_SHOWN_S = 1 / 60
"""Least time between two pictures; a screen shows no more."""


class Window(Sink):
    """Shows overlays until ``q``, Escape or the window's close button; ``h`` lists the keys.

    What is chosen there changes no other sink's pictures. Several sources are tiles of one
    window. Must be written to from the main thread, as window systems ask.

    Whether a window can be opened is tried in another process, since Qt ends the whole process
    when the display is not there or refuses it; results go by unseen until that is known. Where
    none can be opened (no display, OpenCV without GUI) it logs that once and does nothing.

    Args:
        title: Title of the window.
        snapshots: Folder for the pictures that ``s`` saves.
    """

    def __init__(self, title: str = "edgeseg", snapshots: Path = Path("snapshots")) -> None:
        self.title = title
        self.snapshots = snapshots
        self.controls = Controls()
        self.shows_overlay = False
        self._opened = False
        self._trial: subprocess.Popen[bytes] | None = None
        self._tried_at = 0.0
        self._labels: list[str] = []
        self._mosaic = Mosaic(1)
        self._shown: dict[int, StreamResult] = {}
        self._came_at: dict[int, float] = {}
        self._drawn_at = 0.0

    def __str__(self) -> str:
        return "the window"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Begin to try, or say why there is no window."""
        self._labels = [source.label for source in sources]
        self._mosaic = Mosaic(len(sources))
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            _warn_without("neither DISPLAY nor WAYLAND_DISPLAY is set")
            return
        none = subprocess.DEVNULL
        command = [sys.executable, "-c", _TRY]
        self._trial = subprocess.Popen(command, stdin=none, stdout=none, stderr=none)
        self._tried_at = time.monotonic()

    def write(self, result: StreamResult) -> None:
        """Show a result; raises StopStream when the user quits."""
        self._came_at[result.camera] = time.monotonic()
        if not self.controls.paused or result.camera not in self._shown:
            self._shown[result.camera] = result
        if self._is_open() and time.monotonic() - self._drawn_at >= _SHOWN_S:
            self._show(None if self.controls.helping or self.controls.message else result.camera)
            self._obey()

    def idle(self) -> None:
        """Keep the window alive, and grey what is no longer live; raises as ``write``."""
        if self._is_open():
            self._show(None)
            self._obey()

    def close(self) -> None:
        """Close the window."""
        if self._trial is not None:
            self._trial.kill()
            self._trial.wait()
            self._trial = None
        if self._opened:
            self._opened = self.shows_overlay = False
            cv2.destroyAllWindows()

    def _is_open(self) -> bool:
        """Whether there is a window; opens it when the trial has gone well."""
        if self._trial is not None:
            code = self._trial.poll()
            late = time.monotonic() - self._tried_at > _TRY_S
            if code is None and not late:
                return False
            self.close()
            if code != 0:
                silent = "the display does not answer"
                refused = "the display refuses, or OpenCV has no GUI"
                _warn_without(silent if code is None else refused)
                return False
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            self._opened = self.shows_overlay = True
        return self._opened

    def _show(self, camera: int | None) -> None:
        """Redraw one source or all, and always those that are stale."""
        now = time.monotonic()
        if self._drawn_at and self._is_gone():
            raise StopStream  # drawing would bring it back
        for each in self._shown:
            silent = now - self._came_at[each]
            if camera in (None, each) or silent > _STALE_S:
                self._mosaic.put(each, self._tile(each, silent))
        if self._mosaic.picture.size:
            cv2.imshow(self.title, self._mosaic.picture)
        self._drawn_at = now

    def _tile(self, camera: int, silent: float) -> NDArray[np.uint8]:
        """The picture of a source with what is to say about it."""
        result = self._shown[camera]
        view = self.controls.view
        tile = self._mosaic.fitted(result.overlay() if view is None else result.draw(view))
        lines = [self.controls.message] if self.controls.message else []
        if len(self._labels) > 1:
            lines.append(self._labels[camera])
        if self.controls.paused:
            lines.append("PAUSED")
        if silent > _STALE_S:
            grey = cv2.cvtColor(tile, cv2.COLOR_BGR2GRAY) // 2
            tile = np.repeat(grey[..., np.newaxis], 3, axis=2)
            lines.append(f"no frame for {silent:.0f} s")
        if self.controls.helping:
            lines.extend(reversed(HELP))
        for number, line in enumerate(lines):
            write_line(tile, line, number)
        return tile

    def _obey(self) -> None:
        key = cv2.waitKey(1)
        if self._is_gone():
            raise StopStream
        if key < 0 or not self._shown:
            return
        first = next(iter(self._shown.values()))
        view = self.controls.view or first.view
        wish = self.controls.press(key & 0xFF, view, first.classes)
        if wish == "quit":
            raise StopStream
        if wish == "snapshot":
            self._save(view)
        # Nobody needs the stream's own overlay drawn beforehand when another view is shown.
        self.shows_overlay = self.controls.view is None
        self._show(None)

    def _is_gone(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # OpenCV's Qt is gone with its last window
            return True

    def _save(self, view: View) -> None:
        for result in self._shown.values():
            try:
                path, _ = save_snapshot(self.snapshots, result.draw(view), result.mask())
            except OSError as error:
                self.controls.message = f"cannot save: {error.strerror}"
                logger.error("cannot save a snapshot to %s: %s", self.snapshots, error.strerror)
                return
            self.controls.message = f"saved {path.name}"
            logger.warning("saved %s and its mask", path)


def _warn_without(why: str) -> None:
    logger.warning("no window: %s; the stream continues without it", why)
