"""The journal of finished units in the output folder, from which a run can be resumed.

::

    OUT/journal/lock                    held while a run writes here
    OUT/journal/HOST-PID-TOKEN.jsonl    one file per worker, with a line per finished unit
    OUT/journal/tries-RUN/              one file per unit in progress, with a byte per attempt

A worker appends a line when all files of a unit are written. Only that worker writes to its file,
so a crash can truncate only the last line, which is then ignored and its unit repeated. A unit that
was processed twice has two lines and counts once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from edgeseg.archive.units import Unit
from edgeseg.artifacts.documents import Document, first_problem
from edgeseg.artifacts.files import open_file
from edgeseg.errors import CorruptArtifact, UsageError


class Labelled(Document):
    """One label map, of a picture or a video frame.

    Attributes:
        name: Name of the files ``OUT/NAME.labels.png`` and, if requested, ``OUT/NAME.overlay.png``.
        frame: Frame number in the video, None for a picture.
        height: Height in pixels.
        width: Width in pixels.
        pixels: Pixel count of each class.
        regions: Number of connected regions of each class; 0 for the background.
    """

    name: str
    frame: int | None
    height: int
    width: int
    pixels: tuple[int, ...]
    regions: tuple[int, ...]


class Record(Document):
    """A finished unit.

    Attributes:
        source: Path of the source file on the worker.
        work: Hash of the engine and all options that affect the results.
        mtime_ns: Modification time of the source file, in nanoseconds.
        sha256: SHA-256 of the source file.
        results: Label maps, in frame order.
        worker: Worker id, ``HOST-PID-TOKEN``.
        tries: Number of the successful attempt, from 1.
    """

    unit: str
    source: str
    work: str
    bytes: int
    mtime_ns: int
    sha256: str
    results: tuple[Labelled, ...]
    worker: str
    tries: int


class Journal:
    """The journal folder, ``OUT/journal``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "journal"

    @contextlib.contextmanager
    def held(self) -> Iterator[Path]:
        """Lock the output folder; yields the folder that counts this run's attempts.

        Raises:
            UsageError: Another run holds the lock, or the folder is not writable.
        """
        tries = self.folder / f"tries-{secrets.token_hex(4)}"
        try:
            tries.mkdir(parents=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}: {error.strerror}", hint="choose another --out"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                tries.rmdir()
                raise UsageError(
                    f"another run is writing to {self.out}", hint="wait for it, or end it first"
                ) from error
            for stale in self.folder.glob("tries-*"):
                if stale != tries:
                    shutil.rmtree(stale, ignore_errors=True)
            try:
                yield tries
            finally:
                shutil.rmtree(tries, ignore_errors=True)

    def read(self) -> dict[str, Record]:
        """Read the newest record of each unit, by key.

        Raises:
            CorruptArtifact: A line is not a record, and not a truncated last line.
        """
        found: dict[str, Record] = {}
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            found |= {record.unit: record for record in _records(path)}
        return found

    def writer(self) -> JournalWriter:
        """Create a writer for this process."""
        return JournalWriter(self.folder)


class JournalWriter:
    """Writes one worker's journal file, created on the first record."""

    def __init__(self, folder: Path) -> None:
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f"{self.worker}.jsonl"

    def append(self, record: Record) -> None:
        """Append a record and flush it to disk; raises OSError if that fails."""
        with self._path.open("ab") as stream:
            stream.write(record.to_json().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


class Tries:
    """Counts the unfinished attempts of a unit, to detect units that kill their worker.

    Args:
        folder: Folder of the run's attempt files.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def begin(self) -> int:
        """Count a new attempt and return its number, from 1."""
        with self._path.open("ab") as stream:
            stream.write(b"x")
        return self._path.stat().st_size

    def end(self) -> None:
        """Mark the unit as finished, successfully or with an error."""
        self._path.unlink(missing_ok=True)


class Pending(Document):
    """A unit to process.

    Attributes:
        known: Record of an earlier run if only size or modification time of the file differ; if
            the file's hash is unchanged, it need not be processed again.
    """

    unit: Unit
    known: Record | None = None


def split(
    units: Iterable[Unit], done: dict[str, Record], work: str, out: Path
) -> tuple[list[Pending], dict[str, Record], Counter[str]]:
    """Return the pending units, the valid records, and a count of reasons for invalid ones."""
    pending, kept, reasons = [], {}, Counter[str]()
    for unit in units:
        record = done.get(unit.key)
        reason = "" if record is None else _outdated(unit, record, work, out)
        if record is not None and not reason:
            kept[unit.key] = record
            continue
        reasons.update([reason] if reason else [])
        pending.append(Pending(unit=unit, known=record if reason == _CHANGED else None))
    return pending, kept, reasons


_CHANGED = "another size or time of the file"


def _outdated(unit: Unit, record: Record, work: str, out: Path) -> str:
    """Return the main reason why a record is outdated; empty if it is valid."""
    if record.work != work:
        return "another engine or other options"
    if not all((out / f"{result.name}.labels.png").exists() for result in record.results):
        return "label maps that are gone"
    try:
        status = Path(unit.source).stat()
    except OSError:
        return "files that are gone"
    if (record.bytes, record.mtime_ns) != (status.st_size, status.st_mtime_ns):
        return _CHANGED
    return ""


def _records(path: Path) -> Iterator[Record]:
    with open_file(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return  # Truncated by a crash; nothing follows.
            try:
                yield Record.model_validate_json(line)
            except ValidationError as error:
                raise CorruptArtifact(
                    f"{path}:{number}: {first_problem(error)}",
                    hint=f"remove {path}: the units that it names are then done again",
                ) from error


def work_key(**parts: object) -> str:
    """Hash everything that affects the results."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
