"""Files that a stream writes: nothing is replaced unasked, and no link is followed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeseg.artifacts.documents import printable
from edgeseg.errors import EdgesegError, OutputError, UsageError

_NEVER = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}
"""No waiting makes such a path one that can be written."""

_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EXDEV}
"""What a file system answers that has no ``O_TMPFILE``."""

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_refusal(path: Path, error: OSError) -> EdgesegError:
    """The error that says why ``path`` cannot be written: ``OutputError`` where that may pass."""
    shown = printable(str(path))
    if error.errno == errno.EEXIST:
        return UsageError(
            f"{shown} already exists and would be replaced",
            hint="choose another path, or add --overwrite",
        )
    if error.errno == errno.ELOOP:
        return UsageError(
            f"{shown} is a symbolic link, which is not followed: whoever may change the link "
            "decides what is written to",
            hint="name the file itself",
        )
    message = f"cannot write {shown}: {error.strerror or error}"
    if error.errno in _NEVER:
        return UsageError(message, hint="choose another folder")
    return OutputError(
        message, hint="free some space, and check that the folder exists and belongs to you"
    )


def make_folder(folder: Path) -> list[Path]:
    """Make ``folder`` where it is missing.

    Returns:
        The folders that were made, the innermost first.

    Raises:
        UsageError: It is a file, or no folder can have that path.
        OutputError: It cannot be made now; see :func:`write_refusal`.
    """
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(
            f"{printable(str(folder))}: expected a folder, found a file",
            hint="choose another folder",
        ) from error
    except OSError as error:
        raise write_refusal(folder, error) from error
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that :func:`make_folder` made, as far as nothing lies in them."""
    with contextlib.suppress(OSError):  # the first that is not empty
        for folder in folders:
            folder.rmdir()


def lock(handle: int, path: Path) -> None:
    """Hold ``path``, open as ``handle``, for this stream alone until it is closed.

    Raises:
        OutputError: Another process, or another output of this one, holds it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{printable(str(path))} is being written by another stream",
            hint="end that stream, or choose another path",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a network file system
            raise


def lock_folder(folder: Path) -> int:
    """A descriptor of ``folder``, which is this stream's alone until it is closed.

    Raises:
        OutputError: Another process, or another output of this one, holds it.
        OSError: It cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(handle, folder)
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_to_append(path: Path) -> int:
    """A descriptor that appends to ``path``, which is made if it is missing, and locked.

    Pipes and devices, such as ``/dev/stdout``, are opened as they are.

    Raises:
        OSError: It cannot be opened; ELOOP for a symbolic link.
        OutputError: Another process writes it.
    """
    flags = os.O_APPEND | os.O_CLOEXEC
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        return os.open(path, flags | os.O_WRONLY)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(os.lstat(path).st_mode):
            return os.open(path, flags | os.O_WRONLY | os.O_NOFOLLOW)
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    try:
        if is_regular(handle):
            lock(handle, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def is_regular(handle: int) -> bool:
    """Whether it is a file on a disk, not a pipe or a device."""
    return stat.S_ISREG(os.fstat(handle).st_mode)


def is_there(handle: int, path: Path) -> bool:
    """Whether ``path`` still names the file that is open as ``handle``."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(handle))


def write_new(path: Path, data: bytes) -> None:
    """Write a file that was not there, whole or not at all, a kill included.

    Raises:
        FileExistsError: There is something at ``path``.
        OSError: It cannot be written.
    """
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _NO_UNNAMED or not path.parent.is_dir():
            raise
        _write_named(path, data)
        return
    try:
        write_all(handle, data)
        # A descriptor of a folder makes Python call linkat, which follows the link in /proc.
        folder = os.open(path.parent, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.link(
                f"/proc/self/fd/{handle}",
                path.name,
                src_dir_fd=folder,
                dst_dir_fd=folder,
                follow_symlinks=True,
            )
        finally:
            os.close(folder)
    finally:
        os.close(handle)


def write_over(path: Path, data: bytes) -> None:
    """Write ``path``, in the place of what is there, whole or not at all; raises OSError.

    The unfinished file has one name in its folder, so that a killed process leaves one at most,
    which the next run takes away.
    """
    partial = path.parent / f".edgeseg.partial{path.suffix}"
    partial.unlink(missing_ok=True)
    _write_named(partial, data)
    partial.replace(path)


def _write_named(path: Path, data: bytes) -> None:
    handle = os.open(path, _NEW | os.O_WRONLY, 0o666)
    try:
        write_all(handle, data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write to a descriptor until all is written; raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


class Claim:
    """A file that is ours to write, for a library that opens files by their names.

    Args:
        path: The file; its folder is there.
        overwrite: Take one that is there, which stays as it is until it is written to.

    Raises:
        FileExistsError: It is there.
        OSError: It cannot be made; ELOOP for a symbolic link.
        OutputError: Another process writes it.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        flags = _NEW & ~os.O_EXCL if overwrite else _NEW
        self._handle = os.open(path, flags | os.O_WRONLY | os.O_NONBLOCK, 0o666)
        try:
            lock(self._handle, path)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def size(self) -> int:
        """Bytes on the disk so far."""
        return os.fstat(self._handle).st_size

    @property
    def removed(self) -> bool:
        """Whether someone has removed the file; what is written to it is lost."""
        return os.fstat(self._handle).st_nlink == 0

    @contextlib.contextmanager
    def plain_name(self) -> Iterator[str]:
        """A name of it that FFmpeg takes for nothing but a file; raises OSError.

        An absolute path is never a protocol (``file:x``, ``12:30.mkv``) or an option (``-x``).
        OpenCV crashes on a name that is no UTF-8: such a file has another for that moment.
        """
        absolute = self.path.absolute()
        try:
            str(absolute).encode()
        except UnicodeEncodeError:
            with self._renamed(absolute) as name:
                yield name
        else:
            yield str(absolute)
        if not is_there(self._handle, self.path):
            raise OSError("another file took its place while it was opened")

    @contextlib.contextmanager
    def _renamed(self, absolute: Path) -> Iterator[str]:
        folder = os.open(absolute.parent, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        plain = f".edgeseg-{secrets.token_hex(6)}{absolute.suffix}"
        try:
            os.rename(absolute.name, plain, src_dir_fd=folder, dst_dir_fd=folder)
            try:
                yield f"/proc/self/fd/{folder}/{plain}"
            finally:
                os.rename(plain, absolute.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let others have it; a file without a byte is removed."""
        if self.size == 0 and is_there(self._handle, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._handle)
