"""Options of what must not be recognisable in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options
from edgeseg.options.parsing import split_zone

Style = Literal["blur", "pixelate"]

MARGIN = 8
"""Default margin around a region, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Obscuring(Options):
    """Classes whose regions are made unrecognisable, see :mod:`edgeseg.ops.obscure`.

    A text names one class or several, separated by commas.
    """

    blur: Annotated[
        tuple[str, ...],
        Option("Blur regions of these classes in every picture.", metavar="CLASS[,CLASS]"),
    ] = ()
    pixelate: Annotated[
        tuple[str, ...],
        Option("Pixelate regions of these classes in every picture.", metavar="CLASS[,CLASS]"),
    ] = ()
    blur_margin: Annotated[
        int, Field(ge=0, le=1000), Option("Pixels around a region to blur or pixelate as well.")
    ] = MARGIN

    def styles(self, classes: ClassMap) -> Mapping[Style, tuple[int, ...]]:
        """Return the ids of the classes to blur and to pixelate; styles without any are left out.

        Raises:
            UsageError: A name is not a class of the network, or has both styles.
        """
        found: dict[Style, tuple[int, ...]] = {}
        texts: dict[Style, tuple[str, ...]] = {"blur": self.blur, "pixelate": self.pixelate}
        for style, given in texts.items():
            ids = [_id_of(name, style, classes) for text in given for name in _names(text, classes)]
            if ids:
                found[style] = tuple(sorted(set(ids)))
        both = set(found.get("blur", ())) & set(found.get("pixelate", ()))
        if both:
            name = printable(classes.names[min(both)], 80)
            raise UsageError(
                f"{name} would be blurred and pixelated", hint="name it for one of the two"
            )
        return found


def _checked_zone(text: str) -> str:
    split_zone(text)
    return text


def _anchored_zone(text: str, folder: Path) -> str:
    zone, source = split_zone(text)
    return f"{folder / zone}" + ("" if source is None else f" on {source}")


@dataclass(frozen=True, kw_only=True)
class Privacy(Obscuring):
    """What is not to be seen in a stream; applied before a result reaches any output."""

    blur_hold: Annotated[
        float,
        Field(ge=0, le=60),
        Option("Seconds, and one frame at least, that a place stays blurred or pixelated."),
    ] = 0.5
    cover: Annotated[
        tuple[str, ...],
        Option(
            "Paint this zone black in every frame, of one source or of all; repeatable.",
            metavar="ZONE.json [on SOURCE]",
            parse=_checked_zone,
            anchor=_anchored_zone,
        ),
    ] = ()

    def zones(self) -> list[tuple[Path, int | None]]:
        """Return the file and the source of each covered zone; None is every source."""
        return [split_zone(text) for text in self.cover]


def _names(text: str, classes: ClassMap) -> list[str]:
    """Split at commas, unless a class is named like the whole text."""
    if text in classes.names:
        return [text]
    return [part.strip() for part in text.split(",")]


def _id_of(name: str, style: Style, classes: ClassMap) -> int:
    if name not in classes.names:
        raise UsageError(
            f"--{style}: expected a class of the network, found {printable(name, 80)!r}",
            hint=f"its classes are {', '.join(classes.names)}",
        )
    return classes.names.index(name)
