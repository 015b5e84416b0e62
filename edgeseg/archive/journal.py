"""What is done, kept in the output folder, so that the same command goes on where it stopped.

::

    OUT/journal/lock                    held while a run writes here
    OUT/journal/HOST-PID-TOKEN.jsonl    one file a worker: a line for each unit that it finished
    OUT/journal/tries-RUN/              one file for each unit under way: a byte for each start

A worker appends a line when all files of the unit are on the disk. Nobody else writes to its
file, so a death can cut the last line and no other; a cut line never was, and its unit is done
again. A unit that was done twice has two lines and counts once.
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
from edgeseg.artifacts import open_file
from edgeseg.documents import Document, first_problem
from edgeseg.errors import CorruptArtifact, UsageError


class Labelled(Document):
    """One label map: of a picture, or of a frame of a video.

    Attributes:
        name: ``OUT/NAME.labels.png``, and ``OUT/NAME.overlay.png`` where overlays were asked for.
        frame: Number of the frame, None of a picture.
        height: Pixels.
        width: Pixels.
        pixels: Of each class.
        regions: Connected regions of each class; the background (class 0) has none.
    """

    name: str
    frame: int | None
    height: int
    width: int
    pixels: tuple[int, ...]
    regions: tuple[int, ...]


class Record(Document):
    """A unit that is done.

    Attributes:
        unit: Its key.
        source: Path of the file, as the worker read it.
        work: Hash of the engine and of all options that change what is written.
        bytes: Size of the file.
        mtime_ns: When it was changed last.
        sha256: Of its bytes.
        results: The label maps, in order of frames.
        worker: ``HOST-PID-TOKEN``.
        tries: Which start of it ended well, from 1.
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
    """The folder ``OUT/journal``.

    Args:
        out: The output folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "journal"

    @contextlib.contextmanager
    def held(self) -> Iterator[Path]:
        """Hold the output folder; gives the folder for the tries of this run.

        Raises:
            UsageError: Another run holds it, or it cannot be written.
        """
        tries = self.folder / f"tries-{secrets.token_hex(4)}"
        try:
            tries.mkdir(parents=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}: {error.strerror}", mend="choose another --out"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                tries.rmdir()
                raise UsageError(
                    f"another run is writing to {self.out}", mend="wait for it, or end it first"
                ) from error
            for stale in self.folder.glob("tries-*"):
                if stale != tries:
                    shutil.rmtree(stale, ignore_errors=True)
            try:
                yield tries
            finally:
                shutil.rmtree(tries, ignore_errors=True)

    def read(self) -> dict[str, Record]:
        """Key of a unit → its newest record.

        Raises:
            CorruptArtifact: A line is no record, and it is not a last one that was cut.
        """
        found: dict[str, Record] = {}
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            found |= {record.unit: record for record in _records(path)}
        return found

    def writer(self) -> JournalWriter:
        """The file of this process."""
        return JournalWriter(self.folder)


class JournalWriter:
    """One worker's own file; made by its first record."""

    def __init__(self, folder: Path) -> None:
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f"{self.worker}.jsonl"

    def append(self, record: Record) -> None:
        """Make a record last; raises OSError where the disk refuses."""
        with self._path.open("ab") as stream:
            stream.write(record.to_json().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


class Tries:
    """Counts how often a unit was begun and not ended: what kills its worker shows here alone.

    Args:
        folder: That of the run.
        key: The unit's.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def begin(self) -> int:
        """Count one more; which it is, from 1."""
        with self._path.open("ab") as stream:
            stream.write(b"x")
        return self._path.stat().st_size

    def end(self) -> None:
        """The unit ended, well or with a reason."""
        self._path.unlink(missing_ok=True)


class Pending(Document):
    """A unit to do.

    Attributes:
        unit: The unit.
        known: What an earlier run made of the same name, where only size or time of the file
            are others now: the same bytes need not be done again.
    """

    unit: Unit
    known: Record | None = None


def split(
    units: Iterable[Unit], done: dict[str, Record], work: str, out: Path
) -> tuple[list[Pending], dict[str, Record], Counter[str]]:
    """What is to do; the records that hold; and why others do not, counted."""
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
    """Why a record does not hold, the most telling reason first; empty where it does."""
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
                return  # Cut by a death; nothing follows it.
            try:
                yield Record.model_validate_json(line)
            except ValidationError as error:
                raise CorruptArtifact(
                    f"{path}:{number}: {first_problem(error)}",
                    mend=f"remove {path}: the units it names are done again",
                ) from error


def work_key(**parts: object) -> str:
    """Hash of all that changes what is written."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
