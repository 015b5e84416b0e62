"""What people see while they wait: progress and log lines, all on stderr.

Library functions that take long accept a ``track`` and are silent by default; the command
line passes :func:`progress_bar`. Stdout belongs to results alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


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
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@functools.cache
def stdout_console() -> Console:
    """The one rich console on stdout, for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


class _ConsoleHandler(logging.Handler):
    """Prints through the console that draws the bar, so that neither garbles the other."""

    def emit(self, record: logging.LogRecord) -> None:
        stderr_console().print(self.format(record), markup=False)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the log of ``edgeseg`` to stderr, one plain line a message."""
    logger = logging.getLogger("edgeseg")
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
    logger.setLevel(level)
    logger.propagate = False
