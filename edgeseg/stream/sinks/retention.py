"""Rotate output files and delete the oldest, including those of earlier runs found by name."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus

logger = logging.getLogger(__name__)

_BLOCK = 4096
"""Bytes; a file takes whole blocks of a disk."""

_DAY_S = 86_400.0

_EXPIRY_S = 60.0
"""Longest time between two looks for files that are too old."""


@dataclass(frozen=True)
class Rotation:
    """Limits after which a file is closed and its next part begins.

    Attributes:
        size: Maximum bytes per part; None for no limit.
        minutes: Maximum minutes per part; None for no limit.

    Raises:
        UsageError: A limit is not positive.
    """

    size: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for limit in (self.size, self.minutes):
            if limit is not None and not limit > 0:
                raise UsageError(f"parts have a positive size and length, not {limit}")


class Budget:
    """Limits on the total size and the age of the files on its shelves.

    Files that are being written count towards the size. Files count as whole blocks of 4 KiB, as
    disks store them. The age of a file is the time since it was last written, by the system's
    clock. May be used by several threads.

    Args:
        limit: Maximum total size in bytes; None for no limit.
        days: Maximum age in days; None for no limit.

    Raises:
        UsageError: A limit is not positive.
    """

    def __init__(self, limit: int | None = None, days: float | None = None) -> None:
        if limit is not None and limit <= 0:
            raise UsageError(f"a budget is a positive number of bytes, not {limit}")
        if days is not None and not days > 0:
            raise UsageError(f"files are kept for a positive number of days, not {days}")
        self.limit = limit
        self.days = days
        self.used = 0
        self._shelves: list[Shelf] = []
        self.lock = threading.RLock()

    def join(self, shelf: Shelf) -> None:
        """Include the files of ``shelf``."""
        with self.lock:
            self._shelves.append(shelf)

    def add(self, count: int) -> None:
        """Count written bytes, and delete the oldest files until the limits are met."""
        with self.lock:
            self.used += count
            while self.days is not None or self._is_over():
                full = [shelf for shelf in self._shelves if shelf.oldest_at is not None]
                oldest = min(full, key=lambda shelf: shelf.oldest_at or 0, default=None)
                # Looking may have shown that files are gone.
                if oldest is None or not (self._is_over() or self._is_old(oldest)):
                    return
                oldest.drop()

    def remove(self, count: int) -> None:
        """Subtract bytes of deleted files."""
        with self.lock:
            self.used -= count

    def _is_over(self) -> bool:
        return self.limit is not None and self.used > self.limit

    def _is_old(self, shelf: Shelf) -> bool:
        if self.days is None or shelf.oldest_at is None:
            return False
        return time.time() - shelf.oldest_at / 1e9 > self.days * _DAY_S


class Expiry(Sink):
    """Deletes the files of a budget when they become too old, even while nothing is written.

    Deleting may take long, so it has a thread of its own.

    Args:
        budget: A budget with ``days``.
    """

    supervised = True

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=str(self), daemon=True)

    def __str__(self) -> str:
        return "the age limit of files"

    def open(self, sources: Sequence[SourceStatus]) -> None:  # noqa: ARG002 - none matters
        """Start the thread."""
        self._thread.start()

    def write(self, result: StreamResult) -> None:
        """Do nothing; files age without results."""

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_EXPIRY_S)

    def _run(self) -> None:
        every = min(_EXPIRY_S, (self._budget.days or 1) * _DAY_S / 20)
        while not self._over.wait(every):
            self._budget.add(0)


class Shelf:
    """The finished files of one output, in the order of their numbers.

    Without ``budget`` and ``keep`` it remembers nothing but the highest number.

    Args:
        folder: Folder that contains the files.
        name: Pattern of file names; its first group is a growing number, dashes ignored.
        budget: Budget that the files count towards.
        keep: Number of files to keep.
        ours: Whether a file with such a name is one that edgeseg wrote; others are never counted
            or deleted. None if the name is enough.
    """

    def __init__(
        self,
        folder: Path,
        name: re.Pattern[str],
        budget: Budget | None = None,
        keep: int | None = None,
        ours: Callable[[Path], bool] | None = None,
    ) -> None:
        self.last = 0
        self._folder, self._name = folder, name
        self._budget, self._keep, self._ours = budget, keep, ours
        self._files: deque[str] = deque()
        self._bytes = 0
        self._current = 0
        self._active: str | None = None
        self._head: os.stat_result | None = None
        self._joined = False
        self._lock = threading.RLock() if budget is None else budget.lock

    def scan(self) -> None:
        """Find existing files; raises OSError if the folder cannot be read."""
        counts = self._budget is not None or self._keep is not None
        found = []
        total = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                match = self._name.fullmatch(entry.name)
                if not match or not entry.is_file(follow_symlinks=False):
                    continue
                if entry.name == self._active:
                    continue
                self.last = max(self.last, _number(match))
                if counts and (self._ours is None or self._ours(Path(entry.path))):
                    found.append((_number(match), entry.name))
                    total += _occupied(entry.stat(follow_symlinks=False).st_size)
        if not counts:
            return
        found.sort()
        with self._lock:
            self._files = deque(name for _, name in found)
            self._head = None
            self._count(total)
            if self._budget is not None and not self._joined:
                self._joined = True
                self._budget.join(self)
                self._budget.add(0)

    def names(self, first: int) -> list[str]:
        """Return the names of existing files numbered ``first`` or higher."""
        found = []
        for path in self._folder.iterdir():
            match = self._name.fullmatch(path.name)
            if match and _number(match) >= first:
                found.append((_number(match), path.name))
        return [name for _, name in sorted(found)]

    def grow(self, path: Path, size: int) -> None:
        """Update the size of the file being written, which is never deleted."""
        with self._lock:
            self._active = path.name
            by = _occupied(size) - self._current
            self._current += by
            if by and self._budget is not None:
                self._budget.add(by)

    def put(self, path: Path, size: int) -> None:
        """Add a finished file, which may be deleted later."""
        with self._lock:
            self._active = None
            by, self._current = _occupied(size) - self._current, 0
            if self._budget is None and self._keep is None:
                return
            self._files.append(path.name)
            self._bytes += _occupied(size)
            if self._budget is not None:
                self._budget.add(by)

    def room(self) -> None:
        """Delete what is too many beside one that is about to be written."""
        while self._keep is not None and len(self._files) >= self._keep:
            self.drop()

    @property
    def oldest_at(self) -> int | None:
        """When its oldest file was written last, nanoseconds; None where there is none."""
        while self._files and self._head is None:
            try:
                self._head = (self._folder / self._files[0]).stat(follow_symlinks=False)
            except FileNotFoundError:  # someone tidied up
                self._rescan()
            except OSError:
                self._files.popleft()
        return self._head.st_mtime_ns if self._head is not None else None

    def drop(self) -> None:
        """Delete the oldest file."""
        if self.oldest_at is None or self._head is None:
            return
        size = _occupied(self._head.st_size)
        path = self._folder / self._files.popleft()
        self._head = None
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.error("cannot delete %s: %s", path, error.strerror or error)
        self._count(self._bytes - size)

    def _rescan(self) -> None:
        try:
            self.scan()
        except OSError:
            self._files.clear()
            self._count(0)

    def _count(self, total: int) -> None:
        if self._budget is not None:
            self._budget.remove(self._bytes - total)
        self._bytes = total


def part_of(path: Path, number: int) -> Path:
    """``drive.mkv`` → ``drive-0007.mkv``."""
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def parts_of(path: Path) -> re.Pattern[str]:
    """The names that :func:`part_of` gives to the parts of ``path``."""
    return re.compile(rf"{re.escape(path.stem)}-(\d{{4,}}){re.escape(path.suffix)}")


def _occupied(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _number(match: re.Match[str]) -> int:
    return int(match[1].replace("-", ""))
