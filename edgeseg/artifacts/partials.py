"""Temporary files and folders that do not outlive their writer, and locks between processes.

A writer locks its temporary file, and the kernel releases the lock when the process ends, even if
it is killed. So an unlocked temporary file is stale, and the next writer in the folder removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from edgeseg.errors import UsageError

_NAME = re.compile(r"\..+\.([0-9a-f]{4})[0-9a-f]{8}\.partial(\.[^.]*)?", re.DOTALL)
_LOCK = ".edgeseg-lock"
_LOOKED_AT = 1000
"""Number of folder entries that a write checks; the first write of a process checks all."""

_FORGOTTEN = 24 * 3600.0
"""Seconds until a file of another machine counts as stale: locks may not be shared with it."""


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Create an empty file beside ``path`` with its suffix; removed at the end unless renamed.

    Raises:
        OSError: The folder cannot be written.
    """
    _sweep(path.parent)
    while True:
        partial = _name_in(path.parent, path.stem, path.suffix)
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        _lock(handle)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # Another process removed it as stale before it was locked.
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder in ``folder``, removed at the end with its contents.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    _sweep(folder)
    while True:
        partial = _name_in(folder, "build", "")
        partial.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # Removed as stale before it was locked.
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(handle)
            if partial.exists():
                break
            os.close(handle)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def alone(path: Path, *, doing: str) -> Iterator[None]:
    """Keep other processes from making ``path`` at the same time.

    The lock is a file ``.NAME.edgeseg-lock`` beside it, which is removed at the end, or by the
    next writer into that folder. Processes that this one forks do not inherit the lock, so a
    worker that outlives it blocks nobody.

    Args:
        path: File to protect; its folder is created if necessary.
        doing: Verb for the error message, e.g. ``trains``.

    Raises:
        UsageError: Another process holds the lock, or the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}{_LOCK}")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(lock)
    except BlockingIOError as error:
        raise UsageError(
            f"another process {doing} {path} right now",
            hint="wait until it has ended, or choose another path",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}",
            hint="choose a folder that you can write",
        ) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _taken(lock: Path) -> int:
    """Lock a file and return its descriptor; BlockingIOError if another process holds it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # POSIX allows either.
            os.close(handle)
            raise BlockingIOError(*error.args) from error
        except OSError:
            return handle  # A file system without locks.
        if os.fstat(handle).st_nlink:
            # A sweep must know its own locks without opening them: closing would release them.
            os.ftruncate(handle, os.getpid())
            return handle
        os.close(handle)  # Removed by the one that had it.


def _name_in(folder: Path, stem: str, suffix: str) -> Path:
    # The stem is truncated, so that a long name does not exceed the limit of the file system.
    return folder / f".{stem[:40]}.{_machine()}{secrets.token_hex(4)}.partial{suffix}"


@functools.cache
def _machine() -> str:
    return hashlib.sha256(os.uname().nodename.encode(errors="replace")).hexdigest()[:4]


def _lock(handle: int) -> None:
    with contextlib.suppress(OSError):  # A file system without locks, where nothing is swept.
        fcntl.flock(handle, fcntl.LOCK_EX)


def _sweep(folder: Path) -> None:
    _sweep_all(str(folder.absolute()))
    _remove_left(folder, _LOOKED_AT)


@functools.lru_cache(maxsize=64)
def _sweep_all(folder: str) -> None:
    _remove_left(Path(folder), None)


def _remove_left(folder: Path, limit: int | None) -> None:
    """Remove stale files among the first ``limit`` entries of the folder; None checks all."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, limit):
            if ".partial" in entry.name and (match := _NAME.fullmatch(entry.name)):
                with contextlib.suppress(OSError):
                    _remove_if_left(entry, of_here=match[1] == _machine())
            elif entry.name.endswith(_LOCK):
                with contextlib.suppress(OSError):
                    _remove_lock_if_left(Path(entry.path))


def _remove_if_left(entry: os.DirEntry[str], *, of_here: bool) -> None:
    if not of_here and time.time() - entry.stat(follow_symlinks=False).st_mtime < _FORGOTTEN:
        return
    is_folder = entry.is_dir(follow_symlinks=False)
    if not is_folder and not entry.is_file(follow_symlinks=False):
        return
    how = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_NONBLOCK
    handle = os.open(entry.path, how | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder:
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink()
    finally:
        os.close(handle)


def _remove_lock_if_left(path: Path) -> None:
    if path.lstat().st_size == os.getpid():
        return
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(handle)
