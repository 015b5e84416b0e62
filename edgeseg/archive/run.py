"""Segment an archive, from paths to a summary."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import edgeseg
from edgeseg.archive.cluster import Cluster, Worker, connected, outcomes
from edgeseg.archive.journal import Journal, Pending, Record, split, work_key
from edgeseg.archive.summary import Summary, class_totals, write_tables
from edgeseg.archive.units import Unit, find_units
from edgeseg.archive.work import Failure, Job, raise_refusal
from edgeseg.artifacts import sidecar
from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import require_file, sha256_file
from edgeseg.console import Track, silent
from edgeseg.errors import UsageError
from edgeseg.loading import load
from edgeseg.options.inference import Outputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveConfig:
    """Configuration of an archive run.

    Attributes:
        engine: Checkpoint, network or engine, on a disk that all workers share.
        paths: Input paths, see :func:`edgeseg.archive.units.find_units`.
        outputs: Outputs to write; the folder must be on a disk that all workers share.
        cluster: Cluster to run on; ``gpus`` is determined by the engine.
        tiles: Segment in overlapping tiles at the pictures' own scale.
        margin: Margin of tiles in pixels; None for the default.
        every: Process every n-th frame of videos.
    """

    engine: Path
    paths: Sequence[str]
    outputs: Outputs
    cluster: Cluster = Cluster()  # noqa: RUF009 - frozen
    tiles: bool = False
    margin: int | None = None
    every: int = 1


def segment_archive(
    config: ArchiveConfig, track: Track = silent, worker: type[Worker] = Worker
) -> Summary:
    """Segment all files that are not done yet, and write tables of all results.

    Files that fail are listed in ``failures.jsonl`` and retried by the next run. Results of an
    earlier run in the same folder are kept if engine and options are the same, the file is
    unchanged (by size and time, or by SHA-256), and its label maps exist.

    Args:
        config: Configuration of the run.
        track: Progress callback, one item per unit.
        worker: Actor class.

    Raises:
        UsageError: There is nothing to segment, two files would have the same output path, a class
            to obscure does not exist, or the output folder is locked by another run or not
            writable.
        ArtifactError: The engine is damaged, or workers see a different file.
        RuntimeMissing: Ray, PyAV or the engine's runtime is missing, or no cluster responds.
        InferenceError: A GPU or the whole cluster failed.
    """
    started = time.monotonic()
    card, cluster = _engine(config)
    config.outputs.styles(card.classes)  # raises before anything is written
    out = config.outputs.folder
    units = find_units(config.paths, out, config.every)
    journal = Journal(out)
    if not journal.folder.is_dir():
        _refuse_to_replace(units, config.outputs)
    with journal.held() as tries:
        job = make_job(config, tries.absolute())
        pending, kept, reasons = split(units, journal.read(), job.work, out)
        _say(len(kept), reasons)
        done, failures = _collect(cluster, job, pending, track, worker)
        records = kept | done
        write_tables(out, records, failures, card.classes.names)
        summary = Summary(
            engine=str(config.engine),
            engine_sha256=job.engine_sha256,
            out=str(out),
            cluster=cluster.address,
            units=len(units),
            done=len(done),
            kept=len(kept),
            failed=len(failures),
            retried=sum(record.tries > 1 for record in done.values()),
            label_maps=sum(len(record.results) for record in records.values()),
            seconds=round(time.monotonic() - started, 3),
            classes=class_totals(records.values(), card.classes.names),
        )
        summary.save(out / "summary.json")
    return summary


def _collect(
    cluster: Cluster,
    job: Job,
    pending: Sequence[Pending],
    track: Track,
    worker: type[Worker],
) -> tuple[dict[str, Record], list[Failure]]:
    done: dict[str, Record] = {}
    failures: list[Failure] = []
    if not pending:
        return done, failures
    # Closed before the cluster, which cancels the units in progress.
    with connected(cluster), closing(outcomes(cluster, job, pending, worker)) as found:
        for outcome in track(found, "segmenting", len(pending)):
            if outcome.refusal is not None:
                raise_refusal(outcome.refusal)
            if outcome.record is not None:
                done[outcome.record.unit] = outcome.record
            if outcome.failure is not None:
                failures.append(outcome.failure)
    return done, failures


def _engine(config: ArchiveConfig) -> tuple[ModelCard, Cluster]:
    """Return the card, and the cluster with the number of GPUs that the engine needs."""
    made = sidecar.read(require_file(config.engine))
    if made is None:
        with load(config.engine, threads=1) as engine:
            return engine.card, config.cluster
    gpus = int(made.runtime in ("tensorrt", "tensorrt-rtx"))
    cluster = config.cluster
    return made.card, Cluster(cluster.address, cluster.workers, cluster.threads, gpus)


def _refuse_to_replace(units: Iterable[Unit], outputs: Outputs) -> None:
    """Refuse an output folder that has results but no journal."""
    for unit in units:
        picture = unit.first is None
        paths = outputs.paths(unit.name) if picture else (outputs.folder / unit.name,)
        for path in filter(None, paths):
            if os.path.lexists(path):
                raise UsageError(
                    f"{path} already exists, does not belong to a run on an archive, and "
                    "would be replaced",
                    hint="choose another --out folder",
                )


def make_job(config: ArchiveConfig, tries: Path) -> Job:
    """Make the job description for workers; ``tries`` is the folder of :meth:`Journal.held`."""
    outputs = config.outputs
    digest = sha256_file(config.engine)
    return Job(
        version=edgeseg.__version__,
        engine=str(config.engine.absolute()),
        engine_sha256=digest,
        threads=config.cluster.threads,
        tiles=config.tiles,
        margin=config.margin,
        every=config.every,
        outputs=replace(outputs, folder=outputs.folder.absolute()),
        tries=str(tries),
        work=work_key(
            engine=digest,
            tiles=config.tiles,
            margin=config.margin,
            every=config.every,
            opacity=outputs.opacity,
            overlays=outputs.overlays,
            coloured=outputs.coloured,
            blur=outputs.blur,
            pixelate=outputs.pixelate,
            blur_margin=outputs.blur_margin,
        ),
    )


def _say(kept: int, reasons: Counter[str]) -> None:
    if kept:
        logger.info("keeping %d that an earlier run did", kept)
    for reason, count in reasons.most_common():
        logger.info("doing %d again: %s", count, reason)
