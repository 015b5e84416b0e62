"""Totals of an archive, and its tables.

``pictures.csv``
    A line for each label map: ``name source frame height width``, then for each class
    ``share:NAME`` and ``regions:NAME``.
``failures.jsonl``
    A line for each unit that was not done: ``unit kind message mend tries``.
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
from edgeseg.artifacts import atomic_path, write_atomic
from edgeseg.documents import Document


class ClassTotal(Document):
    """One class over the whole archive.

    Attributes:
        name: Of the class.
        pixels: In all label maps.
        share: Of all pixels, 0…1.
        label_maps: In which it occurs.
        regions: Connected regions; the background (class 0) has none.
    """

    name: str
    pixels: int
    share: float
    label_maps: int
    regions: int


class Summary(Document):
    """What a run leaves behind; ``edgeseg infer --cluster … --json`` prints it.

    Attributes:
        engine: Path.
        engine_sha256: Of its bytes.
        out: The output folder.
        cluster: As it was named.
        units: Pictures and ranges of videos in the archive.
        done: Units of this run.
        kept: Units that an earlier run did and that still hold.
        failed: Units that were not done; ``failures.jsonl`` says why.
        retried: Units that were begun again, since their worker died.
        label_maps: Pictures and frames that have one now.
        seconds: Of this run, from before the first worker was started.
        classes: Totals over all label maps, of earlier runs too.
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
    """Sums over all label maps, exact."""
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
    """``pictures.csv`` and ``failures.jsonl``, sorted by unit, whole or not at all.

    Raises:
        UsageError: They cannot be written.
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
