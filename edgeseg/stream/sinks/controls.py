"""State of a window's keyboard controls, independent of any window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edgeseg.artifacts.card import ClassMap
from edgeseg.stream.view import View

HELP = (
    "+ -    more, less of the classes",
    "0      picture alone, and back",
    "n p    next, previous class",
    "c      that class off, on",
    "a      all classes on",
    "o      outlines",
    "l      names on regions",
    "k      legend",
    "space  stand still; the stream goes on",
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
        paused: Whether the picture is paused.
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
            view: Current drawing settings.
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
