"""Render a report as Markdown: text and tables, without plots and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeseg.report import tree
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.report.tables import escape_markdown as escape


def render_markdown_page(page: tree.Page) -> str:
    """The whole document, ending in a newline."""
    return f"# {escape(page.title)}\n\n{_blocks((*page.meta, *page.blocks), 2)}\n"


def _blocks(blocks: Iterable[tree.Block], level: int) -> str:
    return "\n\n".join(filter(None, (_block(block, level) for block in blocks)))


def _block(block: tree.Block, level: int) -> str:  # noqa: PLR0911 - one per kind
    """One block; empty for those that only a page shows."""
    match block:
        case tree.Section(title, blocks):
            inner = _blocks(blocks, level + 1)
            return f"{'#' * level} {escape(title)}\n\n{inner}" if inner else ""
        case tree.Box(_, title, blocks):
            return f"**{escape(title)}**\n\n{_blocks(blocks, level)}".rstrip()
        case tree.Grid(blocks):
            return _blocks(blocks, level)
        case tree.Paragraph(text, lead):
            return f"**{escape(lead)}** {escape(text)}" if lead else escape(text)
        case tree.Bullets(items):
            return _list(map(escape, items))
        case tree.Facts(rows):
            return _list(f"{escape(name)}: {escape(value)}" for name, value in rows)
        case tree.Headlines(headlines):
            return _list(
                f"{escape(item.name)}: **{item.value} {item.unit}**"
                + (f" ({escape(item.context)})" if item.context else "")
                for item in headlines
            )
        case tree.Panels(rows=panels):
            return _list(f"{escape(name)}: {score}" for name, score, _ in panels)
        case tree.Code(lines):
            return _fenced("\n".join(lines))
        case tree.Heat(classes):
            names = ("True class", *(row.name for row in classes), "pixels, %", "IoU, %")
            columns = tuple(Column(name, number=name != names[0]) for name in names)
            cells = ((r.name, *(c.text for c in r.cells), r.pixels, r.iou) for r in classes)
            return render_markdown(Table(columns, tuple(cells))).rstrip("\n")
        case Table():
            return render_markdown(block).rstrip("\n")
    return ""


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"
