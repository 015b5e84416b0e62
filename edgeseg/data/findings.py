"""The report on a data set: statistics per split, faults and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import printable
from edgeseg.data.sample import Sample

LISTED = 20
"""Maximum number of findings per kind in the text report; JSON has all."""


@dataclass(frozen=True)
class Finding:
    """One problem or observation.

    Attributes:
        kind: ``pair``, ``file``, ``size``, ``value``, ``classes``, ``split``, ``unlabelled``,
            ``duplicate``, ``similar``, ``turn`` (EXIF), ``palette`` or ``skipped``.
        message: One sentence that names the file.
        hint: Hint for a fix, or None.
    """

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class ClassCount:
    """Frequency of a class in a split; ``share`` is its fraction of the labelled pixels."""

    name: str
    pixels: int
    share: float
    pictures: int


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of one split, over the files that could be read.

    Attributes:
        name: Name of the split, e.g. ``train``; empty if the data set has no splits.
        pictures: Number of labelled pictures.
        sizes: (``WIDTHxHEIGHT``, number of pictures), most frequent first.
        classes: Frequency of each class, ordered by id.
        ignored_share: Fraction of all pixels that is unlabelled.
        objects: Number of objects, None if there are no object maps.
    """

    name: str
    pictures: int
    sizes: tuple[tuple[str, int], ...]
    classes: tuple[ClassCount, ...]
    ignored_share: float
    objects: int | None


@dataclass(frozen=True)
class Findings:
    """The result of :func:`edgeseg.data.check.check`.

    ``faults`` are problems that training refuses and duplicates across splits; ``warnings`` need a
    human judgement. ``samples`` are the complete samples of each split, ``classes`` the classes
    that training would use, None if unknown.
    """

    root: Path
    layout: str
    splits: tuple[SplitSummary, ...]
    faults: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    samples: Mapping[str, tuple[Sample, ...]]
    classes: ClassMap | None

    @property
    def background(self) -> str | None:
        """Name of the background class; None if there is none or the classes are unknown."""
        if self.classes is None or self.classes.background is None:
            return None
        return self.classes.names[self.classes.background]

    def to_dict(self) -> dict[str, object]:
        """Return the findings as JSON types."""
        splits = [
            asdict(split)
            | {
                "sizes": [{"size": size, "pictures": count} for size, count in split.sizes],
                "classes": [asdict(count) for count in split.classes],
            }
            for split in self.splits
        ]
        return {
            "data": str(self.root),
            "layout": self.layout,
            "background": self.background,
            "splits": splits,
            "faults": [asdict(finding) for finding in self.faults],
            "warnings": [asdict(finding) for finding in self.warnings],
        }


def render(findings: Findings) -> str:
    """Format the findings as text."""
    return "\n".join(_lines(findings)) + "\n"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 picture``, ``2 pictures``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _lines(findings: Findings) -> Iterator[str]:
    yield f"{printable(str(findings.root))}: layout {findings.layout}"
    if findings.classes is not None:
        yield f"background: {printable(findings.background or 'none, overlays paint every class')}"
    for split in findings.splits:
        yield ""
        objects = "" if split.objects is None else f", {plural(split.objects, 'object')}"
        yield f"{split.name or 'all'}: {plural(split.pictures, 'picture')}{objects}"
        shown = [f"{size} ({count})" for size, count in split.sizes[:6]]
        more = len(split.sizes) - len(shown)
        if shown:
            yield "  sizes: " + ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        width = max((len(printable(count.name)) for count in split.classes), default=0)
        for count in split.classes:
            share = f"{count.share:8.2%} of pixels, in {count.pictures} of {split.pictures}"
            yield f"  {printable(count.name):<{width}} {share}"
        if split.ignored_share:
            yield f"  {'(ignored)':<{width}} {split.ignored_share:8.2%} of all pixels"
    for title, found in (("faults", findings.faults), ("warnings", findings.warnings)):
        yield ""
        yield f"{title}: {len(found) or 'none'}"
        shown_mend = None
        for finding in found[:LISTED]:
            yield f"  {printable(finding.message, 1000)}"
            if finding.hint and finding.hint != shown_mend:
                yield f"    hint: {printable(finding.hint, 1000)}"
            shown_mend = finding.hint
        if len(found) > LISTED:
            yield f"  … and {len(found) - LISTED} more; --json lists them all"
