"""What people see while they wait: progress and log lines, all on stderr.

Library functions that take long accept a ``track`` and are silent by default; the command
line passes :func:`progress_bar`. Stdout belongs to results alone.

Names of classes and files, cards and cameras are other people's text. What in it would steer a
terminal is shown as an escape sequence of Python's, by both consoles, by the log, and by
:mod:`edgeseg.output`.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

# Controls of C0 and C1, separators of lines, what turns the direction of writing (Unicode's
# UAX 9), and halves of surrogate pairs, by which Python keeps the bytes of names that are no UTF-8.
_STEERING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, *, lines: bool = False) -> str:
    """``text`` with escapes for what would steer a terminal; newlines stay where ``lines``."""
    return _STEERING.sub(
        lambda found: found[0] if lines and found[0] == "\n" else _escape(found[0]), text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # A byte of a name, see PEP 383.
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Track(Protocol):
    """Yields the items of an iterable and shows how far it has come."""

    def __call__(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterable[Item]: ...


def silent(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """A :class:`Track` that shows nothing."""
    return items


def progress_bar(
    items: Iterable[Item], description: str, total: int | None = None
) -> Iterator[Item]:
    """A :class:`Track` that draws a bar on stderr where that is a terminal."""
    from rich.progress import track

    console = stderr_console()
    yield from track(
        items,
        description,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@functools.cache
def stderr_console() -> Console:
    """The one rich console on stderr, for progress and log."""
    return _console(stderr=True)


@functools.cache
def stdout_console() -> Console:
    """The one rich console on stdout, for results."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Careful(Console):
        """Escapes all text that is rendered; rich's own control codes come after that."""

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield segment._replace(text=visible(segment.text, lines=True))

        def on_broken_pipe(self) -> None:
            """Nobody reads any more: the end of a result, but not of work that is only logged."""
            self.quiet = True
            if not self.stderr:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Careful(stderr=stderr, highlight=False, soft_wrap=True)


class _ConsoleHandler(logging.Handler):
    """Prints through the console that draws the bar, so that neither garbles the other."""

    def emit(self, record: logging.LogRecord) -> None:
        shown = copy.copy(record)
        # Newlines are ours in the text of a message, and others' in what is put into it.
        if isinstance(record.args, Mapping):
            shown.args = {key: _one_line(value) for key, value in record.args.items()}
        elif record.args:
            shown.args = tuple(map(_one_line, record.args))
        with contextlib.suppress(OSError):  # A log that nobody can read ends no camera loop.
            stderr_console().print(self.format(shown), markup=False)


def _one_line(value: Any) -> Any:
    """The value itself unless its text would steer a terminal."""
    text = str(value)
    shown = visible(text)
    return value if shown == text else shown


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the log of ``edgeseg`` to stderr, one plain line a message."""
    logger = logging.getLogger("edgeseg")
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
    logger.setLevel(level)
    logger.propagate = False
