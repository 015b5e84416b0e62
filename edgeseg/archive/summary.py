"""Totals and tables of an archive run.

``pictures.csv``
    One line per label map: ``name source frame height width``, then for each class
    ``share:NAME`` and ``regions:NAME``.
``failures.jsonl``
    One line per failed unit: ``unit kind message hint tries``.
``summary.json``
    :class:`Summary`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgeseg.archive.journal import Record
from edgeseg.archive.work import Failure
from edgeseg.artifacts.documents import Document
from edgeseg.artifacts.files import atomic_path, write_atomic


class ClassTotal(Document):
    """Totals of one class over the whole archive.

    Attributes:
        name: Name of the class.
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
        engine: Path of the engine.
        engine_sha256: SHA-256 of the engine.
        out: The output folder.
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

    Raises:
        UsageError: A file cannot be written.
    """
    head = ["name", "source", "frame", "height", "width"]
    head += [f"{what}:{name}" for name in names for what in ("share", "regions")]
    with atomic_path(out / "pictures.csv") as partial, partial.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(head)
        for key in sorted(records):
            table.writerows(_rows(records[key]))
    lines = io.StringIO()
    for failure in sorted(failures, key=lambda failure: failure.unit.key):
        lines.write(failure.to_json() + "\n")
    write_atomic(out / "failures.jsonl", lines.getvalue())


def _rows(record: Record) -> Iterable[list[object]]:
    for result in record.results:
        area = result.height * result.width
        classes = zip(result.pixels, result.regions, strict=True)
        yield [
            result.name,
            record.source,
            "" if result.frame is None else result.frame,
            result.height,
            result.width,
            *(value for pixels, regions in classes for value in (round(pixels / area, 6), regions)),
        ]
