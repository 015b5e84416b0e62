"""The structure of a report: a page of blocks, which renderers turn into HTML and Markdown.

Text is plain; renderers escape it. Plots, bars, heat maps and pictures are for pages alone: where
they show a figure that matters, a table or a sentence beside them states it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, Union

from edgeseg.report.bars import HeatRow, Stack
from edgeseg.report.contents import Entry, Headline, Picture
from edgeseg.report.svg import Plot
from edgeseg.report.tables import Table


@dataclass(frozen=True)
class Paragraph:
    """Text, after a few words in bold."""

    text: str
    lead: str = ""
    style: Literal["", "meta", "lead"] = ""


@dataclass(frozen=True)
class Bullets:
    """An unordered list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Lines of a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Headlines:
    """The figures to put on top."""

    items: Sequence[Headline]


@dataclass(frozen=True)
class Figure:
    """A plot with its caption."""

    plot: Plot
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars on one scale."""

    stacks: Sequence[Stack]
    title: str = ""
    caption: str = ""

    @property
    def key(self) -> list[tuple[str, str]]:
        """Style and name of the parts that have one."""
        parts = [part for stack in self.stacks for part in stack.parts if part.name]
        return list(dict.fromkeys((part.style, part.name) for part in parts))


@dataclass(frozen=True)
class Key:
    """Number, colour and label of each engine in the figures."""

    entries: Sequence[Entry]


@dataclass(frozen=True)
class Heat:
    """A confusion matrix."""

    rows: Sequence[HeatRow]


@dataclass(frozen=True)
class Panels:
    """A row of panels for each picture, with the score; ``colours`` are names and CSS colours."""

    colours: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, Sequence[Picture]]]


@dataclass(frozen=True)
class Grid:
    """Blocks side by side where there is room."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Box:
    """Blocks that stand out under a title in bold."""

    style: Literal["banner", "notes", "advice"]
    title: str
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Section:
    """Blocks under a heading, whose level is the depth in the tree."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report; ``meta`` stands below the title."""

    title: str
    meta: Sequence[Paragraph]
    blocks: Sequence[Block]


Block: TypeAlias = Union[  # noqa: UP007 - read at run time, before the classes below exist
    Paragraph, Bullets, Facts, Code, Headlines, Table, Figure, Bars, Key, Heat, Picture, Panels,
    Grid, Box, Section,
]  # fmt: skip


def some(*blocks: Block | None) -> tuple[Block, ...]:
    """The blocks that are there and have content."""
    return tuple(block for block in blocks if block is not None and _filled(block))


def section(title: str, *blocks: Block | None) -> Section | None:
    """A section of the blocks that have content, None where none has."""
    found = some(*blocks)
    return Section(title, found) if found else None


def grid(*blocks: Block | None) -> Grid | None:
    """Likewise, side by side."""
    found = some(*blocks)
    return Grid(found) if found else None


def _filled(block: Block) -> bool:
    match block:
        case Bullets(content) | Code(content) | Headlines(content) | Key(content):
            return bool(content)
        case Facts(content) | Heat(content) | Bars(content):
            return bool(content)
        case Table(rows=content):
            return bool(content)
    return True
