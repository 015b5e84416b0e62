"""Files on disk: hash them, write them atomically, read them safely, find the newest.

An artefact is ``runs/NAME/model.safetensors``, ``model.onnx``, ``model.fp16.onnx``,
``model.int8.onnx``, ``model.ranges.json``, ``model.fp16.engine`` …; beside each network
lies its side-car ``ARTEFACT.json``.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeseg.artifacts.partials import partial_file
from edgeseg.errors import CorruptArtifact, EdgesegError, OutputError, UntrustedArtifact, UsageError

MAX_JSON_BYTES = 16 * 1024 * 1024
"""Maximum size of cards, side-cars, manifests and range files, in bytes."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system answers where a disk or a quota is full."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that Git LFS keeps in a file's place until the file is fetched."""

LFS_HINT = "fetch it with `git lfs pull` in its repository"

_AGAIN = "make it again, or copy it again"


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file at ``path``, read in pieces of 1 MiB; raises as ``open_file``."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def open_file(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file for reading; never block.

    A pipe in a file's place would block an ordinary ``open`` for ever, and some devices read
    without end.

    Args:
        follow: Whether the last part of the path may be a symbolic link.

    Raises:
        UsageError: There is nothing there, or it is a folder.
        CorruptArtifact: It is a pipe, a device or a socket, a link that leads nowhere, a pointer
            of Git LFS, or cannot be read.
        UntrustedArtifact: It is a symbolic link and those are not followed.
    """
    path = Path(path)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    try:
        _require_regular(path, os.fstat(handle).st_mode)
    except EdgesegError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as stream:
        try:
            if os.pread(handle, len(LFS_POINTER), 0) == LFS_POINTER:
                raise CorruptArtifact(f"{path} is a pointer of Git LFS", hint=LFS_HINT)
            yield stream
        except OSError as error:
            raise CorruptArtifact(
                f"{path}: cannot be read: {error.strerror or error}", hint="copy it again"
            ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it if the block succeeds.

    The old file is untouched until then, and kept if the block raises. The suffix is
    kept, since OpenCV and others choose the format by it.

    Raises:
        UsageError: The folder cannot be made or written.
        OutputError: The disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_special(path)
        with partial_file(path) as partial:
            yield partial
            _flush_to_disk(partial)
            partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` whole or not at all (text as UTF-8)."""
    with atomic_path(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def refuse_to_replace(*outputs: Path, overwrite: bool, inputs: Collection[Path] = ()) -> None:
    """Refuse to replace existing files; every command calls this before it starts to work.

    A link counts as existing wherever it leads, a folder only if it is not empty.

    Args:
        outputs: Files or folders that the command will write.
        overwrite: Whether the user asked for replacement, with ``--overwrite``.
        inputs: Files and folders that the command reads, which no output may replace, even with
            ``overwrite``. For a folder, this protects all files in its subfolders.

    Raises:
        UsageError: One of them exists and ``overwrite`` is False, is an input, is named twice,
            or lies where nothing can be written.
    """
    read = {place for path in inputs for place in _places(Path(path))}
    folders = [Path(path).resolve() for path in inputs if Path(path).is_dir()]
    written: set[object] = set()
    for path in map(Path, outputs):
        places = _places(path)
        if not read.isdisjoint(places) or _is_there_below(path, folders):
            raise UsageError(
                f"{path} is an input of this command and would be replaced by its output",
                hint="choose another path for the output",
            )
        if not written.isdisjoint(places):
            raise UsageError(
                f"two outputs would be written to {path}", hint="give each a path of its own"
            )
        written |= places
        try:
            _refuse_special(path)
            taken = not overwrite and _is_taken(path)
            _require_room(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        if taken:
            raise UsageError(
                f"{path} already exists and would be replaced",
                hint="choose another path, or add --overwrite",
            )


def cannot_write(path: Path, error: OSError) -> UsageError | OutputError:
    """Return the error for an output that cannot be written: OutputError if the disk is full."""
    message = f"cannot write {path}: {error.strerror or error}"
    if error.errno in FULL:
        hint = "make room on that disk, or choose an output path on another"
        return OutputError(message, hint=hint)
    return UsageError(message, hint="choose an output path that you can write")


def read_capped(path: Path, limit: int = MAX_JSON_BYTES, *, follow: bool = True) -> bytes:
    """Read a small file, through a symbolic link only if ``follow``.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: It is empty, larger than ``limit`` bytes, or no readable file.
        UntrustedArtifact: It is a symbolic link and those are not followed.
    """
    with open_file(path, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise CorruptArtifact(
                f"{path}: expected at most {limit} bytes, found {size}",
                hint="edgeseg writes no file of this size: check the name, or copy the file again",
            )
        # One byte more than allowed, in case the file has grown.
        data = stream.read(limit + 1)
    if not data:
        raise CorruptArtifact(f"{path} is empty", hint=_AGAIN)
    if len(data) > limit:
        raise CorruptArtifact(f"{path}: expected at most {limit} bytes, and it grows")
    return data


def require_file(path: Path) -> Path:
    """Return ``path`` if it is a file, or a link to one, with something in it.

    Raises:
        UsageError: There is nothing there, or it is a folder.
        CorruptArtifact: It is empty, a link that leads nowhere, or a pipe, device or socket.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    _require_regular(path, status.st_mode)
    if status.st_size == 0:
        raise CorruptArtifact(f"{path} is empty", hint=_AGAIN)
    return path


def require_text(path: Path) -> None:
    """Refuse a path that is not valid UTF-8, but must be passed on as text.

    Raises:
        UsageError: The path is not valid UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{path}: its name is not valid UTF-8, but has to be written as text",
            hint="rename the file or the folder whose name is not valid UTF-8",
        ) from error


def is_file(path: Path) -> bool:
    """Whether :func:`require_file` would pass; False for a path that no disk can hold."""
    try:
        require_file(path)
    except EdgesegError:
        return False
    return True


def newest(root: Path, patterns: Iterable[str]) -> Path | None:
    """The most recently written file under ``root`` whose name matches one of ``patterns``.

    Patterns are those of :meth:`pathlib.Path.glob` one run deep, e.g. ``*/model.onnx``.
    """
    found = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _places(path: Path) -> set[object]:
    """Return keys that identify a file, for comparison: its real path, and device and inode."""
    places: set[object] = {os.path.realpath(path)}
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # A folder may hold both an input and an output.
            places.add((status.st_dev, status.st_ino))
    return places


def _is_there_below(path: Path, folders: Iterable[Path]) -> bool:
    """Whether the file exists and lies in a folder within one of ``folders``."""
    return path.is_file() and any(folder in path.resolve().parent.parents for folder in folders)


def _refuse_special(path: Path) -> None:
    """Refuse devices and pipes, which a rename by root would replace, e.g. ``/dev/null``."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UsageError(
                f"cannot write {path}: it is {_kind(mode)}", hint="name a file on a disk"
            )


def _kind(mode: int) -> str:
    known = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return known.get(stat.S_IFMT(mode), "a device")


def _is_taken(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


def _require_room(path: Path) -> None:
    """Raise OSError if the folder of an output cannot be created or written."""
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"{path} is a folder; a file was expected", hint=f"name a file in it: `ls {path}`"
        )
    if not stat.S_ISREG(mode):
        raise _no_file(path, _kind(mode))


def _no_file(path: Path, found: str) -> CorruptArtifact:
    return CorruptArtifact(f"{path} is {found}; a file was expected", hint="name a file on a disk")


def _cannot_open(path: Path, error: OSError | ValueError) -> EdgesegError:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
        target = path.readlink()
        if number == errno.ELOOP and path.exists():
            return UntrustedArtifact(
                f"{path} is a symbolic link to {target}, which is not followed here: whoever may "
                "change the link decides what is loaded",
                hint=f"name the file itself: {path.resolve()}",
            )
        leads = "leads in a circle" if number == errno.ELOOP else "leads nowhere"
        return CorruptArtifact(
            f"{path} is a symbolic link to {target} that {leads}",
            hint=f"remove the link (`rm {path}`) and copy the file itself",
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return UsageError(f"{path}: no such file", hint="check the path")
    if number == errno.ENXIO:  # What a socket gives.
        return _no_file(path, "a socket")
    if number is None or number == errno.ENAMETOOLONG:
        name = str(path)
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        return UsageError(f"{shown!r}: no file can have this name", hint="check the path")
    why = error.strerror if isinstance(error, OSError) else error
    return CorruptArtifact(
        f"{path}: cannot be read: {why}", hint=f"check its permissions: `ls -l {path}`"
    )


def _flush_to_disk(path: Path) -> None:
    """Flush to disk before the rename; otherwise a power cut could leave an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Stranger(NamedTuple):
    """Problem with the permissions of a file, and the command that fixes it, without the path."""

    fault: str
    hint: str


def stranger(status: os.stat_result) -> Stranger | None:
    """Return who else may change the file that ``status`` describes; None if nobody.

    The rule is that of OpenSSH in Debian for its own files: the owner is the user or root, and
    nobody else may write. A group with one member is that member, so that a umask of 002 on a
    system where each user has a group of their own is not a danger.
    In a folder with the sticky bit, as ``/tmp`` has it, others can add files but not replace any.
    """
    if status.st_uid not in (os.geteuid(), 0):
        return Stranger(f"belongs to {_user(status.st_uid)}", f"chown {os.geteuid()}")
    mode = status.st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    shown = f"(mode {stat.S_IMODE(mode):03o})"
    if mode & stat.S_IWOTH:
        return Stranger(f"is writable by every user of this machine {shown}", "chmod o-w")
    if mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return Stranger(f"is writable by {_group(status.st_gid)} {shown}", "chmod g-w")
    return None


def _is_private(group: int, user: int) -> bool:
    """Whether the user is the only known member of the group."""
    try:
        name = pwd.getpwuid(user).pw_name
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return members <= {name} and {p.pw_name for p in pwd.getpwall() if p.pw_gid == group} == {name}


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"


def _group(number: int) -> str:
    try:
        return f"the group {grp.getgrgid(number).gr_name}"
    except KeyError:
        return f"the group {number}"
