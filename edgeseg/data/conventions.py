"""What labels mean, where several files have to agree on it.

Each function looks at all pictures of a data set and yields findings: 255 that stands for an
object, palettes of masks that contradict each other or the declared colours, and EXIF turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.card import ClassMap, Rgb, default_palette
from edgeseg.data.findings import Finding
from edgeseg.data.folders import NUMBERED, numbered_classes
from edgeseg.data.turns import CLEAR, REMOVE_TURN, SETTLE_TURN, turned_away
from edgeseg.errors import DatasetError

_ONE_PALETTE = "save all masks with one palette in the order of classes.json, or as grey PNG of ids"


@dataclass(frozen=True)
class Turn:
    """A picture with an EXIF turn, and what tells whether its labels follow it.

    Attributes:
        image: The picture.
        labels: Its mask or map of objects.
        orientation: Of EXIF, 2 to 8.
        follows: What the sizes say; None where they are equal either way.
        ratio: :func:`edgeseg.data.turns.borders_of_stored`.
    """

    image: Path
    labels: Path
    orientation: int
    follows: bool | None = None
    ratio: float | None = None

    def verdict(self) -> bool | None:
        """Whether the labels follow the turn; None where neither sizes nor borders tell."""
        if self.follows is not None or self.ratio is None:
            return self.follows
        if self.ratio > CLEAR:
            return False
        return True if self.ratio < 1 / CLEAR else None


def check_turns(turns: Sequence[Turn]) -> Iterator[tuple[bool, Finding]]:
    """(whether it is a fault, finding) for each turn that the labels do not follow, or may not.

    Where a picture alone does not tell, the others of the set do if they agree.
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
    """Faults where the ignore value stands for an object in masks of two named classes or more.

    Args:
        root: The data set.
        masks: File → pixels of each id, of all splits.
        classes: As they are named.
    """
    ignore = classes.ignore
    ids = {path: set(values) for path, values in masks.items() if values}
    objects = set().union(*ids.values()) - {0, ignore} if ids else set()
    suspects = sorted(path for path, found in ids.items() if found == {0, ignore})
    if ids and not objects and any(found != {ignore} for found in ids.values()):
        yield _nothing_to_learn(root)
    elif len(classes) == 2 and suspects and not any({1, ignore} <= found for found in ids.values()):
        # Where 255 marks what is not to be scored, some masks hold it beside objects.
        for path in suspects:
            yield Finding(
                "value",
                f"{path}: holds 0 and {ignore} (ignore) where other masks hold 0 and 1: "
                f"{ignore} seems to stand for {classes.names[1]}",
                NUMBERED,
            )


def _nothing_to_learn(root: Path) -> Finding:
    """What the same masks are told where nobody named classes."""
    try:
        numbered_classes(root, 0)
    except DatasetError as error:
        return Finding("classes", error.message, error.mend)
    raise AssertionError("classes were made of nothing")


def check_palettes(
    palettes: Mapping[Path, Mapping[int, Rgb]], classes: ClassMap | None
) -> Iterator[Finding]:
    """Faults where the colours of masks say that the same id is not the same class.

    Args:
        palettes: File → colour of each id that occurs in it, without the ignore value.
        classes: As they are declared; colours that edgeseg made up are no evidence.
    """
    declared = classes.palette if classes else ()
    declared = () if declared == default_palette(len(declared)) else declared
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
    """The first id that has the colour of another class, and that class."""
    known = tuple(declared)
    for index, colour in colours.items():
        if colour in known and known.count(colour) == 1 and known.index(colour) != index:
            return index, known.index(colour)
    return None


def _rgb(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
