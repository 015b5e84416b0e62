"""The report on a data set, and the checks of what labels mean across all its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeseg.artifacts.card import ClassMap, Rgb, css_colour, default_palette
from edgeseg.artifacts.documents import plural, printable
from edgeseg.data.folders import NUMBERED, numbered_classes
from edgeseg.data.sample import CLEAR, REMOVE_TURN, SETTLE_TURN, Sample, turned_away
from edgeseg.errors import DatasetError

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


_ONE_PALETTE = "save all masks with one palette in the order of classes.json, or as grey PNG of ids"


@dataclass(frozen=True)
class Turn:
    """A picture with an EXIF orientation, and evidence whether its labels follow it.

    Attributes:
        labels: Path of its mask or object map.
        orientation: EXIF orientation, 2 to 8.
        follows: Whether the labels follow according to the sizes; None if the sizes do not tell.
        ratio: Result of :func:`edgeseg.data.sample.borders_of_stored`.
    """

    image: Path
    labels: Path
    orientation: int
    follows: bool | None = None
    ratio: float | None = None

    def verdict(self) -> bool | None:
        """Whether the labels follow the orientation; None if neither sizes nor borders tell."""
        if self.follows is not None or self.ratio is None:
            return self.follows
        if self.ratio > CLEAR:
            return False
        return True if self.ratio < 1 / CLEAR else None


def check_turns(turns: Sequence[Turn]) -> Iterator[tuple[bool, Finding]]:
    """Yield (is a fault, finding) for each EXIF orientation that labels do not seem to follow.

    If a picture alone is inconclusive, the others of the data set decide if they agree.
    """
    known = {verdict for turn in turns if (verdict := turn.verdict()) is not None}
    of_the_set = known.pop() if len(known) == 1 else None
    unsure: list[Turn] = []
    for turn in turns:
        verdict = turn.verdict()
        verdict = of_the_set if verdict is None else verdict
        if verdict is False:
            message = turned_away(turn.image, turn.labels, turn.orientation)
            yield True, Finding("turn", message, REMOVE_TURN)
        elif verdict is None:
            unsure.append(turn)
    for turn in unsure:
        message = (
            f"{turn.image}: carries an EXIF turn (orientation {turn.orientation}), and nothing "
            f"tells whether its labels {turn.labels} follow it"
        )
        yield False, Finding("turn", message, SETTLE_TURN)


def check_ignored(
    root: Path, masks: Mapping[Path, Mapping[int, int]], classes: ClassMap
) -> Iterator[Finding]:
    """Yield faults for masks that seem to use the ignore value for objects.

    Args:
        root: Root folder of the data set.
        masks: Pixel count of each id by mask file, over all splits.
    """
    ignore = classes.ignore
    ids = {path: set(values) for path, values in masks.items() if values}
    objects = set().union(*ids.values()) - {0, ignore} if ids else set()
    suspects = sorted(path for path, found in ids.items() if found == {0, ignore})
    if ids and not objects and any(found != {ignore} for found in ids.values()):
        yield _nothing_to_learn(root)
    elif len(classes) == 2 and suspects and not any({1, ignore} <= found for found in ids.values()):
        # If 255 marks unscored pixels, some masks have it beside objects.
        for path in suspects:
            yield Finding(
                "value",
                f"{path}: holds 0 and {ignore} (ignore) where other masks hold 0 and 1: "
                f"{ignore} seems to stand for {classes.names[1]}",
                NUMBERED,
            )


def _nothing_to_learn(root: Path) -> Finding:
    """The finding for such masks if no classes are declared."""
    try:
        numbered_classes(root, 0)
    except DatasetError as error:
        return Finding("classes", error.message, error.hint)
    raise AssertionError("classes were made of nothing")


def check_palettes(
    palettes: Mapping[Path, Mapping[int, Rgb]], classes: ClassMap | None
) -> Iterator[Finding]:
    """Yield faults for ids whose palette colours show that they mean different classes.

    Args:
        palettes: Colour of each id that occurs, by mask file, without the ignore value.
        classes: The declared classes; colours that edgeseg made up are not compared.
    """
    declared = classes.palette if classes else ()
    if classes and declared == default_palette(len(classes), classes.background):
        declared = ()
    first: dict[int, tuple[Rgb, Path]] = {}
    for path, colours in palettes.items():
        stray = _contradicted(colours, declared)
        if stray is not None and classes:
            index, other = stray
            yield Finding(
                "palette",
                f"{path}: its palette gives the id {index} the colour "
                f"{css_colour(colours[index])}, which is that of {classes.names[other]} "
                f"(id {other})",
                _ONE_PALETTE,
            )
            continue
        for index, colour in colours.items():
            other_colour, other_path = first.setdefault(index, (colour, path))
            if other_colour != colour:
                yield Finding(
                    "palette",
                    f"{path}: its palette gives the id {index} the colour {css_colour(colour)}, "
                    f"that of {other_path} gives it {css_colour(other_colour)}",
                    _ONE_PALETTE,
                )
                break


def _contradicted(colours: Mapping[int, Rgb], declared: Iterable[Rgb]) -> tuple[int, int] | None:
    """Return the first id with the colour of another class, and that class."""
    known = tuple(declared)
    for index, colour in colours.items():
        if colour in known and known.count(colour) == 1 and known.index(colour) != index:
            return index, known.index(colour)
    return None
