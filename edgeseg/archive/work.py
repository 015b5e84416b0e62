"""Process one unit with an engine; used by every worker, independent of Ray."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgeseg
from edgeseg import errors
from edgeseg.archive.journal import Journal, Labelled, Pending, Record, Tries
from edgeseg.archive.units import Unit, read_frames
from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import Document
from edgeseg.artifacts.files import sha256_file
from edgeseg.data.decode import load_image
from edgeseg.errors import (
    DatasetError,
    DeviceError,
    EdgesegError,
    MismatchedArtifact,
    OutputError,
    RuntimeMissing,
    UsageError,
)
from edgeseg.inference import segmenter, write_result
from edgeseg.loading import load
from edgeseg.ops.components import components
from edgeseg.ops.overlay import class_areas
from edgeseg.options.inference import Outputs

TRIES = 3
"""Number of attempts after which a unit that kills its worker is reported as failed."""


class Job(Document):
    """The job description that every worker gets.

    Attributes:
        version: Version of edgeseg, which must be the same on all machines.
        engine: Absolute path of the engine, accessible to all workers.
        engine_sha256: SHA-256 of the engine.
        threads: CPU threads of each worker's engine.
        tiles: Segment in overlapping tiles at the pictures' own scale.
        margin: Margin of tiles in pixels; None for the default.
        every: Process every n-th frame of videos.
        outputs: Outputs to write, and their folder.
        tries: Absolute path of the folder that counts attempts.
        work: Hash of everything that affects the results.
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
    """A failed unit: kind and message of the error, and number of attempts."""

    unit: Unit
    kind: str
    message: str
    hint: str | None = None
    tries: int = 1


class Outcome(Document):
    """The outcome of a unit; exactly one field is set.

    ``refusal`` is an error that is not the file's fault and ends the run: an engine that cannot be
    opened, a full disk, a lost GPU.
    """

    record: Record | None = None
    failure: Failure | None = None
    refusal: Failure | None = None


class Desk:
    """A worker's open engine and its context. Lives as long as the worker.

    Raises:
        MismatchedArtifact: This machine has another version of edgeseg or another engine file.
        UsageError: The output folder does not exist on this machine.
        EdgesegError: The engine cannot be opened.
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
        """Model card of the engine."""
        return self._engine.card

    def do(self, pending: Pending) -> Outcome:
        """Process one unit and write its record; errors of its file become failures."""
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
        except (UsageError, OutputError, RuntimeMissing, DeviceError) as error:
            return Outcome(refusal=failure_of(error, pending.unit, count))
        except OSError as error:
            full = OutputError(f"cannot write the journal: {error}", hint="make room on the disk")
            return Outcome(refusal=failure_of(full, pending.unit, count))
        except Exception as error:  # Any file may trigger an unforeseen error.
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
        found = components(labels, classes.background).classes
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
    """Convert an exception to a record that a worker can send to the run."""
    return Failure(
        unit=unit,
        kind=type(error).__name__,
        message=error.message if isinstance(error, EdgesegError) else f"{unit.source}: {error!r}",
        hint=error.hint if isinstance(error, EdgesegError) else None,
        tries=tries,
    )


def raise_refusal(refusal: Failure) -> None:
    """Raise the refusal's original exception."""
    kind = getattr(errors, refusal.kind, EdgesegError)
    raise kind(refusal.message, hint=refusal.hint)


def _given_up(unit: Unit, tries: int) -> Failure:
    return Failure(
        unit=unit,
        kind="WorkerDied",
        message=f"{unit.source}: its worker died {tries} times while it was under way",
        hint="look at this file alone: edgeseg infer ENGINE FILE; it may need more memory than "
        "a worker has",
        tries=tries,
    )


def _check(job: Job) -> None:
    if job.version != edgeseg.__version__:
        raise MismatchedArtifact(
            f"a worker has edgeseg {edgeseg.__version__}, the run was started by {job.version}",
            hint="install the same version on all machines of the cluster",
        )
    if not Path(job.tries).is_dir():
        raise UsageError(
            f"a worker does not see {job.outputs.folder}",
            hint="choose an --out on a disk that all machines of the cluster share",
        )
    if sha256_file(Path(job.engine)) != job.engine_sha256:
        raise MismatchedArtifact(
            f"{job.engine}: a worker finds another file there than the run was started with",
            hint="put the engine on a disk that all machines of the cluster share",
        )


def _pictures(unit: Unit, every: int) -> Iterator[tuple[str, int | None, NDArray[np.uint8]]]:
    """Yield (name of the result, frame number, uint8 (H, W, 3) BGR)."""
    source = Path(unit.source)
    if unit.first is None:
        yield unit.name, None, load_image(source)
        return
    for number, image in read_frames(source, unit.first, unit.last, every):
        yield f"{unit.name}/{number:06d}", number, image


def _identity(source: str) -> tuple[int, int, str]:
    """Return size, modification time in ns, and SHA-256; raises DatasetError."""
    try:
        status = Path(source).stat()
        return status.st_size, status.st_mtime_ns, _digest(source, status.st_mtime_ns)
    except (OSError, UsageError) as error:
        raise DatasetError(f"{source}: cannot be read any more ({error})") from error


@functools.lru_cache(maxsize=4)
def _digest(source: str, changed: int) -> str:  # noqa: ARG001 - part of the key
    """Hash a file; cached, so that a worker hashes a video once for all its ranges."""
    return sha256_file(Path(source))
