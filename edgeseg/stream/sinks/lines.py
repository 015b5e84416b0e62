"""A text file or stream of JSON documents, one a line, and the time stamps in them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.stream.sinks.files import (
    is_regular,
    is_there,
    make_folder,
    open_to_append,
    write_all,
    write_refusal,
)
from edgeseg.stream.sinks.retention import Budget, Rotation, Shelf, part_of, parts_of

logger = logging.getLogger(__name__)

_OURS = re.compile(rb'\s*\{\s*"(?:frame|event)"')
"""Start of every line that a stream writes."""

_LONGEST = 1 << 20
"""Bytes in which the end of the last whole line is looked for."""


class Lines:
    """Writes JSON documents without buffering, so that others can follow the file.

    An existing file is appended to, after removing an incomplete last line left by a killed
    process. With ``rotation`` a full file is renamed to ``NAME-0001.jsonl`` and so on, following
    the highest existing number, and a new one is begun, as when another program moves it away.

    Args:
        target: A path, or an open text stream, which stays open.
        rotation: When the next part begins; None for one file.
        budget: Budget that the parts of all runs count towards.
        overwrite: Truncate an existing file instead of appending to it.
    """

    def __init__(
        self,
        target: Path | TextIO,
        rotation: Rotation | None = None,
        budget: Budget | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self._target = target
        self._rotation = rotation or Rotation()
        self._budget = budget
        self._overwrite = overwrite
        self._stream: TextIO | None = None
        self._handle: int | None = None
        self._regular = False
        self._size = 0
        self._full_at = float("inf")
        self._shelf: Shelf | None = None

    def __str__(self) -> str:
        return printable(str(self._target)) if isinstance(self._target, Path) else "the output"

    def open(self) -> None:
        """Open the file for appending; create it the first time.

        Raises:
            UsageError: It cannot be made, is a symbolic link, or holds something else.
            OutputError: The disk is full or gone, or another process writes it.
        """
        if not isinstance(self._target, Path):
            self._stream = self._target
            return
        if self._shelf is None:  # a folder that went away with its disk is not created again
            make_folder(self._target.parent)
        try:
            self._handle = open_to_append(self._target)
            try:
                self._regular = is_regular(self._handle)
                if self._regular:
                    self._go_on(self._target)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise write_refusal(self._target, error) from error

    def write(self, document: Mapping[str, Any]) -> None:
        """Write one line, or nothing.

        Raises:
            BrokenPipeError: Nobody reads the pipe any more.
            OSError: The disk is full.
        """
        line = json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
        if self._stream is not None:
            self._stream.write(line)
            self._stream.flush()
            return
        # A name that is no UTF-8 holds lone surrogates, which JSON writes as \udcff.
        data = line.encode("utf-8", "backslashreplace")
        if self._regular:
            self._make_ready(len(data))
        self._append(data)

    def close(self) -> None:
        """Close the file, unless it was given open."""
        self._stream = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _go_on(self, path: Path) -> None:
        """Find out where the file stands and which parts there are."""
        assert self._handle is not None
        if self._overwrite:
            os.ftruncate(self._handle, 0)
            self._overwrite = False  # what is written from here on is ours
        head = os.pread(self._handle, _LONGEST, 0)
        if head.strip(b"\0 \r\n") and not _OURS.match(head):
            raise UsageError(
                f"{self} already exists and holds no lines of a stream",
                hint="choose another path, or add --overwrite to start over",
            )
        self._size = _mended(self._handle, str(self))
        age = _age_s(head)
        if self._rotation.minutes is not None:
            self._full_at = time.monotonic() + self._rotation.minutes * 60 - age
        if self._shelf is None:
            self._shelf = Shelf(path.parent, parts_of(path), self._budget)
        self._shelf.scan()
        self._shelf.grow(path, self._size)

    def _make_ready(self, more: int) -> None:
        """Begin the next part where this one is full, or again where the file was moved away."""
        assert self._handle is not None
        assert isinstance(self._target, Path)
        if not is_there(self._handle, self._target):
            self._begin_anew()
        limit = self._rotation.size
        large = limit is not None and self._size + more > limit
        if self._size and (large or time.monotonic() >= self._full_at):
            assert self._shelf is not None
            number = self._shelf.last + 1
            while os.path.lexists(part := part_of(self._target, number)):
                number += 1
            self._target.rename(part)
            self._shelf.last = number
            self._shelf.put(part, self._size)
            self._begin_anew()

    def _begin_anew(self) -> None:
        assert isinstance(self._target, Path)
        self.close()
        self._handle = open_to_append(self._target)
        self._size = os.fstat(self._handle).st_size
        minutes = self._rotation.minutes
        self._full_at = float("inf") if minutes is None else time.monotonic() + minutes * 60

    def _append(self, data: bytes) -> None:
        """Write all of it or, on a regular file, nothing."""
        assert self._handle is not None
        try:
            write_all(self._handle, data)
        except OSError:
            if self._regular:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        if self._shelf is not None and isinstance(self._target, Path):
            self._shelf.grow(self._target, self._size)


def _mended(handle: int, name: str) -> int:
    """The size of a file that ends with a whole line; a torn one is cut off."""
    size = os.fstat(handle).st_size
    start = max(0, size - _LONGEST)
    tail = os.pread(handle, size - start, start)
    end = tail.rfind(b"\n") + 1
    torn = tail[end:]
    if not torn or (not end and start):
        return size
    try:
        json.loads(torn)
    except ValueError:
        if _OURS.match(torn) or b"\0" in torn or b'{"frame"'.startswith(torn):
            logger.warning("%s ended within a line, of which %d bytes are cut off", name, len(torn))
            os.ftruncate(handle, start + end)
            return start + end
    os.write(handle, b"\n")
    return size + 1


def _age_s(head: bytes) -> float:
    """Seconds since the first line of a file was written, by its time stamp; 0 without one."""
    try:
        stamp = json.loads(head.partition(b"\n")[0])["time"]
        began = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0.0
    return max(0.0, time.time() - began.timestamp())


def time_stamp(at: float) -> str:
    """A moment of the monotonic clock as date and time: ISO 8601, UTC, milliseconds.

    For comparing with what other machines logged; durations are differences of ``at``.
    """
    wall = time.time() - (time.monotonic() - at)
    stamp = datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
