"""One unit through the engine: what every worker does, wherever it runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgeseg
from edgeseg import errors
from edgeseg.archive.journal import Journal, Labelled, Pending, Record, Tries
from edgeseg.archive.units import Unit
from edgeseg.archive.videos import read_frames
from edgeseg.artifacts import sha256_file
from edgeseg.card import ModelCard
from edgeseg.data.decode import load_image
from edgeseg.documents import Document
from edgeseg.errors import (
    DatasetError,
    DeviceError,
    EdgesegError,
    MismatchedArtifact,
    RuntimeMissing,
    UsageError,
)
from edgeseg.inference import Outputs, segmenter, write_result
from edgeseg.loading import load
from edgeseg.ops.components import components
from edgeseg.ops.overlay import class_areas

TRIES = 3
"""A unit whose worker died so often while it was under way is given up and reported."""


class Job(Document):
    """The same for all units; what every worker gets.

    Attributes:
        version: Of edgeseg, which must be the same on all machines.
        engine: Absolute path, seen by all workers.
        engine_sha256: Of its bytes.
        threads: CPU threads of the engine of each worker.
        tiles: Overlapping tiles at the pictures' own scale.
        margin: Of a tile; None is the default one.
        every: Of a video each such frame.
        outputs: What is written, and where.
        tries: Absolute path of the folder that counts tries.
        work: Hash of what changes the results.
    """

    version: str
    engine: str
    engine_sha256: str
    threads: int
    tiles: bool
    margin: int | None
    every: int
    outputs: Outputs
    tries: str
    work: str


class Failure(Document):
    """A unit that was not done: ``kind`` of the error, what it said, how often it was begun."""

    unit: Unit
    kind: str
    message: str
    mend: str | None = None
    tries: int = 1


class Outcome(Document):
    """What became of a unit: one of these.

    ``refusal`` is no fault of the unit's file and ends the run: an engine that does not open, a
    full disk, a lost GPU.
    """

    record: Record | None = None
    failure: Failure | None = None
    refusal: Failure | None = None


class Desk:
    """An open engine and all that a worker needs beside it. Lives as long as the worker.

    Raises:
        MismatchedArtifact: This machine has another edgeseg or another file as engine.
        UsageError: It does not see the output folder.
        EdgesegError: The engine does not open.
    """

    def __init__(self, job: Job) -> None:
        _check(job)
        self.job = job
        self._engine = load(job.engine, threads=job.threads)
        self._engine.warm_up()
        self._segment = segmenter(self._engine, tiles=job.tiles, margin=job.margin)
        self._journal = Journal(job.outputs.folder).writer()

    @property
    def card(self) -> ModelCard:
        """Of the engine."""
        return self._engine.card

    def do(self, pending: Pending) -> Outcome:
        """Do one unit and make its record last; nothing that its file can cause is raised."""
        tries = Tries(Path(self.job.tries), pending.unit.key)
        count = tries.begin()
        if count > TRIES:
            outcome = Outcome(failure=_given_up(pending.unit, count - 1))
        else:
            outcome = self._outcome(pending, count)
        tries.end()
        return outcome

    def _outcome(self, pending: Pending, count: int) -> Outcome:
        try:
            record = self._record(pending, count)
            self._journal.append(record)
        except (UsageError, RuntimeMissing, DeviceError) as error:
            return Outcome(refusal=failure_of(error, pending.unit, count))
        except OSError as error:
            full = UsageError(f"cannot write the journal: {error}", mend="make room on the disk")
            return Outcome(refusal=failure_of(full, pending.unit, count))
        except Exception as error:  # One file of a million may find what nobody thought of.
            return Outcome(failure=failure_of(error, pending.unit, count))
        return Outcome(record=record)

    def _record(self, pending: Pending, count: int) -> Record:
        unit, known = pending.unit, pending.known
        size, changed, digest = _identity(unit.source)
        if known is not None and known.sha256 == digest:
            results = known.results
        else:
            results = tuple(self._labelled(*each) for each in _pictures(unit, self.job.every))
        return Record(
            unit=unit.key,
            source=unit.source,
            work=self.job.work,
            bytes=size,
            mtime_ns=changed,
            sha256=digest,
            results=results,
            worker=self._journal.worker,
            tries=count,
        )

    def _labelled(self, name: str, frame: int | None, image: NDArray[np.uint8]) -> Labelled:
        labels = self._segment(image)
        classes = self.card.classes
        write_result(classes, image, labels, name, self.job.outputs)
        found = components(labels).classes
        height, width = labels.shape
        return Labelled(
            name=name,
            frame=frame,
            height=height,
            width=width,
            pixels=tuple(class_areas(labels, len(classes)).tolist()),
            regions=tuple(np.bincount(found, minlength=256)[: len(classes)].tolist()),
        )


def failure_of(error: Exception, unit: Unit, tries: int = 1) -> Failure:
    """An exception as it travels from a worker to the run."""
    return Failure(
        unit=unit,
        kind=type(error).__name__,
        message=error.message if isinstance(error, EdgesegError) else f"{unit.source}: {error!r}",
        mend=error.mend if isinstance(error, EdgesegError) else None,
        tries=tries,
    )


def raise_refusal(refusal: Failure) -> None:
    """Raise it again as what it was."""
    kind = getattr(errors, refusal.kind, EdgesegError)
    raise kind(refusal.message, mend=refusal.mend)


def _given_up(unit: Unit, tries: int) -> Failure:
    return Failure(
        unit=unit,
        kind="WorkerDied",
        message=f"{unit.source}: its worker died {tries} times while it was under way",
        mend="look at this file alone: edgeseg infer ENGINE FILE; it may need more memory than "
        "a worker has",
        tries=tries,
    )


def _check(job: Job) -> None:
    if job.version != edgeseg.__version__:
        raise MismatchedArtifact(
            f"a worker has edgeseg {edgeseg.__version__}, the run was started by {job.version}",
            mend="install the same version on all machines of the cluster",
        )
    if not Path(job.tries).is_dir():
        raise UsageError(
            f"a worker does not see {job.outputs.folder}",
            mend="choose an --out on a disk that all machines of the cluster share",
        )
    if sha256_file(Path(job.engine)) != job.engine_sha256:
        raise MismatchedArtifact(
            f"{job.engine}: a worker finds another file there than the run was started with",
            mend="put the engine on a disk that all machines of the cluster share",
        )


def _pictures(unit: Unit, every: int) -> Iterator[tuple[str, int | None, NDArray[np.uint8]]]:
    """(name of the result, number of the frame, uint8 (H, W, 3) BGR)."""
    source = Path(unit.source)
    if unit.first is None:
        yield unit.name, None, load_image(source)
        return
    for number, image in read_frames(source, unit.first, unit.last, every):
        yield f"{unit.name}/{number:06d}", number, image


def _identity(source: str) -> tuple[int, int, str]:
    """Size, time of the last change in ns, and sha256; raises DatasetError."""
    try:
        status = Path(source).stat()
        return status.st_size, status.st_mtime_ns, _digest(source, status.st_mtime_ns)
    except (OSError, UsageError) as error:
        raise DatasetError(f"{source}: cannot be read any more ({error})") from error


@functools.lru_cache(maxsize=4)
def _digest(source: str, changed: int) -> str:  # noqa: ARG001 - part of the key
    """Hashed once for all ranges of a video that a worker does."""
    return sha256_file(Path(source))
