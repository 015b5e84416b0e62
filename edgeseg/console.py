"""Progress bars and log lines on stderr.

Slow library functions accept a ``track`` and are silent by default; the command line passes
:func:`progress_bar`. Stdout is reserved for results.

Names of classes, files, cards and cameras are untrusted text. Characters in it that control a
terminal are shown as Python escapes, by both consoles, by the log, and by
:mod:`edgeseg.cli.output`.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

# C0 and C1 controls, line separators, bidirectional controls (Unicode UAX 9), and surrogates, by
# which Python represents the bytes of names that are not UTF-8.
_STEERING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, *, lines: bool = False) -> str:
    """Escape characters in ``text`` that control a terminal; ``lines`` keeps newlines."""
    return _STEERING.sub(
        lambda found: found[0] if lines and found[0] == "\n" else _escape(found[0]), text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # A raw byte of a name, see PEP 383.
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Track(Protocol):
    """Callable that yields the items of an iterable and shows the progress."""

    def __call__(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterable[Item]: ...


def silent(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """A :class:`Track` that shows nothing."""
    return items


def progress_bar(
    items: Iterable[Item], description: str, total: int | None = None
) -> Iterator[Item]:
    """A :class:`Track` that draws a progress bar if stderr is a terminal."""
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
    """Return the shared rich console on stderr, for progress and log."""
    return _console(stderr=True)


@functools.cache
def stdout_console() -> Console:
    """Return the shared rich console on stdout, for results."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Careful(Console):
        """Console that escapes all rendered text; rich adds its own control codes afterwards."""

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield segment._replace(text=visible(segment.text, lines=True))

        def on_broken_pipe(self) -> None:
            """Stop if the reader of stdout has gone; without a reader of stderr, go on silently."""
            self.quiet = True
            if not self.stderr:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Careful(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


class _ConsoleHandler(logging.Handler):
    """Log handler on the console of the progress bar, so that neither garbles the other."""

    def emit(self, record: logging.LogRecord) -> None:
        shown = copy.copy(record)
        # Newlines in the message itself are intended; those in its arguments are untrusted.
        if isinstance(record.args, Mapping):
            shown.args = {key: _one_line(value) for key, value in record.args.items()}
        elif record.args:
            shown.args = tuple(map(_one_line, record.args))
        line = self.format(shown)
        with contextlib.suppress(OSError):  # A broken log must not end the camera loop.
            if stderr_console.cache_info().currsize:
                stderr_console().print(line, markup=False)
            else:  # Nothing to garble, and importing rich takes longer than the first frame.
                sys.stderr.write(visible(line, lines=True) + "\n")


def _one_line(value: Any) -> Any:
    """Return the value, or its escaped text if that would control a terminal."""
    text = str(value)
    shown = visible(text)
    return value if shown == text else shown


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the log of ``edgeseg`` to stderr, one plain line per message."""
    logger = logging.getLogger("edgeseg")
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
    logger.setLevel(level)
    logger.propagate = False
