"""Files on disk: hashed, written whole or not at all, read with a size cap, found by age.

An artefact is ``runs/NAME/model.safetensors``, ``model.onnx``, ``model.fp16.onnx``,
``model.int8.onnx``, ``model.ranges.json``, ``model.fp16.engine`` …; beside each network
lies its side-car ``ARTEFACT.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeseg.errors import CorruptArtifact, UsageError

MAX_JSON_BYTES = 16 * 1024 * 1024
"""Cap for cards, side-cars, manifests and range files; a larger one is not ours."""


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file at ``path``, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that replaces it when the block ends well.

    The old file stays whole until then, and stays if the block raises. The suffix is
    kept, since OpenCV and others choose the format by it.

    Raises:
        UsageError: The folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.stem}.{secrets.token_hex(6)}.partial{path.suffix}"
        partial.open("xb").close()
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}",
            mend="choose an output folder that you can write",
        ) from error
    try:
        yield partial
        _flush_to_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}",
            mend="choose an output path that you can write, with room on the disk",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` whole or not at all (text as UTF-8)."""
    with atomic_path(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def read_capped(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a small file.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: It is empty, larger than ``limit`` bytes, or unreadable.
    """
    require_file(path)
    size = path.stat().st_size
    if size > limit:
        raise CorruptArtifact(f"{path}: expected at most {limit} bytes, found {size}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptArtifact(f"{path}: cannot be read: {error.strerror or error}") from error


def require_file(path: Path) -> Path:
    """Return ``path`` if it is a file with something in it.

    Raises:
        UsageError: There is nothing there, or it is a folder.
        CorruptArtifact: The file is empty.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a file was expected")
    if not path.is_file():
        raise UsageError(f"{path}: no such file", mend="check the path")
    if path.stat().st_size == 0:
        raise CorruptArtifact(f"{path} is empty", mend="make it again, or copy it again")
    return path


def newest(root: Path, patterns: Iterable[str]) -> Path | None:
    """The most recently written file under ``root`` whose name matches one of ``patterns``.

    Patterns are those of :meth:`pathlib.Path.glob` one run deep, e.g. ``*/model.onnx``.
    """
    found = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _flush_to_disk(path: Path) -> None:
    """Make the bytes durable before the rename, else a power cut leaves an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
