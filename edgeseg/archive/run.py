"""Segment an archive, from paths to a summary."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import edgeseg
from edgeseg.archive.cluster import Cluster, Worker, connected, outcomes
from edgeseg.archive.journal import Journal, Pending, Record, split, work_key
from edgeseg.archive.units import Unit, find_units
from edgeseg.archive.work import Failure, Job, raise_refusal
from edgeseg.artifacts import sidecar
from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import Document
from edgeseg.artifacts.files import atomic_path, require_file, sha256_file, write_atomic
from edgeseg.console import Track, silent
from edgeseg.errors import UsageError
from edgeseg.loading import load
from edgeseg.options.inference import Outputs


class ClassTotal(Document):
    """Totals of one class over the whole archive.

    Attributes:
        pixels: Number of pixels in all label maps.
        share: Fraction of all pixels, 0…1.
        label_maps: Number of label maps that contain the class.
        regions: Number of connected regions; 0 for the background.
    """

    name: str
    pixels: int
    share: float
    label_maps: int
    regions: int


class Summary(Document):
    """Summary of a run; ``edgeseg infer --cluster … --json`` prints it.

    Attributes:
        engine_sha256: SHA-256 of the engine.
        cluster: Address of the cluster, as given.
        units: Number of pictures and video ranges in the archive.
        done: Number of units that this run finished.
        kept: Number of units kept from earlier runs.
        failed: Number of failed units, which ``failures.jsonl`` lists.
        retried: Number of units retried because their worker died.
        label_maps: Number of label maps, those of earlier runs included.
        seconds: Wall time of this run, from before the first worker starts.
        classes: Totals per class over all label maps, those of earlier runs included.
    """

    schema_version: Literal[1] = 1
    engine: str
    engine_sha256: str
    out: str
    cluster: str
    units: int
    done: int
    kept: int
    failed: int
    retried: int
    label_maps: int
    seconds: float
    classes: tuple[ClassTotal, ...]


def class_totals(records: Iterable[Record], names: Sequence[str]) -> tuple[ClassTotal, ...]:
    """Sum up the classes over all label maps."""
    pixels, regions, occurs = np.zeros((3, len(names)), np.int64)
    everything = 0
    for result in (result for record in records for result in record.results):
        pixels += result.pixels
        regions += result.regions
        occurs += np.asarray(result.pixels) > 0
        everything += result.height * result.width
    return tuple(
        ClassTotal(
            name=name,
            pixels=int(pixels[index]),
            share=round(int(pixels[index]) / max(everything, 1), 6),
            label_maps=int(occurs[index]),
            regions=int(regions[index]),
        )
        for index, name in enumerate(names)
    )


def write_tables(
    out: Path, records: Mapping[str, Record], failures: Sequence[Failure], names: Sequence[str]
) -> None:
    """Write ``pictures.csv`` and ``failures.jsonl``, sorted by unit; each is written atomically.

    ``pictures.csv`` has a line per label map: ``name source frame height width``, then for each
    class ``share:NAME`` and ``regions:NAME``. ``failures.jsonl`` has a line per failed unit: ``unit
    kind message hint tries``.

    Raises:
        UsageError: A file cannot be written.
    """
    head = ["name", "source", "frame", "height", "width"]
    head += [f"{what}:{name}" for name in names for what in ("share", "regions")]
    with atomic_path(out / "pictures.csv") as partial, partial.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(head)
        for record in (records[key] for key in sorted(records)):
            for result in record.results:
                area, frame = result.height * result.width, result.frame
                row: list[object] = [result.name, record.source, "" if frame is None else frame]
                row += [result.height, result.width]
                for pixels, regions in zip(result.pixels, result.regions, strict=True):
                    row += [round(pixels / area, 6), regions]
                table.writerow(row)
    listed = sorted(failures, key=lambda failure: failure.unit.key)
    lines = "".join(f"{failure.to_json()}\n" for failure in listed)
    write_atomic(out / "failures.jsonl", lines)


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
        track: Progress callback, one item per unit.

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
        if kept:
            logger.info("keeping %d that an earlier run did", len(kept))
        for reason, count in reasons.most_common():
            logger.info("doing %d again: %s", count, reason)
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
    cluster: Cluster, job: Job, pending: Sequence[Pending], track: Track, worker: type[Worker]
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
    return made.card, replace(config.cluster, gpus=gpus)


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
