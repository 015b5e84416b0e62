"""Checks of what labels mean, across all files of a data set.

Each function looks at all pictures of a data set and yields findings: the ignore value 255 used
for objects, mask palettes that contradict each other or the declared colours, and EXIF orientations
that labels do not follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.card import ClassMap, Rgb, default_palette
from edgeseg.data.findings import Finding
from edgeseg.data.folders import NUMBERED, numbered_classes
from edgeseg.data.turns import CLEAR, REMOVE_TURN, SETTLE_TURN, turned_away
from edgeseg.errors import DatasetError

_ONE_PALETTE = "save all masks with one palette in the order of classes.json, or as grey PNG of ids"


@dataclass(frozen=True)
class Turn:
    """A picture with an EXIF orientation, and evidence whether its labels follow it.

    Attributes:
        image: Path of the picture.
        labels: Path of its mask or object map.
        orientation: EXIF orientation, 2 to 8.
        follows: Whether the labels follow according to the sizes; None if the sizes do not tell.
        ratio: Result of :func:`edgeseg.data.turns.borders_of_stored`.
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
        classes: The declared classes.
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
                f"{path}: its palette gives the id {index} the colour {_rgb(colours[index])}, "
                f"which is that of {classes.names[other]} (id {other})",
                _ONE_PALETTE,
            )
            continue
        for index, colour in colours.items():
            other_colour, other_path = first.setdefault(index, (colour, path))
            if other_colour != colour:
                yield Finding(
                    "palette",
                    f"{path}: its palette gives the id {index} the colour {_rgb(colour)}, that of "
                    f"{other_path} gives it {_rgb(other_colour)}",
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


def _rgb(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
